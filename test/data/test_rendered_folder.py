# SPDX-License-Identifier: Apache-2.0
"""A rendered folder is what three kinds of data sets read, and its masks are the renderer's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.coco import open_coco
from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.rendered_folder import THINGS, write_rendered_folder
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene


@pytest.mark.parametrize("things", list(THINGS))
def test_a_rendered_folder_is_a_data_set(tmp_path: Path, things: str) -> None:
    assert list(write_rendered_folder(tmp_path / "new", 4, things, size=(160, 120))) == [0, 1, 2, 3, 4]
    data = PhraseFolder(tmp_path / "new")
    assert {phrase.split()[-1] for phrase in data.phrases} <= set(THINGS[things])
    assert len(set(data.pictures)) == 4
    empty = [not sample.mask.any() for sample in map(data.__getitem__, range(len(data)))]
    most = 8 if things == "table" else 4
    assert 1 <= sum(empty) <= most, "a kind that is not there, and on the table a colour with another thing's kind"
    assert sum(" " not in phrase for phrase in data.phrases) > sum(empty), "kinds alone"
    assert any(" " in phrase for phrase in data.phrases), "and with their colour"


def test_masks_are_those_of_the_scene(tmp_path: Path) -> None:
    list(write_rendered_folder(tmp_path, 2, "workshop", size=(160, 120)))
    data = PhraseFolder(tmp_path)
    with SceneRenderer(160, 120) as renderer:
        view = renderer.render(sample_scene(1, workshop=True), depth=False)
    for sample in (data[index] for index in range(len(data)) if data.pictures[index] == "images/0001.jpg"):
        color, _, kind = sample.phrase.rpartition(" ")
        assert (sample.mask == view.mask_of(color or None, kind)).all()


@pytest.mark.parametrize("things", list(THINGS))
def test_classes_and_objects_are_those_of_the_scene_too(tmp_path: Path, things: str) -> None:
    list(write_rendered_folder(tmp_path, 2, things, size=(160, 120)))
    classes, objects = LabelledFolder(tmp_path), open_coco(tmp_path, task="instances")
    assert classes.class_names == (*objects.class_names, "table", "floor")
    assert objects.class_names[: len(THINGS[things])] == THINGS[things], "in the order of the list"
    phrases = PhraseFolder(tmp_path)
    for index, picture in enumerate(("images/0000.jpg", "images/0001.jpg")):
        found, labels = objects[index], classes[index].labels
        for sample in (phrases[n] for n, name in enumerate(phrases.pictures) if name == picture):
            if " " in sample.phrase:
                continue
            label = classes.class_names.index(sample.phrase)
            assert np.array_equal(labels == label, sample.mask)
            assert np.array_equal(found.masks[found.labels == label].any(axis=0), sample.mask)
        assert (labels >= len(objects.class_names)).any()


def test_held_out_scenes_are_others(tmp_path: Path) -> None:
    for name, held_out in (("train", False), ("test", True)):
        list(write_rendered_folder(tmp_path / name, 1, held_out=held_out, size=(64, 48)))
    first, second = ((tmp_path / name / "images" / "0000.jpg").read_bytes() for name in ("train", "test"))
    assert first != second


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something already: name a folder that is new or empty"):
        next(write_rendered_folder(tmp_path, 1))
