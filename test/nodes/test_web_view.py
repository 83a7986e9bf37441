# SPDX-License-Identifier: Apache-2.0
"""What the viewer is shown of running nodes, and what it can ask of them."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.node import Node

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.settings import OWN
from clip_seg_ros.viewer.source import Refused
from clip_seg_ros.viewer.views import View, Wanted
from ros_harness import Watcher, wait_until
from viewed_robot import (
    EVERYTHING,
    LOOKED_AT,
    NAMES,
    NOTHING,
    Robot,
    named,
    region_of,
    rendered_views,
    running_robot,
    true_position,
    viewing,
)

NEAR_M = 0.01
NAMESPACE = "viewed"
OPTICAL = "camera_color_optical_frame"


@pytest.fixture(scope="module")
def shared(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    with running_robot(tmp_path_factory.mktemp("viewed"), NAMESPACE) as robot:
        yield robot
        assert robot.node.end() == 0
        assert "Traceback" not in robot.node.said()


@pytest.fixture
def robot(shared: Robot) -> Robot:
    shared.rest()
    return shared


def subscribers(node: Node, *topics: str) -> dict[str, int]:
    return {topic: node.count_subscribers(f"/{NAMESPACE}/{topic}") for topic in topics}


def test_the_bare_image_is_shown_before_anything_is_looked_for(robot: Robot) -> None:
    robot.source.want(LOOKED_AT)
    view = robot.shown.view()
    assert view.camera == ""
    assert np.array_equal(view.rgb, robot.camera.sent[view.stamp_ns].rgb)
    assert (view.things, view.labels, view.prompts) == ((), None, ())
    assert view.frame == OPTICAL


def test_each_image_is_shown_with_what_was_found_in_it(robot: Robot) -> None:
    robot.source.want(LOOKED_AT)
    said = robot.say("segment the red cup, the blue box")
    assert (said["state"], said["found"]) == ("found", ["red cup", "blue box"])
    assert robot.shown.event("status", id=said["id"])["state"] == "accepted"
    for truth in rendered_views():
        view = robot.shown.view(lambda view: view.things and robot.camera.sent[view.stamp_ns] is truth)
        assert np.array_equal(view.rgb, truth.rgb)
        assert view.prompts == ("red cup", "blue box")
        for name in view.prompts:
            (thing,) = named(view, name)
            assert mask_iou(view.labels == thing.id, truth.mask_of(*name.split())) > 0.7
            assert math.dist(thing.position_m, true_position(truth, name)) < NEAR_M
            assert np.count_nonzero(view.labels == thing.id) == thing.area_px
        assert view.notes["latency_ms"] > 0.0
        assert view.frame == OPTICAL


def test_what_things_relate_to_has_no_id(robot: Robot) -> None:
    robot.camera.views = [rendered_views()[0]]
    robot.source.want(LOOKED_AT)
    assert robot.say("segment the cup left of the blue box")["state"] == "found"
    view = robot.shown.view(lambda view: len(view.things) > 1)
    assert [thing.prompt for thing in view.things if not thing.id] == ["blue box"]


def test_nothing_is_subscribed_to_while_nobody_looks(robot: Robot, newcomer: Node) -> None:
    shown = ("labels", "objects")
    extra = ("confidence", "points", "overlay", "overlay/compressed", "mask")
    images = ("color/image_raw", "depth/image_raw")

    def wait_for(**counts: int) -> None:
        wanted = {topic.replace("__", "/"): count for topic, count in counts.items()}
        wait_until(lambda: subscribers(newcomer, *wanted) == wanted, f"the subscribers {wanted}")

    only_the_node = dict.fromkeys((*shown, *extra), 0) | dict.fromkeys(images, 1)
    wait_until(lambda: subscribers(newcomer, *only_the_node) == only_the_node, "no subscribers")
    robot.source.want(LOOKED_AT)
    wait_for(labels=1, objects=1, color__image_raw=2)
    robot.shown.view()
    assert set(subscribers(newcomer, *extra).values()) == {0}
    assert subscribers(newcomer, "depth/image_raw") == {"depth/image_raw": 1}
    robot.source.want(EVERYTHING)
    wait_for(confidence=1, points=1, depth__image_raw=2)
    assert subscribers(newcomer, "overlay", "overlay/compressed") == {"overlay": 0, "overlay/compressed": 0}
    robot.source.want(NOTHING)
    wait_until(lambda: subscribers(newcomer, *only_the_node) == only_the_node, "no subscribers")
    robot.shown.views.clear()
    robot.source.command("segment the red cup")
    assert robot.shown.event("status", state="found")
    assert not robot.shown.views


def test_confidence_and_space_come_where_they_are_wanted(robot: Robot) -> None:
    truth = rendered_views()[0]
    robot.camera.views = [truth]
    robot.source.want(EVERYTHING)
    robot.say("segment the red cup")
    view = robot.shown.view(lambda view: view.confidence is not None and view.cloud and view.surroundings)
    (cup,) = named(view, "red cup")
    assert view.confidence.shape == view.rgb.shape[:2]
    assert view.confidence[view.labels == cup.id].mean() > 0.5 > view.confidence[view.labels == 0].mean()
    assert set(np.unique(view.cloud.ids)) == {cup.id}
    assert np.linalg.norm(np.median(view.cloud.points_m, axis=0) - true_position(truth, "red cup")) < NEAR_M
    assert (view.intrinsics, view.camera_pose, view.frame) == (truth.intrinsics, None, OPTICAL)
    check_surroundings(view, cup.position_m)
    robot.source.want(LOOKED_AT)
    parts = ("confidence", "cloud", "surroundings", "table")
    robot.shown.view(lambda view: view.things and all(getattr(view, part) is None for part in parts))


def check_surroundings(view: View, cup_m: tuple[float, float, float]) -> None:
    around = view.surroundings
    assert 2000 < len(around.points_m) <= 8000
    assert around.points_m.shape == around.rgb.shape
    up, height_m = np.array(view.table[:3]), view.table[3]
    assert np.linalg.norm(up) == pytest.approx(1.0)
    assert up @ (0.0, -1.0, 0.0) > 0.2
    on_table = np.abs(around.points_m @ up + height_m) < NEAR_M
    assert on_table.mean() > 0.3
    assert 0.0 < cup_m @ up + height_m < 0.15


def test_parameters_are_told_changed_and_refused(robot: Robot, ros: None) -> None:
    threshold = next(value for each, value in robot.source.parameters() if each.name == "threshold")
    assert threshold == 0.5
    assert all(each.live for each, _ in robot.source.parameters())
    robot.source.set_parameter("threshold", 0.25)
    assert robot.shown.event("parameter", name="threshold")["value"] == 0.25
    assert {each.name: value for each, value in robot.source.parameters()}["threshold"] == 0.25
    robot.source.set_parameter("things", ["cup", "box"])
    assert robot.shown.event("parameter", name="things")["value"] == ("cup", "box")
    robot.source.set_parameter("things", [])
    assert {each.name: value for each, value in robot.source.parameters()}["things"] == ()
    for name, value, words in (
        ("threshold", 7.0, "threshold"),
        ("threshold", "high", "threshold must be a number, got 'high'"),
        ("relations", "guess", "relations must be model, geometry or both, got 'guess'"),
        ("model", "no-such-model", "no-such-model"),
        ("device", "cpu", "device is no parameter that may change while"),
    ):
        with pytest.raises(Refused, match=words):
            robot.source.set_parameter(name, value)
    robot.source.set_parameter("threshold", OWN)


def test_what_others_change_is_told(robot: Robot) -> None:
    watcher = Watcher(NAMESPACE)
    try:
        assert watcher.set_parameter("referring", "min_area_fraction", 0.003).successful
        assert robot.shown.event("parameter", name="min_area_fraction")["value"] == 0.003
        watcher.say("threshold 0.4")
        assert robot.shown.event("parameter", name="threshold", value=0.4)
        assert robot.shown.event("status", command="threshold 0.4", state="accepted")
    finally:
        watcher.close()


def test_health_names_the_node_its_model_and_its_cameras(robot: Robot) -> None:
    health = robot.shown.event("health")
    assert health["level"] in ("ok", "warn")
    assert health["values"]["node"] == f"/{NAMESPACE}/referring"
    assert health["values"]["model"] == "clipseg-pocket"
    assert float(health["values"]["images received per second"]) >= 0.0
    assert health["values"]["topic"] == f"/{NAMESPACE}/color/image_raw"
    assert health["values"]["images"] == "nothing to look for"
    assert robot.source.cameras() == [""]
    assert robot.source.title == f"/{NAMESPACE}"


def test_the_model_that_serves_is_told(robot: Robot) -> None:
    try:
        assert robot.say("use maskclip-pocket")["state"] == "done"
        robot.shown.event("model", name="maskclip-pocket")
    finally:
        assert robot.say("use clipseg-pocket")["state"] == "done"
    robot.shown.event("model", name="clipseg-pocket")


def test_the_models_are_those_that_are_listed(robot: Robot) -> None:
    models = {model.name: model for model in robot.source.models()}
    assert models["clipseg-pocket"].is_here
    assert 0 < models["clipseg-pocket"].megabytes < 100
    published = models["clipseg-rd64-refined"]
    assert published.megabytes == 603
    assert published.page.startswith("https://")
    assert "Apache-2.0" in published.licence


def test_a_click_names_the_thing_and_says_where_it_is(robot: Robot) -> None:
    truth = rendered_views()[0]
    robot.camera.views = [truth]
    robot.source.want(LOOKED_AT)
    assert robot.say("segment the red cup")["state"] == "found"
    robot.shown.view(lambda view: named(view, "red cup") and robot.camera.sent[view.stamp_ns] is truth)
    rows, columns = np.nonzero(truth.mask_of("blue", "box"))
    middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    pointed = robot.source.point("", (columns[middle], rows[middle]))
    box_m = true_position(truth, "blue box")
    assert (pointed.thing.prompt, pointed.thing.id, pointed.frame) == ("blue box", 0, OPTICAL)
    assert math.dist(pointed.thing.position_m, box_m) < NEAR_M
    assert mask_iou(pointed.labels, truth.mask_of("blue", "box")) > 0.7
    assert pointed.message.startswith("blue box, ")
    gap_cm = 100 * math.dist(box_m, true_position(truth, "red cup"))
    words, _, told_cm = pointed.nearest.removesuffix(" cm").rpartition(", ")
    assert words == "closest to the red cup"
    assert abs(float(told_cm) - gap_cm) < 2.0


def test_a_box_around_a_found_thing_has_its_name(robot: Robot) -> None:
    truth = rendered_views()[0]
    robot.camera.views = [truth]
    robot.source.want(LOOKED_AT)
    robot.say("segment the red cup, the green cup")
    robot.shown.view(lambda view: len(view.things) == 2 and robot.camera.sent[view.stamp_ns] is truth)
    pointed = robot.source.point("", region_of(truth, "red cup").box_px)
    assert pointed.thing.prompt == "red cup"
    assert math.dist(pointed.thing.position_m, true_position(truth, "red cup")) < NEAR_M
    assert pointed.nearest.startswith("closest to the green cup")


def test_what_was_taught_is_found_by_its_name(robot: Robot) -> None:
    truth = rendered_views()[0]
    robot.camera.views = [truth]
    robot.source.want(LOOKED_AT)
    robot.shown.view()
    pointed = robot.source.point("", region_of(truth, "blue box").box_px, "My treasure")
    assert pointed.thing.prompt == "treasure"
    assert '"treasure" now means it' in pointed.message
    assert robot.say("segment my treasure")["state"] == "found"
    view = robot.shown.view(lambda view: named(view, "treasure"))
    there = np.isin(view.labels, [thing.id for thing in named(view, "treasure")])
    assert mask_iou(there, truth.mask_of("blue", "box")) > 0.5


@pytest.mark.parametrize(
    ("camera", "spot_px", "teach_as", "words"),
    [
        ("", (700, 5), "", "outside of the picture of 640x480"),
        ("", (10, 10, 10, 20), "", "the box is empty"),
        ("", (10, 10, 20), "", "two numbers"),
        ("rear", (10, 10), "", 'there is no camera "rear"'),
        ("", (10, 10), "cup and bowl", "would not take"),
    ],
)
def test_a_wrong_spot_is_refused(robot: Robot, camera: str, spot_px: tuple, teach_as: str, words: str) -> None:
    robot.source.want(LOOKED_AT)
    robot.shown.view()
    with pytest.raises(Refused, match=words):
        robot.source.point(camera, spot_px, teach_as)


def test_what_is_misspelt_is_told_as_rejected(robot: Robot) -> None:
    robot.source.command("segmnt teh redcup")
    assert "did you mean" in robot.shown.event("status", state="rejected")["message"]


def test_a_node_that_is_killed_is_gone_and_met_again(ros: None, tmp_path: Path) -> None:
    with running_robot(tmp_path, "mortal") as robot:
        robot.source.want(LOOKED_AT)
        robot.say("segment the red cup")
        robot.shown.view(lambda view: view.things)
        robot.node.end(signal.SIGKILL)
        gone = robot.shown.event("gone")
        assert (
            "no node answers in /mortal: ros2 launch clip_seg_ros seg.launch.py namespace:=/mortal" in gone["message"]
        )
        for ask in (lambda: robot.source.command("stop"), robot.source.parameters):
            with pytest.raises(Refused, match="no node answers in /mortal"):
                ask()
        robot.shown.forget()
        robot.start_node()
        robot.shown.event("back")
        robot.shown.view(lambda view: not view.things)
        assert robot.say("segment the red cup")["state"] == "found"
        view = robot.shown.view(lambda view: view.things)
        assert mask_iou(view.labels > 0, robot.camera.sent[view.stamp_ns].mask_of("red", "cup")) > 0.7
        assert robot.node.end() == 0


def test_where_nobody_is_it_says_what_to_do(ros: None) -> None:
    with viewing("nobody_there", spun_first=False) as (source, shown):
        gone = shown.event("gone")
        assert gone["message"].startswith("no node answers in /nobody_there: ros2 launch clip_seg_ros seg.launch.py")
        with pytest.raises(Refused, match="no node answers"):
            source.command("stop")
        assert source.cameras() == []
        assert any(model.name == "clipseg-pocket" for model in source.models())


def test_one_camera_of_several_is_looked_at(ros: None, tmp_path: Path, newcomer: Node) -> None:
    parameters = (
        "image_topics:=[/double/color/image_raw, /double/right/image_raw]",
        "camera_names:=[left, right]",
        "depth_topics:=[/double/depth/image_raw, '']",
        "camera_info_topics:=[/double/color/camera_info, '']",
    )
    with running_robot(tmp_path, "double", *parameters) as robot:
        assert robot.source.cameras() == ["left", "right"]
        assert robot.shown.event("cameras")["cameras"] == ["left", "right"]
        robot.source.want(Wanted(frozenset({"left"})))
        robot.say("segment the red cup")
        view = robot.shown.view(lambda view: view.things)
        assert view.camera == "left"
        assert newcomer.count_subscribers("/double/left/labels") == 1
        assert newcomer.count_subscribers("/double/right/labels") == 0


def test_the_process_does_without_torch() -> None:
    program = """
import sys
import clip_seg_ros.nodes.web_view
from clip_seg_ros.viewer.models import model_choices
assert model_choices()
resident_kb = next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]
print("torch" in sys.modules, int(resident_kb) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    has_torch, resident_mb = done.stdout.split()
    assert has_torch == "False"
    assert int(resident_mb) < 200, "with torch it takes 200 MB more"


def test_the_names_of_the_scene_are_there_once() -> None:
    for view in rendered_views():
        for name in NAMES:
            assert region_of(view, name).area_px > 500
