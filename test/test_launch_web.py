# SPDX-License-Identifier: Apache-2.0
"""Launch files that start the view in the browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_seg_ros import dds
from clip_seg_ros.viewer.needed import missing_package
from launching import include, load, needs_launch, run, told

needs_web = pytest.mark.skipif(bool(missing_package()), reason=missing_package())


@needs_launch
@needs_web
def test_the_view_in_the_browser_has_the_namespace_and_the_time_of_the_nodes() -> None:
    arguments = {"web": "true", "web_port": "0", "web_host": "0.0.0.0", "namespace": "eyes", "use_sim_time": "true"}
    left = run(include(arguments), programs=2)

    assert sorted(left.commands) == ["referring", "web_view"]
    assert "__ns:=/eyes" in left.commands["web_view"]
    assert told(left.commands["web_view"]) == {"host": "0.0.0.0", "port": 0, "use_sim_time": True}
    plain = run(include({"web": "true"}), programs=2)
    assert told(plain.commands["web_view"]) == {"host": "127.0.0.1", "port": 8088}
    assert sorted(run(include({})).commands) == ["referring"]
    for name in dds.PROFILE_VARIABLES:
        assert left.environments["web_view"].get(name) == left.environments["referring"].get(name)


@needs_launch
@needs_web
@pytest.mark.parametrize("token", ["12345678", "1e3456789", "yes-it-is-me", "a:b#c{}%d", "[12345678]"])
def test_a_token_is_told_as_it_is_written_and_in_no_command_line(token: str) -> None:
    command = run(include({"web": "true", "web_token": token}), programs=2).commands["web_view"]

    assert told(command)["token"] == token
    assert token not in " ".join(command)
    (file,) = (Path(command[index + 1]) for index, word in enumerate(command) if word == "--params-file")
    assert file.stat().st_mode & 0o077 == 0


@needs_launch
@needs_web
def test_a_token_of_the_environment_is_told_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_SEG_VIEW_TOKEN", "12345678")
    command = run(include({"web": "true"}), programs=2).commands["web_view"]
    named = run(include({"web": "true", "web_token": "another-token"}), programs=2).commands["web_view"]

    assert (told(command)["token"], told(named)["token"]) == ("12345678", "another-token")


@needs_launch
def test_a_wrong_token_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_SEG_VIEW_TOKEN", "short")
    with pytest.raises(ValueError, match="CLIP_SEG_VIEW_TOKEN: token must have 8 to 200"):
        load("seg")._web({"web_port": "0", "web_token": ""}, {})


@needs_launch
def test_a_wrong_token_is_told_before_anything_runs(caplog: pytest.LogCaptureFixture) -> None:
    left = run(include({"web": "true", "web_token": "short"}), programs=0)

    assert (left.code, left.commands) == (1, {})
    assert "web_token must have 8 to 200" in caplog.text


@needs_launch
@needs_web
def test_the_demonstration_is_shown_in_the_browser() -> None:
    left = run(include({"rviz": "false"}, "demo"), programs=3)

    assert sorted(left.commands) == ["referring", "sim_camera", "web_view"]
    assert "__ns:=/clip_seg" in left.commands["web_view"]


@needs_launch
@pytest.mark.parametrize(("argument", "text"), [("web", "perhaps"), ("web_port", "70000"), ("web_port", "any")])
def test_a_wrong_view_is_told_before_anything_runs(argument: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    left = run(include({"web": "true", argument: text}), programs=0)

    assert (left.code, left.commands) == (1, {})
    (error,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert argument in error
    assert repr(text) in error


@needs_launch
def test_without_what_serves_the_view_the_nodes_start_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seg = load("seg")
    monkeypatch.setattr(seg, "missing_package", lambda: "viser is not installed")

    assert (
        "viser is not installed; the nodes run without it"
        in seg._web({"web_port": "0", "web_token": ""}, {}).msg[0].text
    )
