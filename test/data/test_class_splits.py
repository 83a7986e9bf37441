# SPDX-License-Identifier: Apache-2.0
"""The published splits of classes, and data sets of which a part is hidden or left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.class_splits import (
    SplitClasses,
    chosen_classes,
    coco20i_classes,
    coco_classes,
    pascal5i_classes,
    unseen_splits,
)
from clip_seg_ros.data.coco_stuff import TRAIN_IDS
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.resources import class_list

CLASSES = ("road", "cup", "tree")
SIZE = (4, 6)
STORED = {"a": [0, 1], "b": [0, 2], "c": [0, 255], "d": [1, 2]}
# The numbers by which the papers' programs name the unseen classes; 0 is the background where there is one.
NUMBERS = {
    "voc_zs4": (["background", *class_list("voc20")], [10, 14, 1, 18]),
    "voc_zs10": (["background", *class_list("voc20")], [10, 14, 1, 18, 8, 20, 19, 5, 9, 16]),
    "voc_15_5": (["background", *class_list("voc20")], [16, 17, 18, 19, 20]),
    "context_zs10": (["background", *class_list("pascal_context59")], [20, 34, 49, 15, 8, 25, 7, 55, 32, 1]),
    "coco_stuff_156_15": (
        class_list("coco_stuff171"),
        [19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160],
    ),
}


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    for name, numbers in STORED.items():
        write_jpeg(tmp_path / "images" / f"{name}.jpg", SIZE)
        write_labels(tmp_path / "labels" / f"{name}.png", np.resize(numbers, SIZE))
    return tmp_path


@pytest.mark.parametrize("name", NUMBERS)
def test_splits_are_those_of_the_papers(name: str) -> None:
    names, numbers = NUMBERS[name]

    assert unseen_splits()[name] == tuple(names[number] for number in numbers)


def test_folds_share_out_all_classes() -> None:
    assert sum((pascal5i_classes(fold) for fold in range(4)), ()) == class_list("voc20")
    assert pascal5i_classes(2) == ("diningtable", "dog", "horse", "motorbike", "person")
    assert sorted(sum((coco20i_classes(fold) for fold in range(4)), ())) == sorted(coco_classes())
    assert coco20i_classes(1)[:3] == ("bicycle", "bus", "traffic light")
    assert coco20i_classes(3)[-1] == "toothbrush"


def test_hidden_classes_are_ignored(root: Path) -> None:
    whole = LabelledFolder(root, CLASSES)

    hidden = SplitClasses(whole, hide=("cup", "tree"))

    assert hidden.class_names == CLASSES
    assert (hidden.names, len(hidden)) == (whole.names, 4)
    for sample, numbers in zip(hidden, STORED.values()):
        assert sample.labels.tolist() == np.resize([0 if n == 0 else IGNORED for n in numbers], SIZE).tolist()
        assert sample.labels.dtype == np.uint8


def test_images_of_dropped_classes_are_left_out(root: Path) -> None:
    dropped = SplitClasses(LabelledFolder(root, CLASSES), drop=("tree",))

    assert dropped.names == ("a", "c")
    assert [sample.name for sample in (dropped[0], dropped[1])] == ["a", "c"]
    assert dropped[0].labels.tolist() == np.resize([0, 1], SIZE).tolist()
    with pytest.raises(DataError, match="every image shows one of road, cup"):
        SplitClasses(LabelledFolder(root, CLASSES), drop=("road", "cup"))


def test_they_are_options_of_every_kind_with_classes(root: Path, tmp_path: Path) -> None:
    values = {"kind": "labelled_folder", "root": str(root), "classes": list(CLASSES)}

    dataset = open_dataset({**values, "hide": ["cup"], "drop": "tree", "unseen": ["cup", "tree"]})

    assert dataset.names == ("a", "c")
    assert dataset.unseen == ("cup", "tree")
    assert set(np.unique(dataset[0].labels)) == {0, IGNORED}
    assert not hasattr(open_dataset(values), "unseen")
    (root / "phrases.csv").write_text("image,mask,phrase\nimages/a.jpg,,cup\n")
    with pytest.raises(DataError, match="hide is for data sets with a class for every pixel, which folder is not"):
        open_dataset({"kind": "folder", "root": str(root), "hide": "cup"})
    with pytest.raises(DataError, match="hide of the data set labelled_folder is 3; it must be a list of texts"):
        open_dataset({**values, "hide": 3})


def test_a_split_goes_by_its_name(tmp_path: Path, write_jpeg, write_labels) -> None:
    write_jpeg(tmp_path / "images/val2017/1.jpg", SIZE)
    write_labels(tmp_path / f"annotations/val2017/1{TRAIN_IDS}", np.resize([18, 19], SIZE))

    dataset = open_dataset(
        {"kind": "coco_stuff_164k", "root": str(tmp_path), "split": "val2017", "hide": "coco_stuff_156_15"}
    )

    assert set(np.unique(dataset[0].labels)) == {class_list("coco_stuff171").index("sheep"), IGNORED}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "cupp",
            r"^cupp is no class .* are road, cup, tree; the splits are voc_zs2, .*; did you mean cup\?",
        ),
        (("road", "moon"), "^moon is no class"),
        ("voc_zs2", "^cow of the split voc_zs2 is no class"),
        ((), "no class is named"),
    ],
)
def test_unknown_classes_are_said(asked: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        chosen_classes(asked, CLASSES)
