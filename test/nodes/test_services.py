# SPDX-License-Identifier: Apache-2.0
"""The services of the ``referring`` node: ``segment``, and prompts by example."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.srv import ListPrompts, RemovePrompt, Segment, SetImagePrompt
from ros_harness import Camera, NodeProcess, Stream, Watcher, pixels_of, wait_until

HEADER = Header(frame_id="somewhere")


def image_of(view) -> Image:
    return fill_image(Image(header=HEADER), view.rgb, "rgb8")


def segment(watcher: Watcher, image: Image, *prompts: str, **fields) -> Segment.Response:
    return watcher.call(Segment, "segment", Segment.Request(image=image, prompts=list(prompts), **fields))


def test_an_image_is_answered_with_a_mask_for_each_prompt(referring, watcher, view):
    answer = segment(watcher, image_of(view), "green ball", "blue box", "red cup")
    assert answer.success
    assert "objects found" in answer.message
    assert [item.prompt for item in answer.objects] == ["green ball", "red cup"], "the best first"
    ball, nothing, cup = (pixels_of(mask) > 0 for mask in answer.masks)
    assert mask_iou(ball, view.mask_of("green", "ball")) > 0.7
    assert mask_iou(cup, view.mask_of("red", "cup")) > 0.7
    assert not nothing.any()
    labels = pixels_of(answer.labels)
    assert {item.id for item in answer.objects} == set(np.unique(labels)) - {0}
    for item in answer.objects:
        mask = {"green ball": ball, "red cup": cup}[item.prompt]
        assert item.area == mask.sum()
        assert not item.has_position
        assert not item.has_box
        np.testing.assert_array_equal(labels == item.id, mask)
    assert all(mask.header == HEADER and mask.encoding == "mono8" for mask in answer.masks)
    assert answer.labels.header == HEADER
    assert answer.labels.encoding == "8UC1"


def test_phrases_are_understood_as_in_commands(referring, watcher, view):
    answer = segment(watcher, image_of(view), " The  Red Cup ")
    assert [item.prompt for item in answer.objects] == ["red cup"]


def test_negatives_leave_objects_out(referring, watcher, cups):
    red, blue = cups.mask_of("red", "cup"), cups.mask_of("blue", "cup")
    (all_cups,) = segment(watcher, image_of(cups), "cup").masks
    (others,) = segment(watcher, image_of(cups), "cup", negatives=["red cup"]).masks
    assert (pixels_of(all_cups)[red] > 0).mean() > 0.7
    assert (pixels_of(all_cups)[blue] > 0).mean() > 0.7
    assert not pixels_of(others)[red].any()
    assert (pixels_of(others)[blue] > 0).mean() > 0.7


def test_a_threshold_of_0_is_the_nodes(referring, watcher, view):
    assert watcher.say("threshold 1.0").state == CommandStatus.ACCEPTED
    assert not segment(watcher, image_of(view), "red cup").objects, "no probability exceeds 1"
    assert segment(watcher, image_of(view), "red cup", threshold=0.5).objects


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": Image(encoding="32FC3", height=1, width=1)}, "unknown encoding '32FC3'; accepted: rgb8, bgr8"),
        ({"image": Image(encoding="rgb8")}, "the image is empty: 0x0"),
        ({"prompts": ["x" * 501]}, "a phrase has at most 500 characters, got one of 501"),
        ({"prompts": []}, "give 1 to 16 phrases, at least one of them a prompt; got 0 prompts and 0 negatives"),
        ({"prompts": ["cup"] * 12, "negatives": ["box"] * 5}, "give 1 to 16 phrases"),
        ({"prompts": ["cup", " "]}, "a prompt must be a phrase"),
        ({"threshold": 1.5}, "threshold must lie in 0..1, got 1.5"),
    ],
    ids=["encoding", "empty image", "too long", "no prompts", "too many", "empty phrase", "threshold"],
)
def test_what_cannot_be_answered_says_what_to_do(referring, watcher, view, changes, words):
    request = {"image": image_of(view), "prompts": ["cup"], **changes}
    answer = watcher.call(Segment, "segment", Segment.Request(**request))
    assert not answer.success
    assert words in answer.message
    assert not answer.masks
    assert not answer.objects


def test_calls_do_not_stop_the_camera(referring, watcher, view):
    watcher.say("segment the green ball")
    with Camera(depth=False) as camera, Stream(camera, image_of(view)):
        wait_until(lambda: watcher.seen["mask"], "the first mask")
        for _ in range(3):
            before = len(watcher.seen["mask"])
            assert [item.prompt for item in segment(watcher, image_of(view), "red cup").objects] == ["red cup"]
            wait_until(lambda: len(watcher.seen["mask"]) >= before + 2, "masks between the calls")
    assert all(list(message.prompts) == ["green ball"] for message in watcher.seen["objects"])


def test_many_calls_at_once_are_all_answered(referring, watcher, view):
    client = watcher.create_client(Segment, "segment")
    assert client.wait_for_service(60.0)
    request = Segment.Request(image=image_of(view), prompts=["red cup"])
    futures = [client.call_async(request) for _ in range(8)]  # a service keeps ten
    # They must not keep the node from hearing commands.
    assert watcher.say("segment the green ball").state == CommandStatus.ACCEPTED
    wait_until(lambda: all(future.done() for future in futures), "all answers")
    assert all(len(future.result().objects) == 1 for future in futures)


# Prompts by example.


@pytest.fixture
def taught(referring: NodeProcess, watcher: Watcher) -> Iterator[NodeProcess]:
    """The shared node, which forgets at the end what it is taught."""
    yield referring
    for name in watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names:
        assert watcher.call(RemovePrompt, "remove_prompt", RemovePrompt.Request(name=name)).success


def teach(watcher: Watcher, name: str, view, mask: np.ndarray | None, **fields) -> SetImagePrompt.Response:
    shown = Image() if mask is None else fill_image(Image(), mask.astype(np.uint8), "mono8")
    request = SetImagePrompt.Request(name=name, image=image_of(view), mask=shown, **fields)
    return watcher.call(SetImagePrompt, "set_image_prompt", request)


def test_an_example_is_found_in_another_picture(taught, watcher, view, example):
    assert "'old'" in watcher.say("segment my old mug").message, "words that the weights do not know"
    answer = teach(watcher, "My old mug", example, example.mask_of("red", "cup"))
    assert answer.success
    assert '"old mug" now means' in answer.message
    listed = watcher.call(ListPrompts, "list_prompts", ListPrompts.Request())
    assert (list(listed.names), list(listed.texts)) == (["old mug"], [""])

    (mask,) = segment(watcher, image_of(view), "my old mug").masks
    assert mask_iou(pixels_of(mask) > 0, view.mask_of("red", "cup")) > 0.4
    accepted = watcher.say("segment my old mug")
    assert list(accepted.prompts) == ["old mug"]
    assert "know" not in accepted.message
    with Camera(depth=False) as camera:
        stamp = camera.send(image_of(view))
        assert mask_iou(pixels_of(watcher.of_stamp("mask", stamp)) > 0, view.mask_of("red", "cup")) > 0.4
    assert watcher.outcome(accepted.command_id).state == CommandStatus.FOUND

    removed = watcher.call(RemovePrompt, "remove_prompt", RemovePrompt.Request(name="my old mug"))
    assert removed.success
    assert "means its words again" in removed.message
    assert "'old'" in watcher.say("segment my old mug").message


def test_an_example_counts_at_once_while_it_is_looked_for(taught, watcher, cups):
    red, blue = cups.mask_of("red", "cup"), cups.mask_of("blue", "cup")
    watcher.say("segment red cup")
    masks = watcher.seen["mask"]

    def next_mask() -> np.ndarray:
        """Of an image that was taken after now."""
        stamp = camera.send(image_of(cups))
        return pixels_of(watcher.of_stamp("mask", stamp)) > 0

    with Camera(depth=False) as camera:
        with Stream(camera, image_of(cups)):
            wait_until(lambda: len(masks) >= 10, "a long past")
        assert next_mask()[red].mean() > 0.7
        assert teach(watcher, "red cup", cups, blue, text="blue cup").success
        seen = next_mask()
        assert seen[blue].mean() > 0.7
        assert not seen[red].any()
        assert watcher.call(RemovePrompt, "remove_prompt", RemovePrompt.Request(name="red cup")).success
        seen = next_mask()
        assert seen[red].mean() > 0.7
        assert not seen[blue].any()


def test_a_new_example_takes_the_place_of_the_old_one(taught, watcher, view, example):
    assert teach(watcher, "thing", example, example.mask_of("red", "cup"), text="red cup").success
    assert teach(watcher, "thing", view, view.mask_of("green", "ball"), text="green ball", text_weight=0.7).success
    listed = watcher.call(ListPrompts, "list_prompts", ListPrompts.Request())
    assert (list(listed.names), list(listed.texts)) == (["thing"], ["green ball"])
    (mask,) = segment(watcher, image_of(view), "thing").masks
    assert mask_iou(pixels_of(mask) > 0, view.mask_of("green", "ball")) > 0.4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no command could say the name ''"),
        ("?!", "no command could say"),
        ("not the cup", "no command could say"),
        ("cup and bowl", 'a command would not take "cup and bowl" for one phrase'),
        ("cup, not the red one", "for one phrase"),
        ("cup using cris", "for one phrase"),
        ("cup with threshold 0.2", "for one phrase"),
    ],
)
def test_names_that_no_command_could_say_are_refused(taught, watcher, view, name, words):
    answer = teach(watcher, name, view, view.mask_of("red", "cup"))
    assert not answer.success
    assert words in answer.message
    assert not watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names


def test_bad_examples_are_refused(taught, watcher, view):
    cup = view.mask_of("red", "cup")
    wrong_size = teach(watcher, "thing", view, cup[:100])
    assert not wrong_size.success
    assert wrong_size.message == "the mask is 640x100, the image 640x480: they must have the same size"
    assert "hold the object" in teach(watcher, "thing", view, np.zeros_like(cup)).message
    too_much = teach(watcher, "thing", view, cup, text="cup", text_weight=2.0)
    assert "text_weight must lie in 0..1, got 2" in too_much.message
    for part, words in (("image", "image: unknown encoding"), ("mask", "the mask must be mono8 or 8UC1, got '32FC3'")):
        images = {"image": image_of(view), "mask": fill_image(Image(), cup.astype(np.uint8), "mono8")}
        images[part].encoding = "32FC3"
        answer = watcher.call(SetImagePrompt, "set_image_prompt", SetImagePrompt.Request(name="thing", **images))
        assert not answer.success
        assert words in answer.message
    assert not watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names


def test_without_a_mask_the_whole_image_is_the_example(taught, watcher, view):
    rows, columns = np.nonzero(view.mask_of("red", "cup"))
    around = view.rgb[rows.min() - 9 : rows.max() + 9, columns.min() - 9 : columns.max() + 9]
    request = SetImagePrompt.Request(name="thing", image=fill_image(Image(), around, "rgb8"))
    assert watcher.call(SetImagePrompt, "set_image_prompt", request).success
    (mask,) = segment(watcher, image_of(view), "thing").masks
    assert mask_iou(pixels_of(mask) > 0, view.mask_of("red", "cup")) > 0.4


def test_a_prompt_that_is_not_there_cannot_be_removed(taught, watcher, view):
    assert teach(watcher, "thing", view, view.mask_of("red", "cup")).success
    answer = watcher.call(RemovePrompt, "remove_prompt", RemovePrompt.Request(name="other"))
    assert not answer.success
    assert answer.message == 'there is no image prompt "other"; there are: thing'


def test_a_model_of_phrases_alone_says_so(ros, log, view):
    node = NodeProcess("referring", log, ["model:=maskclip-pocket"], namespace="phrases")
    watcher = Watcher("phrases")
    try:
        node.wait_said("commands:")
        answer = teach(watcher, "thing", view, view.mask_of("red", "cup"))
        assert not answer.success
        assert "maskclip-pocket understands phrases alone" in answer.message
        assert not watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names
        assert node.end() == 0
        assert "Traceback" not in node.said()
    finally:
        watcher.close()
        node.end()
