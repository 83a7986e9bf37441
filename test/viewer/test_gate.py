# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from clip_seg_ros.viewer.gate import Gate, is_loopback

TOKEN = "fifteen-letters"


async def secret(request):
    return PlainTextResponse("the secret")


async def socket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.send_text("the secret")
    await connection.close()


def client(token: str | None, host: str = "127.0.0.1:8088") -> TestClient:
    app = Starlette(routes=[Route("/", secret), Route("/3d/", secret), WebSocketRoute("/view", socket)])
    return TestClient(Gate(app, token), base_url=f"http://{host}")


def test_the_token_opens_and_a_cookie_keeps_open() -> None:
    browser = client(TOKEN, "robot:8088")

    assert browser.get("/", params={"token": TOKEN}).text == "the secret"
    assert browser.get("/").text == "the secret"
    assert TOKEN not in str(browser.cookies)


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=fifteen-letter", "?token=%C3%A4", "?other=1"])
def test_without_the_token_nothing_is_told(query: str) -> None:
    browser = client(TOKEN, "robot:8088")
    answer = browser.get(f"/{query}")

    assert answer.status_code == 401
    assert "the secret" not in answer.text
    assert "open the address that its server printed" in answer.text
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(f"ws://robot:8088/view{query}"):
        pass


def test_a_wrong_cookie_opens_nothing() -> None:
    for cookie in (
        "clip_seg_view_8088=wrong",
        "clip_seg_view_8088=ä",
        "clip_seg_view_8088",
        f"clip_seg_view_8088={TOKEN}",
    ):
        answer = client(TOKEN, "robot:8088").get("/", headers={"Cookie": cookie.encode()})
        assert answer.status_code == 401


@pytest.mark.parametrize("others", ["odd; version=1; ", "a=b=c; ", "=; ", "name=two words; "])
def test_cookies_of_other_programs_do_not_matter(others: str) -> None:
    browser = client(TOKEN, "robot:8088")
    own = browser.get("/", params={"token": TOKEN}).headers["set-cookie"].split(";")[0]

    answer = client(TOKEN, "robot:8088").get("/", headers={"Cookie": others + own})
    assert answer.text == "the secret"


@pytest.mark.parametrize("host", ["[", "a:b", "", "robot:70000", ":8088"])
def test_what_names_no_host_is_refused(host: str) -> None:
    for token in (None, TOKEN):
        assert client(token).get("/", headers={"Host": host}).status_code == 400


def test_two_views_of_one_robot_do_not_take_each_others_cookies() -> None:
    first = client(TOKEN, "robot:8088").get("/", params={"token": TOKEN})
    second = client(TOKEN, "robot:8089").get("/", params={"token": TOKEN})

    assert first.headers["set-cookie"].split("=")[0] != second.headers["set-cookie"].split("=")[0]
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Strict" in first.headers["set-cookie"]


@pytest.mark.parametrize("host", ["localhost:8088", "127.0.0.1:8088", "[::1]:8088"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert client(None, host).get("/").text == "the secret"


def test_a_name_that_somebody_made_point_here_opens_nothing() -> None:
    assert client(None, "evil.example:8088").get("/").status_code == 421


def test_a_page_of_somebody_else_gets_no_connection() -> None:
    browser, address = client(None), "ws://127.0.0.1:8088/view"
    with (
        pytest.raises(WebSocketDisconnect),
        browser.websocket_connect(address, headers={"Origin": "http://evil.example"}),
    ):
        pass
    with browser.websocket_connect(address, headers={"Origin": "http://127.0.0.1:8088"}) as own:
        assert own.receive_text() == "the secret"


@pytest.mark.parametrize("path", ["/", "/3d/"])
def test_pages_may_load_nothing_from_elsewhere(path: str) -> None:
    policy = client(None).get(path).headers["content-security-policy"]

    assert policy.startswith("default-src 'self'")
    assert "http:" not in policy
    assert "https:" not in policy
    assert "*" not in policy


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "robot", ""])
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)
