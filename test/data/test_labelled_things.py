# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.labelled_things import SMALLEST_PX
from clip_seg_ros.data.samples import DataError, InstanceSample, SemanticSample

SIZE = (40, 60)


@pytest.fixture
def values(tmp_path: Path, write_jpeg, write_labels) -> dict:
    """A street with two cars, one that is too small, and a person that touches a car."""
    labels = np.zeros(SIZE, np.uint8)
    labels[2:12, 3:13] = labels[20:30, 30:50] = 1
    labels[35:38, 2:6] = 1
    labels[30:38, 40:46] = 2
    write_jpeg(tmp_path / "images" / "a.jpg", SIZE)
    write_labels(tmp_path / "labels" / "a.png", labels)
    return {"kind": "labelled_folder", "root": str(tmp_path), "classes": ["road", "car", "person"]}


def test_every_region_of_a_countable_class_is_an_object(values: dict) -> None:
    dataset = open_dataset({**values, "things": ["person", "car"]})
    sample = dataset[0]

    assert isinstance(sample, InstanceSample)
    assert dataset.class_names == ("person", "car")
    assert sample.labels.tolist() == [0, 1, 1, 1]
    assert sample.boxes_px.tolist() == [[40, 30, 46, 38], [3, 2, 13, 12], [30, 20, 50, 30], [2, 35, 6, 38]]
    assert sample.areas_px.tolist() == sample.masks.sum((1, 2)).tolist() == [48, 100, 200, 12]
    assert sample.crowd.tolist() == [False, False, False, True]
    assert sample.areas_px[3] < SMALLEST_PX
    assert sample.rgb.shape == (*SIZE, 3)


def test_without_a_region_there_is_no_object(values: dict, write_labels) -> None:
    write_labels(Path(values["root"]) / "labels" / "a.png", np.zeros(SIZE, np.uint8))
    sample = open_dataset({**values, "things": ["car"]})[0]

    assert sample.labels.shape == (0,)
    assert sample.boxes_px.shape == (0, 4)
    assert sample.masks.shape == (0, *SIZE)


def test_without_things_there_is_a_class_for_every_pixel(values: dict) -> None:
    assert isinstance(open_dataset(values)[0], SemanticSample)


@pytest.mark.parametrize(
    ("things", "said"),
    [
        (["bus"], "has no class bus; its classes are road, car, person"),
        ([], "needs at least one class of things"),
        (["car", "car"], "names a class twice"),
    ],
)
def test_classes_that_do_not_fit_are_refused(values: dict, things: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_dataset({**values, "things": things})


def test_hidden_classes_are_no_objects(values: dict) -> None:
    sample = open_dataset({**values, "hide": ["person"], "things": ["person", "car"]})[0]
    assert sample.labels.tolist() == [1, 1, 1]


def test_data_without_classes_have_no_things(values: dict) -> None:
    (Path(values["root"]) / "phrases.csv").write_text("image,mask,phrase\nimages/a.jpg,labels/a.png,car\n")
    with pytest.raises(DataError, match="things is for data sets with a class for every pixel, which folder is not"):
        open_dataset({"kind": "folder", "root": values["root"], "things": ["car"]})
