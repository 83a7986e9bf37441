# SPDX-License-Identifier: Apache-2.0
"""`clip-seg mcp` as an assistant starts it: the official client, real nodes and the rendered camera."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="there is no ROS 2")
pytest.importorskip("mcp", reason="the package mcp is not installed: pip install .[mcp]")

from assistants import FRAME, NAMES, PATIENCE_S, SEED, Assistant, World, over_stdio
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import ObjectRegion
from domains import own_domain_environment

TOOLS = {"find", "segment", "describe", "recall", "look", "command"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "find": {"phrase": "cup"},
    "segment": {"phrases": ["cup"]},
    "command": {"text": "stop"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture(scope="module")
def robot(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    with over_stdio(world.environment, tmp_path_factory.mktemp("mcp") / "errors") as found:
        yield found


@pytest.fixture(scope="module")
def view() -> RenderedView:
    """What the camera shows, with the truth."""
    pairs = [tuple(name.split()) for name in NAMES]
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(SEED, required=pairs))


def true_position(view: RenderedView, name: str) -> np.ndarray:
    region = ObjectRegion.of_mask(name, 1, 1.0, view.mask_of(*name.split()))
    return np.array(locate(region, view.depth_m, view.intrinsics))


def picture_of(result: Any) -> np.ndarray:
    image = next(each for each in result.content if each.type == "image")
    assert image.mime_type == "image/jpeg"
    return cv2.imdecode(np.frombuffer(base64.b64decode(image.data), np.uint8), cv2.IMREAD_COLOR)


def test_the_tools_describe_themselves(robot: Assistant) -> None:
    tools = {tool.name: tool for tool in robot.portal.call(robot.client.list_tools).tools}
    assert set(tools) == TOOLS
    assert all(len(tool.description) > 60 and tool.output_schema for tool in tools.values())
    timeout = tools["find"].input_schema["properties"]["timeout_s"]
    assert (timeout["minimum"], timeout["maximum"], timeout["default"]) == (0.1, 120.0, 10.0)
    assert "seconds" in timeout["description"]
    assert tools["find"].annotations.read_only_hint
    assert not tools["segment"].annotations.read_only_hint


def test_a_thing_is_found_by_where_it_is(robot: Assistant, view: RenderedView) -> None:
    cups = {name: true_position(view, name) for name in NAMES if "cup" in name}
    box = true_position(view, "blue box")
    left = [place for place in cups.values() if place[0] < box[0]]
    assert len(left) == 1, "the scene has one cup on each side of the box"
    found = robot.answer("find", phrase="the cup left of the blue box")
    assert found["found"]
    assert not found["from_memory"]
    assert found["frame"] == FRAME
    assert 0.0 <= found["age_s"] < 60.0
    assert math.dist(found["thing"]["position_m"], left[0]) < 0.02


def test_what_is_not_there_is_an_answer(robot: Assistant) -> None:
    found = robot.answer("find", phrase="white ball", timeout_s=1.0)
    assert not found["found"]
    assert found["thing"] is None
    assert "white ball: not found within 1 s" in found["message"]


def test_phrases_are_segmented(robot: Assistant, view: RenderedView) -> None:
    result = robot.call("segment", phrases=["red cup", "the blue box"], picture=True)
    assert not result.is_error, result.content
    seen = result.structured_content
    assert seen["phrases"] == ["red cup", "blue box"]
    assert sorted(thing["phrase"] for thing in seen["things"]) == ["blue box", "red cup"]
    for thing in seen["things"]:
        assert thing["score"] > 0.5
        assert math.dist(thing["position_m"], true_position(view, thing["phrase"])) < 0.02
        rows, columns = np.nonzero(view.mask_of(*thing["phrase"].split()))
        box_px = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(thing["box_px"], box_px)).max() < 12
        assert len(thing["size_m"]) == 3
    assert json.loads(result.content[0].text) == seen
    assert picture_of(result).shape == view.rgb.shape


def test_pictures_are_shown(robot: Assistant, view: RenderedView) -> None:
    robot.answer("segment", phrases=["red cup"])
    plain, drawn = (robot.call("look", picture=kind) for kind in ("camera", "overlay"))
    assert plain.structured_content["width_px"] == view.rgb.shape[1]
    difference = np.abs(picture_of(plain)[..., ::-1].astype(int) - view.rgb)
    assert np.median(difference) < 4
    marked = np.abs(picture_of(plain).astype(int) - picture_of(drawn)).max(axis=2) > 40
    assert marked[view.mask_of("red", "cup")].mean() > 0.05


def test_the_scene_is_described(robot: Assistant) -> None:
    seen = robot.answer("describe")
    assert seen["message"].startswith("I see ")
    assert set(NAMES) & set(seen["names"])


def test_a_command_is_carried_out(robot: Assistant) -> None:
    said = robot.answer("command", text="find the red cup")
    assert said["state"] == "found"
    assert said["found"] == ["red cup"]
    assert [each["state"] for each in said["statuses"]] == ["accepted", "found"]
    assert robot.answer("command", text="stop")["state"] == "accepted"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("find", {"phrase": "the cup left of the"}, '"left of" needs a thing after it'),
        ("find", {"phrase": "the third cup"}, "needs a side to count from"),
        ("find", {"phrase": "cup and bowl"}, "2 phrases"),
        ("find", {"phrase": "  "}, "a phrase is empty"),
        ("find", {"phrase": "cup", "camera": "rear"}, 'there is no camera "rear"'),
        ("find", {"phrase": "cup", "timeout_s": 0.0}, "greater than or equal to 0.1"),
        ("segment", {"phrases": ["segmnt teh redcup"]}, "did you mean"),
        ("segment", {"phrases": ["cup", " "]}, "a phrase is empty"),
        ("segment", {"phrases": []}, "at least 1 item"),
        ("segment", {"phrases": ["classes: cup"]}, "with the tool command"),
        ("segment", {"phrases": ["cup"], "camera": "rear"}, 'there is no camera "rear"'),
        ("look", {"camera": "rear"}, 'there is no camera "rear"'),
        ("command", {"text": "use nonsense"}, "there is no model"),
    ],
)
def test_nonsense_is_an_error_that_says_why(robot: Assistant, tool: str, arguments: dict, words: str) -> None:
    assert words in robot.error(tool, **arguments)


def test_several_questions_at_once_get_their_own_answers(robot: Assistant) -> None:
    started = [*(robot.start("find", phrase=name) for name in NAMES), robot.start("describe")]
    *found, seen = [call.result(PATIENCE_S).structured_content for call in started]
    assert [each["thing"]["phrase"] for each in found] == list(NAMES)
    assert "I see" in seen["message"]


def test_what_was_seen_is_recalled(robot: Assistant, view: RenderedView) -> None:
    robot.answer("segment", phrases=["red cup"])
    result = robot.call("recall", phrase="red cup", pictures=True)
    deadline_s = time.monotonic() + PATIENCE_S
    while not (result.is_error or result.structured_content["things"]) and time.monotonic() < deadline_s:
        result = robot.call("recall", phrase="red cup", pictures=True)
    assert not result.is_error, result.content
    thing = result.structured_content["things"][0]
    assert thing["phrase"] == "red cup"
    assert math.dist(thing["position_m"], true_position(view, "red cup")) < 0.02
    assert result.structured_content["frame"] == FRAME
    assert max(picture_of(result).shape) <= 160


def test_a_node_that_was_restarted_is_found_again(robot: Assistant, world: World) -> None:
    world.end_node()
    assert "ros2 launch clip_seg_ros seg.launch.py" in robot.error("find", phrase="red cup")
    world.start_node()
    assert robot.answer("find", phrase="red cup")["found"]
    assert robot.answer("segment", phrases=["red cup"])["things"]


def test_where_no_node_runs_every_tool_says_what_to_start(tmp_path: Path) -> None:
    with over_stdio(own_domain_environment(), tmp_path / "errors") as alone:
        started = [alone.start(tool, **ARGUMENTS.get(tool, {})) for tool in sorted(TOOLS)]
        results = [call.result(PATIENCE_S) for call in started]
    assert all(result.is_error for result in results)
    said = [result.content[0].text for result in results]
    assert [text for text in said if "ros2 launch clip_seg_ros seg.launch.py" not in text] == []
