# SPDX-License-Identifier: Apache-2.0
"""ADE20K, on four pictures in the layout of ADEChallengeData2016."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.ade20k import Ade20k
from clip_seg_ros.data.samples import IGNORED, DataError

LABELS = np.arange(10 * 16).reshape(10, 16) % 151


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for split, stem, count in (("training", "ADE_train", 3), ("validation", "ADE_val", 1)):
        for number in range(count, 0, -1):
            write_jpeg(root / "images" / split / f"{stem}_{number:08d}.jpg", (10, 16))
            write_labels(root / "annotations" / split / f"{stem}_{number:08d}.png", np.roll(LABELS, number))
    return root


def test_labels_name_their_classes(root: Path) -> None:
    dataset = Ade20k(root, "validation")

    sample = dataset[0]

    stored = np.roll(LABELS, 1)
    assert len(dataset.class_names) == 150
    assert [dataset.class_names[index] for index in (0, 1, 149)] == ["wall", "building", "flag"]
    assert (sample.labels[stored == 0] == IGNORED).all()
    for number in range(1, 151):
        assert (sample.labels[stored == number] == number - 1).all()
    assert sample.rgb.shape == (10, 16, 3)
    assert sample.name == "validation/ADE_val_00000001"


def test_pictures_come_in_the_order_of_their_numbers(root: Path) -> None:
    dataset = Ade20k(root, "training")

    assert [sample.name for sample in dataset] == [f"training/ADE_train_{number:08d}" for number in (1, 2, 3)]


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="split is 'val'; it may be training, validation"):
        Ade20k(root, "val")
    with pytest.raises(DataError, match=r"no folder .*elsewhere/images/training.*ADEChallengeData2016"):
        Ade20k(root / "elsewhere", "training")
    (root / "annotations" / "training" / "ADE_train_00000002.png").unlink()
    with pytest.raises(DataError, match=r"annotations/training/ADE_train_00000002\.png is missing"):
        Ade20k(root, "training")
