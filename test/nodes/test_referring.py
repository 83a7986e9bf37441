# SPDX-License-Identifier: Apache-2.0
"""The ``referring`` node as a process: what it answers to commands, and what it publishes for images."""

import math
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import Marker

from clip_seg_ros import resources
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image, metres_to_millimetres
from clip_seg_ros.pipeline.space.localization import locate, measure
from clip_seg_ros.settings import parameters
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import CameraFrame, ObjectRegion
from nearness import assert_near
from ros_harness import Camera, NodeProcess, Talker, stamp_ns, wait_until

IMAGE_OUTPUTS = {"mask": "mono8", "labels": "8UC1", "confidence": "32FC1", "overlay": "rgb8"}


def color_of(view) -> Image:
    return fill_image(Image(), view.rgb, "rgb8")


def info_of(view) -> CameraInfo:
    lens = view.intrinsics
    k = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    return CameraInfo(width=lens.width, height=lens.height, k=k)


def depth_of(view, encoding="32FC1") -> Image:
    depth = view.depth_m if encoding == "32FC1" else metres_to_millimetres(view.depth_m)
    return fill_image(Image(), depth, encoding)


def pixels(message, dtype=np.uint8) -> np.ndarray:
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1).squeeze()


def true_cup(view) -> tuple[np.ndarray, tuple[float, float, float]]:
    mask = view.mask_of("red", "cup")
    region = ObjectRegion.of_mask("red cup", 1, 1.0, mask)
    return mask, locate(region, view.depth_m, view.intrinsics)


def test_a_command_and_an_image_give_every_output(referring, watcher, view):
    status = watcher.say("Please find the red cup and the blue ball!")
    assert status.state == CommandStatus.ACCEPTED
    assert list(status.prompts) == ["red cup", "blue ball"]
    with Camera() as camera:
        stamp = camera.send(color_of(view), depth_of(view), info_of(view))
        outcome = watcher.outcome(status.command_id)
        seen = {name: watcher.of_stamp(name, stamp) for name in watcher.OUTPUTS if name != "status"}

    assert outcome.state == CommandStatus.FOUND, outcome.message
    assert list(outcome.found) == ["red cup"], outcome.message
    assert outcome.header.frame_id == "camera_color_optical_frame"
    for name, encoding in IMAGE_OUTPUTS.items():
        assert (seen[name].encoding, seen[name].height, seen[name].width) == (encoding, 480, 640)
    labels, confidence = pixels(seen["labels"]), pixels(seen["confidence"], np.float32)
    np.testing.assert_array_equal(pixels(seen["mask"]), np.where(labels > 0, 255, 0))
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert (confidence[labels > 0] > 0.5).mean() > 0.98
    assert list(seen["objects"].prompts) == ["red cup", "blue ball"]
    for item in seen["objects"].objects:
        rows, columns = np.nonzero(labels == item.id)
        assert len(rows) == item.area
        assert (columns.min(), rows.max() + 1) == (item.x_min, item.y_max)
        assert (item.centroid_x, item.centroid_y) == pytest.approx((columns.mean(), rows.mean()))
    positions = [item.position for item in seen["objects"].objects if item.has_position]
    assert [pose.position for pose in seen["centroids"].poses] == positions
    assert positions
    markers = seen["markers"].markers
    boxes = [item.box_pose for item in seen["objects"].objects if item.has_box]
    assert markers[0].action == Marker.DELETEALL
    assert len(markers) == 1 + 2 * len(positions) + len(boxes)
    assert boxes
    assert [marker.pose for marker in markers if marker.ns == "boxes"] == boxes
    cloud = seen["points"]
    assert cloud.header == seen["mask"].header
    assert cloud.width > 500
    assert cloud.row_step == len(cloud.data)
    overlay = pixels(seen["overlay"])
    assert (overlay != view.rgb).any()
    assert (overlay == view.rgb).any()


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_the_mask_and_the_position_are_right(referring, watcher, view, encoding):
    mask, position_m = true_cup(view)
    watcher.say("segment the red cup")
    with Camera() as camera:
        stamp = camera.send(color_of(view), depth_of(view, encoding), info_of(view))
        found = pixels(watcher.of_stamp("mask", stamp)) > 0
        (item, *_) = watcher.of_stamp("objects", stamp).objects
    assert (found & mask).sum() / (found | mask).sum() > 0.5
    assert item.has_position
    assert math.dist((item.position.x, item.position.y, item.position.z), position_m) < 0.03


def test_the_points_are_those_of_the_objects(referring, watcher, view):
    """Each object's points, read by their fields, are what is measured within its mask."""
    watcher.say("segment the red cup and the green ball")
    with Talker.camera() as camera:
        stamp = camera.send_view(view)
        cloud, labels = watcher.of_stamp("points", stamp), pixels(watcher.of_stamp("labels", stamp))
        objects = watcher.of_stamp("objects", stamp).objects
    offsets = {each.name: each.offset for each in cloud.fields}
    rows = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)

    def column(name, kind):
        return np.ascontiguousarray(rows[:, offsets[name] : offsets[name] + 4]).view(kind)[:, 0]

    ids, colors = column("id", np.uint32), column("rgb", np.uint32)
    points = np.stack([column(axis, np.float32) for axis in "xyz"], axis=1)
    assert {item.prompt for item in objects} == {"red cup", "green ball"}
    assert set(ids) == {item.id for item in objects}
    assert cloud.width == len(rows)
    frame = CameraFrame(view.rgb, 0, "camera", view.depth_m, view.intrinsics)
    for item in objects:
        region = ObjectRegion.of_mask(item.prompt, item.id, item.score, labels == item.id)
        measured = measure(region, frame)
        assert_near(points[ids == item.id], measured.points_m, message=item.prompt)
        red, green, blue = view.rgb.reshape(-1, 3)[measured.pixels].astype(np.uint32).T
        np.testing.assert_array_equal(colors[ids == item.id], red << 16 | green << 8 | blue)


def test_what_a_command_leaves_out(referring, watcher, cups):
    status = watcher.say("segment the cup, not the red one")
    assert list(status.prompts) == ["cup"]
    assert "but not for red cup" in status.message
    with Talker.camera() as camera:
        stamp = camera.send_view(cups)
        mask, objects = pixels(watcher.of_stamp("mask", stamp)) > 0, watcher.of_stamp("objects", stamp)
        confidence = pixels(watcher.of_stamp("confidence", stamp), np.float32)
    red, blue = cups.mask_of("red", "cup"), cups.mask_of("blue", "cup")
    assert not mask[red].any()
    assert mask[blue].mean() > 0.7
    assert list(objects.prompts) == ["cup"]
    assert {item.prompt for item in objects.objects} == {"cup"}
    assert np.median(confidence[red]) > 0.5, "it is a cup, even though not one of those that were asked for"


@pytest.fixture(scope="module")
def newcomer():
    """A table with a blue cup, and then with a red one too, which the model is clearly surer of."""
    scene = sample_scene(14, required=[("red", "cup"), ("blue", "cup")], objects=(4, 5))
    fewer = replace(scene, objects=tuple(item for item in scene.objects if item.name != "red cup"))
    with SceneRenderer() as renderer:
        return renderer.render(fewer), renderer.render(scene)


def test_masks_are_fitted_to_edges_on_demand(referring, watcher, view):
    mask, _ = true_cup(view)
    watcher.say("segment the red cup")
    ious, best = [], []
    try:
        with Camera() as camera:
            for refine_edges in (False, True):
                assert set_parameters(watcher, refine_edges=refine_edges)[0].successful
                stamp = camera.send(color_of(view), depth_of(view, "32FC1"), info_of(view))
                found = pixels(watcher.of_stamp("mask", stamp)) > 0
                (item, *_) = watcher.of_stamp("objects", stamp).objects
                assert item.area == np.count_nonzero(pixels(watcher.of_stamp("labels", stamp)) == item.id)
                ious.append((found & mask).sum() / (found | mask).sum())
                best.append(item.id)
    finally:
        set_parameters(watcher, refine_edges=False)
    assert ious[1] > ious[0]
    assert best[1] == best[0]


@pytest.mark.parametrize("track_age_s", [2.0, 0.0])
def test_ids_stay_while_a_better_object_appears(referring, watcher, newcomer, track_age_s):
    before, after = newcomer
    blue, red = after.mask_of("blue", "cup"), after.mask_of("red", "cup")
    assert set_parameters(watcher, track_age_s=track_age_s, smoothing=0.0)[0].successful
    try:
        watcher.say("segment the cup")
        ids, frames = [], 20 if track_age_s else 4
        with Talker.camera(depth=False) as camera:
            for frame in range(frames):
                # Ten images a second by their stamps, however long the node takes.
                stamp = camera.send_view(before if frame < frames // 2 else after, stamp=10**15 + frame * 10**8)
                labels, objects = watcher.of_stamp("labels", stamp), watcher.of_stamp("objects", stamp).objects
                ids.append([int(np.bincount(pixels(labels)[mask]).argmax()) for mask in (blue, red)])
                scores = {item.id: item.score for item in objects}
    finally:
        set_parameters(watcher, track_age_s=2.0, smoothing=0.9)
    assert scores[ids[-1][1]] > scores[ids[-1][0]], "the red one is the better one"
    if track_age_s:
        assert {blue_id for blue_id, _ in ids} == {1}
        assert {red_id for _, red_id in ids[frames // 2 :]} == {2}, "1 was there before"
    else:
        assert ids[0][0] == 1, "by score in every image"
        assert ids[-1] == [2, 1], "by score in every image"


def test_without_depth_the_position_is_absent(referring, watcher, view):
    watcher.say("segment the red cup")
    with Camera(depth=False) as camera:
        stamp = camera.send(color_of(view))
        objects = watcher.of_stamp("objects", stamp).objects
        poses = watcher.of_stamp("centroids", stamp).poses
    assert objects
    assert not any(item.has_position for item in objects)
    assert all(math.isnan(item.position.z) for item in objects)
    assert not poses


def test_a_rectified_image_is_measured_with_the_projection(referring, watcher, view):
    """The view is taken for the rectified image of a wider lens, which camera_info describes beside it."""
    k, lens = info_of(view).k, view.intrinsics
    info = info_of(view)
    info.p = [k[0], 0.0, k[2], 0.0, 0.0, k[4], k[5], 0.0, 0.0, 0.0, 1.0, 0.0]
    info.k = [0.8 * lens.fx, 0.0, lens.cx + 20.0, 0.0, 0.8 * lens.fy, lens.cy - 15.0, 0.0, 0.0, 1.0]
    info.distortion_model, info.d = "plumb_bob", [-0.2, 0.05, 0.0, 0.0, 0.0]
    watcher.say("segment the red cup")

    def position_m(rectified: bool) -> list[float]:
        assert set_parameters(watcher, rectified=rectified)[0].successful
        stamp = camera.send(color_of(view), depth_of(view), info)
        (item,) = watcher.of_stamp("objects", stamp).objects
        return [item.position.x, item.position.y, item.position.z]

    with Camera() as camera:
        try:
            assert position_m(True) == pytest.approx(true_cup(view)[1], abs=0.01)
        finally:
            set_parameters(watcher, rectified=False)
        assert math.dist(position_m(False), true_cup(view)[1]) > 0.03


def test_depth_of_another_time_is_not_used(referring, watcher, view):
    watcher.say("segment the red cup")
    with Camera() as camera:
        first = camera.send(color_of(view), depth_of(view), info_of(view))
        watcher.of_stamp("objects", first)
        time.sleep(0.1)  # more than the tolerance
        late = camera.send(color_of(view))
        objects = watcher.of_stamp("objects", late).objects
    assert objects
    assert not any(item.has_position for item in objects)
    referring.wait_said("no depth image within")


def test_what_is_not_there_is_not_found(referring, watcher, view):
    status = watcher.say("segment the blue ball")
    with Camera(depth=False) as camera:
        stamp = camera.send(color_of(view))
        outcome = watcher.outcome(status.command_id)
        assert not pixels(watcher.of_stamp("mask", stamp)).any()
    assert outcome.state == CommandStatus.NOT_FOUND
    assert not outcome.found
    assert "blue ball" in outcome.message


def test_words_that_the_weights_never_learnt_are_named(referring, watcher):
    assert "'giraffe'" in watcher.say("segment the giraffe").message
    assert "know" not in watcher.say("segment the red cup").message


def test_stop_and_clear(referring, watcher, view):
    def stamped(name, stamp):
        return [message for message in watcher.seen[name][:] if stamp_ns(message) == stamp]

    status = watcher.say("segment the red cup")
    with Camera(depth=False) as camera:
        shown = camera.send(color_of(view))
        for name in ("mask", "objects", "markers"):
            watcher.of_stamp(name, shown)
        watcher.outcome(status.command_id)
        assert "cleared" in watcher.say("clear").message
        # What was shown is taken back: the outputs come again, empty.
        names = ("mask", "objects", "markers")
        wait_until(lambda: all(len(stamped(name, shown)) == 2 for name in names), "the emptied outputs")
        assert not pixels(stamped("mask", shown)[-1]).any()
        assert not stamped("objects", shown)[-1].objects
        assert not stamped("objects", shown)[-1].prompts
        assert [marker.action for marker in stamped("markers", shown)[-1].markers] == [Marker.DELETEALL]
        paused = []
        for pause in ("clear", "stop"):
            assert watcher.say(pause).state == CommandStatus.ACCEPTED
            paused.append(camera.send(color_of(view)))
            time.sleep(0.5)  # for the node to take the image, which it must not work on
        watcher.say("segment the red cup")
        watcher.of_stamp("mask", camera.send(color_of(view)))
    assert not any(stamped("mask", stamp) for stamp in paused)


def set_parameters(watcher, **values):
    changes = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    request = SetParameters.Request(parameters=changes)
    return watcher.call(SetParameters, "/clip_seg/referring/set_parameters", request).results


def get_double(watcher, name):
    request = GetParameters.Request(names=[name])
    return watcher.call(GetParameters, "/clip_seg/referring/get_parameters", request).values[0].double_value


def test_the_threshold_is_one_thing_however_it_is_set(referring, watcher, view):
    watcher.say("threshold 0.25")
    assert get_double(watcher, "threshold") == 0.25
    answer = watcher.say("reset the threshold")
    assert "clipseg-pocket is 0.5" in answer.message
    assert get_double(watcher, "threshold") == -1.0
    assert set_parameters(watcher, threshold=1.0)[0].successful
    watcher.say("segment the red cup")
    with Camera(depth=False) as camera:
        stamp = camera.send(color_of(view))
        assert not pixels(watcher.of_stamp("mask", stamp)).any(), "no probability exceeds 1"


def test_wrong_values_are_refused_with_a_reason(referring, watcher):
    too_high, fixed, wrong_type, unknown = set_parameters(
        watcher, threshold=1.5, device="cpu", min_area_fraction="big", model="other"
    )
    assert not too_high.successful
    assert "threshold" in too_high.reason
    assert not unknown.successful
    assert 'there is no model "other": use clipseg-pocket' in unknown.reason
    assert not fixed.successful
    assert "before the node is configured" in fixed.reason
    assert not wrong_type.successful
    assert "min_area_fraction" in wrong_type.reason
    assert get_double(watcher, "threshold") == 0.5


def test_parameters_are_described_and_ranged(referring, watcher):
    settings = parameters(ReferringConfig)
    request = DescribeParameters.Request(names=[setting.name for setting in settings])
    answer = watcher.call(DescribeParameters, "/clip_seg/referring/describe_parameters", request)
    for setting, descriptor in zip(settings, answer.descriptors, strict=True):
        assert descriptor.description == setting.description
        assert not descriptor.read_only, "what is not live may change before the node is configured"
        assert ("fixed when the node starts" in descriptor.additional_constraints) == setting.at_start, setting.name
        described = {float: descriptor.floating_point_range, int: descriptor.integer_range}
        for kind, found in described.items():
            ranges = [(each.from_value, each.to_value) for each in found]
            assert ranges == ([(setting.low, setting.high)] if setting.type is kind else [])


def test_masks_resume_after_the_camera_died(referring, watcher, tmp_path):
    """A best-effort camera is killed, a reliable one takes its place."""
    watcher.say("segment the red cup")
    for reliability, encoding in (("best_effort", "32FC1"), ("reliable", "16UC1")):
        camera = NodeProcess(
            "sim_camera",
            tmp_path / reliability,
            ["required:=['red cup']", f"reliability:={reliability}", f"depth_encoding:={encoding}"],
            files=[resources.config_dir() / "sim_camera.yaml"],
        )
        try:
            before = len(watcher.seen["mask"])
            wait_until(lambda: len(watcher.seen["mask"]) >= before + 3, f"masks from a {reliability} camera")
            wait_until(
                lambda: any(item.has_position for m in watcher.seen["objects"][-2:] for item in m.objects), "a position"
            )
        finally:
            camera.end(signal.SIGKILL)
    referring.wait_said("no image on /camera/color/image_raw for 5 s")


def test_an_answer_that_takes_long_keeps_its_depth(referring, watcher, view):
    """Many phrases on a fast camera: while one image is worked on, the depth of dozens of others passes by."""
    kinds = ("cup", "bowl", "bottle", "box", "ball", "can", "plate", "book")
    watcher.say(", ".join(f"{color} {kind}" for color in ("red", "green") for kind in kinds))
    with Camera() as camera:
        for sent in range(100 * 60):
            camera.send(color_of(view), depth_of(view), info_of(view))
            time.sleep(1 / 60)
            if sent >= 90 and len(watcher.seen["objects"]) >= 3:
                break
        assert len(watcher.seen["objects"]) >= 3
        answers = [message.objects for message in list(watcher.seen["objects"])]
    assert all(answers), "the cup is in every image"
    assert all(item.has_position for objects in answers for item in objects)
