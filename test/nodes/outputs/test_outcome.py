# SPDX-License-Identifier: Apache-2.0
"""What a command's outcome says of several cameras and several phrases."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S
from clip_seg_ros.nodes.outputs import outcome as outcome_module
from clip_seg_ros.nodes.outputs.outcome import Outcome
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.types import ObjectRegion

LEFT, RIGHT = Header(frame_id="left_frame"), Header(frame_id="right_frame")


def region(prompt: str, score: float) -> ObjectRegion:
    return ObjectRegion.of_mask(prompt, 1, score, np.ones((4, 5), np.bool_))


def cameras(*names: str, alive: bool = True) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=name, is_alive=lambda: alive) for name in names]


def test_each_phrase_is_told_with_the_camera_that_shows_it():
    outcome = Outcome(("green ball", "green cup"))
    outcome.add("left", LEFT, [region("green ball", 0.9), region("green ball", 0.7)])
    assert not outcome.is_complete(cameras("left", "right")), "the right camera may show the cup"
    outcome.add("right", RIGHT, [region("green cup", 0.8)])
    assert outcome.is_complete(cameras("left", "right"))
    assert outcome.note() == "green ball: 2 found, best score 0.90 (left); green cup: 1 found, best score 0.80 (right)"
    assert outcome.found == ["green ball", "green cup"]
    assert outcome.header == RIGHT


def test_a_phrase_with_a_place_has_the_sentence_of_the_camera_that_is_named():
    phrase = "cup left of the box"
    outcome = Outcome((phrase,))
    outcome.add("left", LEFT, [], sentences={phrase: "no box: the cup cannot be placed"})
    assert outcome.note() == f"{phrase}: no box: the cup cannot be placed"
    outcome.add("right", RIGHT, [region(phrase, 0.8)], sentences={phrase: "1 cup"})
    outcome.add("left", LEFT, [], sentences={phrase: "no box: the cup cannot be placed"})
    assert outcome.note() == f"{phrase}: 1 cup (right)"
    assert outcome.found == [phrase]


def test_of_two_cameras_that_show_a_thing_the_surer_one_is_named():
    outcome = Outcome(("cup", "book"))
    outcome.add("left", LEFT, [region("cup", 0.6)])
    outcome.add("right", RIGHT, [region("cup", 0.9)])
    assert outcome.is_complete(cameras("left", "right")), "both have answered"
    assert outcome.note() == "cup: 1 found, best score 0.90 (right); book: not found"
    assert outcome.found == ["cup"]


def test_what_is_found_everywhere_is_not_waited_for():
    outcome = Outcome(("cup",))
    outcome.add("left", LEFT, [region("cup", 0.6)])
    assert outcome.is_complete(cameras("left", "right"))
    assert outcome.header == LEFT


def test_a_later_image_of_the_same_camera_counts_until_it_is_told():
    outcome = Outcome(("cup",))
    outcome.add("left", LEFT, [])
    assert not outcome.is_complete(cameras("left", "right"))
    outcome.add("left", LEFT, [region("cup", 0.6)])
    assert outcome.is_complete(cameras("left", "right"))


@pytest.mark.parametrize(("alive", "complete"), [(True, False), (False, True)])
def test_a_silent_camera_is_waited_for_only_while_the_command_is_new(monkeypatch, alive, complete):
    outcome = Outcome(("cup",))
    outcome.add("left", LEFT, [])
    others = cameras("left", "right", alive=alive)
    assert not outcome.is_complete(others), "it may just be starting"
    later_s = time.monotonic() + SILENCE_S
    monkeypatch.setattr(outcome_module.time, "monotonic", lambda: later_s)
    assert outcome.is_complete(others) == complete


def test_one_camera_has_no_name():
    outcome = Outcome(("cup",))
    outcome.add("", LEFT, [])
    assert outcome.is_complete(cameras(""))
    assert outcome.note() == "cup: not found"
    assert outcome.found == []
    outcome = Outcome(("cup",))
    outcome.add("", LEFT, [region("cup", 0.75)])
    assert outcome.note() == "cup: 1 found, best score 0.75"


def test_the_best_score_of_what_was_not_found_is_told():
    outcome = Outcome(("cup", "ball"))
    maps = CellMaps(("cup", "ball"), np.array([[[0.2, 0.314]], [[0.9, 0.1]]], np.float32), Geometry((1, 2), (1, 2)))
    outcome.add("", LEFT, [region("ball", 0.9)], maps)
    assert outcome.note() == "cup: not found, best score 0.31; ball: 1 found, best score 0.90"
