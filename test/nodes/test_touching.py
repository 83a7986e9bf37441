# SPDX-License-Identifier: Apache-2.0
"""The ``referring`` node, where two cups touch in the image: each is an object of its own, unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.action import FindObject
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.srv import Segment
from clip_seg_ros.types import ObjectRegion
from goal_client import GoalClient
from nearness import assert_near
from ros_harness import Camera, Watcher, running_referring, wait_until


@pytest.fixture(scope="module")
def pair() -> RenderedView:
    """A table with two cups, one partly before the other."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(11_500, alike=True, objects=(5, 8)))


@pytest.fixture
def together(watcher: Watcher) -> Iterator[None]:
    """The node leaves touching objects together."""
    separate(watcher, False)
    yield
    separate(watcher, True)


def separate(watcher: Watcher, wanted: bool) -> None:
    values = [Parameter("separate_touching", value=wanted).to_parameter_msg()]
    (result,) = watcher.call(
        SetParameters, "referring/set_parameters", SetParameters.Request(parameters=values)
    ).results
    assert result.successful


def objects_of(watcher: Watcher, view: RenderedView) -> list:
    lens = view.intrinsics
    k = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    info = CameraInfo(width=lens.width, height=lens.height, k=k)
    with Camera() as camera:
        stamp = camera.send(fill_image(Image(), view.rgb, "rgb8"), fill_image(Image(), view.depth_m, "32FC1"), info)
        return list(watcher.of_stamp("objects", stamp).objects)


def true_positions(view: RenderedView, kind: str) -> list[tuple[float, float, float]]:
    masks = [view.labels == number for number, item in enumerate(view.objects, start=1) if item.kind == kind]
    regions = [ObjectRegion.of_mask(kind, 1, 1.0, mask) for mask in masks]
    return [locate(region, view.depth_m, view.intrinsics) for region in regions]


def test_each_of_two_touching_cups_has_a_position_of_its_own(referring, watcher, pair) -> None:
    watcher.say("segment the cups")
    found = objects_of(watcher, pair)
    positions = [(item.position.x, item.position.y, item.position.z) for item in found]
    assert len(positions) == 2
    for true in true_positions(pair, "cup"):
        nearest = min(positions, key=lambda position: float(np.linalg.norm(np.subtract(position, true))))
        assert_near(np.array(nearest), np.array(true), 0.02)


def test_cups_stay_together_where_the_parameter_says_so(referring, watcher, pair, together) -> None:
    watcher.say("segment the cups")
    assert len(objects_of(watcher, pair)) == 1


def test_the_service_takes_objects_apart_too(referring, watcher, pair) -> None:
    request = Segment.Request(image=fill_image(Image(), pair.rgb, "rgb8"), prompts=["cup"])
    answer = watcher.call(Segment, "segment", request)
    assert answer.success
    assert len(answer.objects) == 2


def test_a_detector_gives_objects_of_its_own(ros, log, pair) -> None:
    arguments = ["model:=denseclip-instances-pocket", "separate_touching:=false", "image_topic:=/detector/image"]
    picture = fill_image(Image(), pair.rgb, "rgb8")
    largest = max(np.count_nonzero(pair.labels == n) for n, item in enumerate(pair.objects, 1) if item.kind == "cup")
    with (
        running_referring(log, "detector", [*arguments, "depth_topic:=''"]) as (_, watcher),
        Camera(depth=False, topic="/detector/image") as camera,
    ):
        answer = watcher.call(Segment, "segment", Segment.Request(image=picture, prompts=["cup"]))
        assert [item.prompt for item in answer.objects] == ["cup", "cup"]
        watcher.say("segment the cup")
        (one, other) = watcher.of_stamp("objects", camera.send(picture)).objects
        assert (one.score, other.score) == pytest.approx([item.score for item in answer.objects], abs=1e-3)
        watcher.say("stop")
        client = GoalClient(watcher, FindObject, "find_object")
        assert client.wait_for_server(180.0)
        accepted = client.send_goal_async(FindObject.Goal(phrase="cup"))
        result = wait_until(accepted.done, "the goal") and accepted.result().get_result_async()
        wait_until(lambda: camera.send(picture) and result.done(), "the cup")
        found = result.result().result
        assert found.found
        assert found.object.score == pytest.approx(one.score, abs=1e-3)
        assert found.object.area < 1.2 * largest
        client.destroy()
