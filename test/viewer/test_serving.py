# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from clip_seg_ros.viewer.serving import ViewServer
from clip_seg_ros.viewer.views import Wanted
from nearness import assert_near
from rendered_source import RenderedSource
from view_client import ViewClient
from viser_client import CAMERA, CLICK, ViserClient

BLUE_BOX = {"ask": "command", "text": "segment the blue box"}


@pytest.fixture(scope="module")
def source() -> RenderedSource:
    return RenderedSource()


@pytest.fixture(scope="module")
def address(source: RenderedSource) -> Iterator[str]:
    server = ViewServer(source, port=0)
    yield server.start()
    server.stop()


@pytest.fixture
def viewer(address: str) -> Iterator[ViewClient]:
    with ViewClient(address) as viewer:
        yield viewer


def wait_until_wanted(viewer: ViewClient, source: RenderedSource, wanted: Wanted) -> None:
    """Waits until the source knows; an answer tells that whatever was sent before it was taken."""
    viewer.ask(ask="parameters")
    assert source.wanted == wanted


def test_a_viewer_is_greeted(viewer: ViewClient) -> None:
    hello = viewer.event(lambda event: event["event"] == "hello")

    assert (hello["title"], hello["can_pause"], hello["cameras"]) == ("the rendered table", True, ["left", "right"])


def test_nothing_is_wanted_until_somebody_looks(viewer: ViewClient, source: RenderedSource) -> None:
    wait_until_wanted(viewer, source, Wanted())
    viewer.look("left")
    wait_until_wanted(viewer, source, Wanted(frozenset(["left"])))
    viewer.look("right", layer="confidence", space=True)
    wait_until_wanted(viewer, source, Wanted(frozenset(["right"]), True, True))
    viewer.look(None)
    wait_until_wanted(viewer, source, Wanted())


def test_a_viewer_that_leaves_wants_nothing(address: str, viewer: ViewClient, source: RenderedSource) -> None:
    viewer.look("right")
    with ViewClient(address) as other:
        other.look("left")
        wait_until_wanted(other, source, Wanted(frozenset(["left", "right"])))
    while source.wanted != Wanted(frozenset(["right"])):
        viewer.ask(ask="parameters")


def test_a_command_is_answered_and_its_things_are_shown(viewer: ViewClient, source: RenderedSource) -> None:
    viewer.look("left")
    assert viewer.ask(**BLUE_BOX)["event"] == "answer"

    status = viewer.event(lambda event: event["event"] == "status" and event["command"] == "segment the blue box")
    header, jpeg = viewer.picture(lambda header: header["prompts"] == ["blue box"])
    box = next(
        index for index, item in enumerate(source.truth.objects, 1) if (item.color, item.kind) == ("blue", "box")
    )
    (thing,) = header["things"]
    expected = source.things[box]
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)

    assert status["state"] == "accepted"
    assert (thing["prompt"], thing["id"], thing["box_px"]) == ("blue box", box, list(expected.box_px))
    assert_near(np.array(thing["position_m"]), np.array(expected.position_m), 1e-4)
    assert header["size_px"] == [640, 480]
    assert picture.shape == (480, 640, 3)


def test_who_comes_later_is_told_what_was_answered(viewer: ViewClient, address: str) -> None:
    viewer.ask(ask="command", text="segment the red ball")
    with ViewClient(address) as other:
        other.event(lambda event: event["event"] == "status" and event["command"] == "segment the red ball")


def test_a_command_that_is_not_understood_is_rejected(viewer: ViewClient) -> None:
    viewer.ask(ask="command", text="segment the cup left of the")

    assert viewer.event(lambda event: event.get("state") == "rejected")["message"]


def test_pictures_wait_for_the_viewer(viewer: ViewClient) -> None:
    viewer.look("left")
    for _ in range(2):
        while len(viewer.pictures) < 2:
            viewer.take(draws=False)
        # Two are under way, and no third one comes, however long the viewer takes.
        with pytest.raises(TimeoutError):
            viewer.take(draws=False, timeout_s=0.5)
        viewer.send(ask="drawn", number=viewer.pictures[-1][0]["number"])
        viewer.pictures.clear()


def test_a_paused_viewer_gets_pictures_step_by_step(viewer: ViewClient, source: RenderedSource) -> None:
    viewer.look("left", paused=True)
    viewer.picture()
    with pytest.raises(TimeoutError):
        viewer.take(timeout_s=0.5)
    viewer.send(ask="step")
    viewer.picture()
    viewer.ask(ask="play", how="step")

    assert source.played[-1] == "step"


def test_a_pause_holds_its_picture_however_it_is_looked_at(viewer: ViewClient) -> None:
    viewer.look("left")
    viewer.picture()
    stamps = []
    for layer in ("overlay", "plain", "confidence"):
        viewer.look("left", paused=True, layer=layer)
        viewer.ask(ask="models")
        viewer.pictures.clear()
        viewer.look("left", paused=True, layer=layer)
        stamps.append(viewer.picture()[0]["stamp_ns"])

    assert len(set(stamps)) == 1
    viewer.send(ask="step")
    assert viewer.picture()[0]["stamp_ns"] != stamps[0]


def test_the_time_until_the_screen_is_told(viewer: ViewClient) -> None:
    viewer.look("left")
    header, _ = viewer.picture(lambda header: header["to_screen_ms"] is not None)

    assert 0 < header["to_screen_ms"] < 60_000


def test_parameters_are_listed_changed_and_refused(viewer: ViewClient, address: str) -> None:
    listed = {each["name"]: each for each in viewer.ask(ask="parameters")["answer"]}
    assert (listed["smoothing"]["low"], listed["smoothing"]["high"], listed["smoothing"]["kind"]) == (0, 0.99, "float")
    assert listed["relations"]["choices"] == ["model", "geometry", "both"]

    with ViewClient(address) as other:
        assert viewer.ask(ask="set", name="smoothing", value=0.25)["event"] == "answer"
        assert other.event(lambda event: event["event"] == "parameter")["value"] == 0.25
    refused = viewer.ask(ask="set", name="smoothing", value=7.0)
    assert refused["event"] == "refused"
    assert "smoothing" in refused["message"]


def test_models_are_listed(viewer: ViewClient) -> None:
    models = viewer.ask(ask="models")["answer"]

    assert models[0] | {"page": ""} == {
        "name": "clipseg-pocket", "licence": "Apache-2.0", "megabytes": 8, "is_here": True, "page": "",
    }  # fmt: skip


def test_pointing_tells_what_is_there(viewer: ViewClient, source: RenderedSource) -> None:
    mask = source.truth.mask_of("blue", "box")
    row, column = np.argwhere(mask)[mask.sum() // 2].tolist()
    found = viewer.ask(ask="point", camera="left", spot=[column, row], teach_as="my box")["answer"]
    inside = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(inside, [np.array(outline) for outline in found["outlines_px"]], 1)

    assert found["message"] == "blue box"
    assert np.count_nonzero(inside & mask) / np.count_nonzero(inside | mask) > 0.9
    assert source.taught == ["my box"]

    nothing = viewer.ask(ask="point", camera="left", spot=[2, 2])
    assert (nothing["event"], nothing["message"]) == ("refused", "there is only the table here")


def test_what_is_no_question_is_refused_and_the_viewer_stays(viewer: ViewClient) -> None:
    assert "load the page again" in viewer.ask(ask="nonsense")["message"]
    assert "not understood" in viewer.ask(ask="point", camera="left", spot="here")["message"]
    assert "not understood" in viewer.ask(ask="set")["message"]
    assert "the question failed: IndexError" in viewer.ask(ask="point", camera="left", spot=[9000, 5])["message"]
    assert viewer.ask(ask="models")["event"] == "answer"


@pytest.mark.parametrize(
    "nonsense",
    [
        "{",
        "[]",
        '{"ask": "look", "camera": [1], "layer": "plain", "width_px": 9}',
        '{"ask": "look"}',
        '{"ask": "drawn", "number": "x"}',
    ],
)
def test_what_is_no_message_ends_that_viewer_alone(viewer: ViewClient, address: str, nonsense: str) -> None:
    with ViewClient(address) as other:
        other._socket.send(nonsense)
        with pytest.raises(ConnectionClosed, match="not understood"):
            other.event(lambda event: False)
    assert viewer.ask(ask="models")["event"] == "answer"


def test_a_picture_is_saved_in_its_full_size(viewer: ViewClient, address: str) -> None:
    viewer.look("left", width_px=100)
    viewer.picture()
    with urllib.request.urlopen(f"{address}picture?camera=left&layer=plain") as response:
        name, data = response.headers["Content-Disposition"], response.read()

    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)
    assert name.startswith('attachment; filename="left_')


def test_a_picture_of_a_pause_is_the_one_that_is_seen(address: str) -> None:
    with ViewClient(address, "me") as viewer, ViewClient(address, "other") as other:
        viewer.look("left", paused=True)
        stamp = viewer.picture()[0]["stamp_ns"]
        other.look("left")
        other.picture(lambda header: int(header["stamp_ns"]) > int(stamp))
        with urllib.request.urlopen(f"{address}picture?camera=left&layer=overlay&viewer=me") as response:
            assert response.headers["Content-Disposition"] == f'attachment; filename="left_{stamp}.jpg"'
        with urllib.request.urlopen(f"{address}picture?camera=left&layer=overlay") as response:
            assert response.headers["Content-Disposition"] != f'attachment; filename="left_{stamp}.jpg"'


def test_of_another_camera_than_the_one_that_is_seen_the_newest_picture_is_saved(address: str) -> None:
    with ViewClient(address, "me") as viewer, ViewClient(address) as other:
        other.look("right")
        other.picture()
        viewer.look("left", paused=True)
        viewer.picture()
        with urllib.request.urlopen(f"{address}picture?camera=right&viewer=me") as response:
            assert "right_" in response.headers["Content-Disposition"]


def test_a_click_in_3d_is_told_to_whoever_clicked(address: str) -> None:
    with (
        ViewClient(address, "me") as viewer,
        ViewClient(address, "other") as other,
        ViserClient(f"{address.replace('http', 'ws')}3d/me") as space,
    ):
        for each in (viewer, other):
            each.look("left", space=True)
            each.ask(**BLUE_BOX)
        clickable = space.until(
            lambda nodes: [name for name, node in nodes.items() if "bindings" in node], "a box that can be clicked"
        )
        space.send(CAMERA)
        space.send({**CLICK, "name": clickable[0]})
        picked = viewer.event(lambda event: event["event"] == "picked")
        other.ask(ask="models")

    assert picked["camera"] == "left"
    assert [event for event in other.events if event["event"] == "picked"] == []


def test_pages_of_other_hosts_get_no_scene(address: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        ViserClient(f"{address.replace('http', 'ws')}3d/me", origin="http://evil.example")


@pytest.mark.parametrize("query", ["camera=nowhere", "camera=left&layer=nonsense"])
def test_a_picture_that_is_not_there(viewer: ViewClient, address: str, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}picture?{query}")


def test_the_page_comes_with_all_its_parts(address: str) -> None:
    with urllib.request.urlopen(address) as response:
        page = response.read().decode()
    for part in ("app.js", "style.css", "icon.svg"):
        assert f"/page/{part}" in page
        assert urllib.request.urlopen(f"{address}page/{part}").status == 200
    for path in ("page/../serving.py", "page/%2e%2e/serving.py", "nonsense"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + path)


def test_other_machines_need_a_token() -> None:
    server = ViewServer(RenderedSource(), "0.0.0.0", 0)
    try:
        address = server.start()
        port, token = address.rpartition(":")[2].split("/?token=")
        here = f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(here)
        with pytest.raises(InvalidStatus, match="403"), ViewClient(here):
            pass
        assert urllib.request.urlopen(f"{here}?token={token}").status == 200
        with ViewClient(f"{here}?token={token}") as viewer:
            viewer.event(lambda event: event["event"] == "hello")
    finally:
        server.stop()


def test_a_token_may_hold_any_sign() -> None:
    server = ViewServer(RenderedSource(), port=0, token="a+b&c#d%e/f")
    try:
        assert urllib.request.urlopen(server.start()).status == 200
    finally:
        server.stop()


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        ViewServer(RenderedSource(), port=taken.getsockname()[1]).start()


def test_ten_seconds_of_events_do_not_pile_up_for_a_viewer_that_stalls(address: str, source: RenderedSource) -> None:
    with ViewClient(address) as stalled, ViewClient(address) as viewer:
        stalled.look("left")
        for number in range(2000):
            source.listener.tell(
                {"event": "health", "level": "ok", "message": str(number), "values": {"x": "y" * 2000}}
            )
        viewer.event(lambda event: event.get("message") == "1999")
        # The stalled one reads on at last, and the newest is among what it gets.
        stalled.event(lambda event: event.get("message") == "1999")


def test_messages_are_plain_json(viewer: ViewClient) -> None:
    viewer.look("left")
    header, _ = viewer.picture()

    assert json.loads(json.dumps(header, allow_nan=False)) == header
