# SPDX-License-Identifier: Apache-2.0
"""COCO-Stuff, on a few pictures in the layouts of both releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.coco_stuff import CocoStuff10k, CocoStuff164k
from clip_seg_ros.data.samples import IGNORED, DataError

SIZE = (14, 20)
# COCO's own numbers of some classes, from 1, as cocostuff/labels.txt has them.
KNOWN = {
    1: "person",
    11: "fire hydrant",
    13: "stop sign",
    25: "giraffe",
    27: "backpack",
    31: "handbag",
    44: "bottle",
    46: "wine glass",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    82: "refrigerator",
    84: "book",
    90: "toothbrush",
    92: "banner",
    95: "bridge",
    124: "grass",
    157: "sky-other",
    182: "wood",
}
# The numbers of things that no picture has: labels.txt calls them street sign, hat, shoe and so on.
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
USED = [number for number in range(1, 183) if number not in UNUSED]
TRAIN_IDS = np.resize([*range(171), 255], SIZE)


def published(train_ids: np.ndarray) -> np.ndarray:
    return np.array([[255 if index == 255 else USED[index] - 1 for index in row] for row in train_ids])


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    """The large set with published labels."""
    for split, names in (("train2017", ("000000000009", "000000000025")), ("val2017", ("000000000139",))):
        for name in names:
            write_jpeg(tmp_path / "images" / split / f"{name}.jpg", SIZE)
            write_labels(tmp_path / "annotations" / split / f"{name}.png", published(TRAIN_IDS))
    return tmp_path


def test_published_labels_of_the_large_set(root: Path, write_labels) -> None:
    stored = np.zeros(SIZE, int)
    stored.ravel()[: len(KNOWN)] = [number - 1 for number in KNOWN]
    write_labels(root / "annotations" / "val2017" / "000000000139.png", stored)
    dataset = CocoStuff164k(root, "val2017")

    labels = dataset[0].labels

    assert len(dataset.class_names) == 171
    assert [dataset.class_names[label] for label in labels.ravel()[: len(KNOWN)]] == list(KNOWN.values())


def test_published_and_converted_labels_are_the_same(root: Path, write_labels) -> None:
    before = CocoStuff164k(root, "train2017")
    assert [sample.name for sample in before] == ["train2017/000000000009", "train2017/000000000025"]
    assert all(sample.labels.tolist() == TRAIN_IDS.tolist() for sample in before)

    folder = root / "annotations" / "train2017"
    for path in list(folder.glob("*.png")):
        write_labels(folder / f"{path.stem}_labelTrainIds.png", TRAIN_IDS)
        path.unlink()

    after = CocoStuff164k(root, "train2017")
    assert all(sample.labels.tolist() == TRAIN_IDS.tolist() for sample in after)


def test_published_labels_win_where_both_are_there(root: Path, write_labels) -> None:
    write_labels(root / "annotations" / "val2017" / "000000000139_labelTrainIds.png", np.zeros(SIZE))

    assert CocoStuff164k(root, "val2017")[0].labels.tolist() == TRAIN_IDS.tolist()


def test_an_unused_number_is_refused(root: Path, write_labels) -> None:
    # Street sign, 12, is stored as 11.
    write_labels(root / "annotations" / "val2017" / "000000000139.png", np.full(SIZE, 11))

    with pytest.raises(DataError, match="holds the number 11"):
        CocoStuff164k(root, "val2017")[0]


def test_what_is_wrong_with_the_large_set_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="split is 'val'; it may be train2017, val2017"):
        CocoStuff164k(root, "val")
    (root / "annotations" / "train2017" / "000000000025.png").unlink()
    with pytest.raises(DataError, match=r"annotations/train2017/000000000025\.png is missing\. The folder of COCO-St"):
        CocoStuff164k(root, "train2017")


def test_the_small_set_counts_from_one(tmp_path: Path, write_jpeg, write_labels) -> None:
    stored = np.resize(range(172), SIZE)
    for split in ("train", "test"):
        name = f"COCO_train2014_00000000007{len(split)}"
        write_jpeg(tmp_path / "images" / f"{split}2014" / f"{name}.jpg", SIZE)
        write_labels(tmp_path / "annotations" / f"{split}2014" / f"{name}_labelTrainIds.png", stored)

    dataset = CocoStuff10k(tmp_path, "test")

    sample = dataset[0]
    assert (len(dataset), len(dataset.class_names)) == (1, 171)
    assert sample.name == "test/COCO_train2014_000000000074"
    assert (sample.labels[stored == 0] == IGNORED).all()
    assert (sample.labels[stored > 0] == stored[stored > 0] - 1).all()
    with pytest.raises(DataError, match="split is 'val'; it may be train, test"):
        CocoStuff10k(tmp_path, "val")


def test_matlab_files_must_be_converted(tmp_path: Path, write_jpeg) -> None:
    name = "COCO_train2014_000000000077"
    write_jpeg(tmp_path / "images" / f"{name}.jpg", SIZE)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / f"{name}.mat").write_bytes(b"MATLAB 5.0 MAT-file")

    with pytest.raises(DataError, match=r"annotations holds MATLAB files .* convert them first.*coco_stuff10k\.py"):
        CocoStuff10k(tmp_path, "train")
