# SPDX-License-Identifier: Apache-2.0
"""The ``referring`` node understands where things are, with any model: in commands and the service."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.srv import Segment
from ros_harness import Talker, Watcher, pixels_of


def cups_from_left(view) -> list[np.ndarray]:
    """The masks of the cups, from left to right."""
    masks = [view.labels == number for number, item in enumerate(view.objects, start=1) if item.kind == "cup"]
    return sorted((mask for mask in masks if mask.sum() > 600), key=lambda mask: np.nonzero(mask)[1].mean())


def outcome_of(watcher: Watcher, view, text: str) -> tuple[CommandStatus, np.ndarray]:
    """Gives a command and shows the table once; returns the outcome and the mask."""
    accepted = watcher.say(text)
    assert accepted.state == CommandStatus.ACCEPTED, accepted.message
    with Talker.camera() as camera:
        stamp = camera.send_view(view)
        mask = pixels_of(watcher.of_stamp("mask", stamp)) > 0
    return watcher.outcome(accepted.command_id), mask


def test_a_place_chooses_among_the_things_of_a_name(referring, watcher, cups) -> None:
    left, *_, right = cups_from_left(cups)
    for text, wanted in (("find the leftmost cup", left), ("find the first cup from the right", right)):
        outcome, mask = outcome_of(watcher, cups, text)
        assert outcome.state == CommandStatus.FOUND, outcome.message
        assert mask_iou(mask, wanted) > 0.7


def test_what_an_object_relates_to_is_published_beside_it(referring, watcher, cups) -> None:
    text = "the cup nearest to the rightmost cup"
    accepted = watcher.say(f"find {text}")
    with Talker.camera() as camera:
        stamp = camera.send_view(cups)
        objects = watcher.of_stamp("objects", stamp)
        markers = watcher.of_stamp("markers", stamp)
        labels = pixels_of(watcher.of_stamp("labels", stamp))
    assert watcher.outcome(accepted.command_id).state == CommandStatus.FOUND
    (found,), (anchor,) = objects.objects, objects.anchors
    assert list(found.anchors) == [0]
    assert (anchor.prompt, anchor.id) == ("cup", 0)
    right = cups_from_left(cups)[-1]
    assert right[round(anchor.centroid_y), round(anchor.centroid_x)], "the rightmost cup"
    assert anchor.has_position
    assert not labels[right].any(), "it was not asked for"
    assert [marker.ns for marker in markers.markers].count("relations") == 1


def test_how_many_is_answered_with_a_number(referring, watcher, cups) -> None:
    outcome, _ = outcome_of(watcher, cups, "how many cups are there?")
    assert outcome.message.startswith(f"cups: {len(cups_from_left(cups))} cups")


def test_what_cannot_be_placed_is_explained(referring, watcher, cups) -> None:
    outcome, mask = outcome_of(watcher, cups, "find the cup left of the purple book")
    assert outcome.state == CommandStatus.NOT_FOUND
    assert "no purple book: the cup cannot be placed" in outcome.message
    assert not mask.any()


def test_the_service_takes_places(referring, watcher, cups) -> None:
    request = Segment.Request(image=fill_image(Image(), cups.rgb, "rgb8"), prompts=["the rightmost cup", "bowl"])
    answer = watcher.call(Segment, "segment", request)
    assert answer.success, answer.message
    assert mask_iou(pixels_of(answer.masks[0]) > 0, cups_from_left(cups)[-1]) > 0.7
    assert {item.prompt for item in answer.objects} <= {"rightmost cup", "bowl"}
    assert list(answer.anchors) == []


def test_the_service_gives_what_things_relate_to(referring, watcher, cups) -> None:
    phrase = "cup nearest to the rightmost cup"
    request = Segment.Request(image=fill_image(Image(), cups.rgb, "rgb8"), prompts=[phrase])
    answer = watcher.call(Segment, "segment", request)
    assert [list(item.anchors) for item in answer.objects] == [[0]]
    (anchor,) = answer.anchors
    assert (anchor.prompt, anchor.id, anchor.has_position) == ("cup", 0, False)
    assert not pixels_of(answer.labels)[cups_from_left(cups)[-1]].any()
