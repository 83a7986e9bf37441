# SPDX-License-Identifier: Apache-2.0
"""What of an image is remembered, by what it was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.commands.parser import parse_command
from clip_seg_ros.nodes.services.memory_keeper import Sight
from clip_seg_ros.nodes.tasks.seen import Seen, sight_of
from clip_seg_ros.pipeline.answering import Answer
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.space.understanding import Asking
from clip_seg_ros.types import CameraFrame, ObjectRegion

SIZE = (240, 320)
FRAME = CameraFrame(np.zeros((*SIZE, 3), np.uint8), 0, "")


def sight(*texts: str, score: float = 0.9, **how: bool) -> Sight:
    """Returns what is remembered of an image in which each name has one object."""
    seen = []
    for text in texts:
        command = parse_command(text)
        asking = Asking.of(command.prompts, command.references, command.negatives, **how)
        regions = []
        for place, name in enumerate(asking.names):
            mask = np.zeros(SIZE, bool)
            mask[100:130, 20 + 50 * place : 50 + 50 * place] = True
            regions.append(ObjectRegion.of_mask(name, place + 1, score, mask))
        maps = CellMaps(asking.names, np.full((len(asking.names), 24, 32), 0.5, np.float32), Geometry(SIZE, (24, 32)))
        seen.append(Seen.of(asking, Answer(maps, tuple(regions)), FRAME))
    return sight_of(seen, FRAME, "", np.eye(4), least_score=0.5)


def names(found: Sight) -> list[str]:
    return [region.prompt for region in found.regions]


def test_names_that_several_ask_for_count_once() -> None:
    found = sight("find the cup", "find the cup and the box")
    assert names(found) == ["cup", "box"]
    assert found.asked == ("cup", "box")


def test_a_place_brings_the_names_in_it() -> None:
    assert names(sight("find the cup left of the box")) == ["cup", "box"]


@pytest.mark.parametrize("how", [{"by_model": True}, {"is_whole_asked": True}])
def test_phrases_with_places_are_no_names(how) -> None:
    found = sight("find the cup left of the box", **how)
    assert "cup left of the box" not in names(found)
    assert "cup left of the box" not in found.asked


def test_what_is_hardly_seen_is_neither_remembered_nor_missed() -> None:
    found = sight("find the cup left of the box", score=0.4)
    assert found.regions == ()
    assert found.asked == ()


def test_what_a_phrase_leaves_out_is_not_missed() -> None:
    assert sight("find the cup, not the red one").asked == ()
