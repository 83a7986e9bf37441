# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.evaluation.suite import Examiner, Figure, run_suite


class Witness(Examiner):
    """Remembers what it was shown."""

    def __init__(self, name):
        self.name, self.shown = name, []

    def examine(self, scene, view):
        self.shown.append((scene, view))

    def figures(self):
        return [Figure(f"{self.name}.scenes", len(self.shown), "scenes"), Figure(f"{self.name}.one", 1.0, "ones")]


def test_every_examiner_is_shown_every_scene_once():
    first, second = Witness("first"), Witness("second")
    counted = []

    def progress(seeds):
        for seed in seeds:
            counted.append(seed)
            yield seed

    figures = run_suite([first, second], [10_025, 10_026], progress)
    assert counted == [10_025, 10_026]
    assert [scene for scene, _ in first.shown] == [held_out_scene(10_025), held_out_scene(10_026)]
    for (scene, view), (_, other) in zip(first.shown, second.shown, strict=True):
        assert view is other, "one picture for all"
        assert view.rgb.shape == (480, 640, 3)
        assert view.objects == scene.objects
    assert [figure.name for figure in figures] == ["first.scenes", "first.one", "second.scenes", "second.one"]
    assert [figure.value for figure in figures] == [2, 1, 2, 1]


def test_no_scene_gives_the_figures_of_none():
    assert [figure.value for figure in run_suite([Witness("only")], [])] == [0, 1]


def test_an_examiner_must_examine_and_may_draw():
    assert Witness("only").pictures() == {}
    with pytest.raises(TypeError, match="abstract"):
        Examiner()


def test_a_figure_becomes_plain_values():
    assert Figure("a.b", 0.5, "IoU").to_dict() == {"name": "a.b", "value": 0.5, "unit": "IoU"}
