# SPDX-License-Identifier: Apache-2.0
"""What is there, asked of the embedded model on a rendered scene and of a stand-in that believes what it was told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.describing import LONGEST_SIDE_PX, PHRASES_AT_ONCE, Sighting, describe
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import COLORS, KINDS, sample_scene

NAMES = tuple(f"{color} {kind}" for color in COLORS for kind in KINDS)


class Believer:
    """Stands where a predictor stands: phrase -> (rows, columns, probability), ... at the size of the image asked."""

    def __init__(self, competition: str = "sigmoid", **beliefs: list[tuple[slice, slice, float]]) -> None:
        self.spec = SimpleNamespace(competition=competition, calibration=NOTHING_CORRECTED)
        self.beliefs = {phrase.replace("_", " "): parts for phrase, parts in beliefs.items()}
        self.asked: list[tuple[str, ...]] = []

    def encode(self, rgb: np.ndarray) -> tuple[int, int]:
        return rgb.shape[:2]

    def ask_cells(self, encoded: tuple[int, int], prompts: tuple[str, ...]) -> CellMaps:
        self.asked.append(prompts)
        values = np.zeros((len(prompts), *encoded), np.float32)
        for row, prompt in enumerate(prompts):
            for rows, columns, probability in self.beliefs.get(prompt, []):
                values[row, rows, columns] = probability
        return CellMaps(prompts, values, Geometry(values.shape[1:], values.shape[1:]))


RGB = np.zeros((60, 80, 3), np.uint8)
LEFT, RIGHT = (slice(10, 30), slice(10, 30)), (slice(10, 30), slice(50, 70))


def test_of_two_names_for_one_thing_the_surer_is_kept() -> None:
    believer = Believer(
        cup=[(*LEFT, 0.7), (*RIGHT, 0.8)], red_cup=[(*LEFT, 0.9)], box=[(slice(0, 1), slice(0, 1), 0.9)]
    )
    assert describe(believer, RGB, ("cup", "red cup", "box"), 0.5, 0.01) == [
        Sighting("red cup", 1, pytest.approx(0.9)),
        Sighting("cup", 1, pytest.approx(0.8)),
    ]


def test_things_of_one_name_are_counted() -> None:
    assert describe(Believer(cup=[(*LEFT, 0.7), (*RIGHT, 0.8)]), RGB, ("cup",), 0.5, 0.01) == [
        Sighting("cup", 2, pytest.approx(0.8))
    ]


def test_many_names_are_asked_in_parts_unless_they_compete() -> None:
    names = tuple(f"thing {i}" for i in range(40))
    believer = Believer(thing_39=[(*LEFT, 0.9)])
    assert [each.phrase for each in describe(believer, RGB, names, 0.5, 0.01)] == ["thing 39"]
    assert max(map(len, believer.asked)) == PHRASES_AT_ONCE
    assert sum(believer.asked, ()) == names
    competing = Believer("softmax", thing_39=[(*LEFT, 0.9)])
    describe(competing, RGB, names, 0.5, 0.01)
    assert competing.asked == [names]


def test_a_large_image_is_made_smaller() -> None:
    sizes = []
    believer = Believer()
    believer.encode = lambda rgb: sizes.append(rgb.shape[:2]) or rgb.shape[:2]
    describe(believer, np.zeros((1080, 1920, 3), np.uint8), ("cup",), 0.5, 0.01)
    assert sizes == [(360, LONGEST_SIDE_PX)]


def test_the_embedded_model_names_what_stands_on_the_table() -> None:
    scene = sample_scene(20_000)
    with SceneRenderer() as renderer:
        view = renderer.render(scene, depth=False)
    seen = describe(Predictor.from_name("clipseg-pocket", "cpu", engine="eager"), view.rgb, NAMES, 0.5, 0.002)
    there = {item.name for item in scene.objects}
    named = {each.phrase for each in seen}
    assert len(named & there) >= 0.8 * len(there), (named, there)
    assert len(named - there) <= 1, (named, there)
