# SPDX-License-Identifier: Apache-2.0
"""PASCAL Context, on two pictures as MMSegmentation's converter leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.pascal_context import PascalContext
from clip_seg_ros.data.samples import IGNORED, DataError

LABELS = np.arange(12 * 20).reshape(12, 20) % 60
# Where the converter puts some classes: their place among the 60 numbers of the 459 that it keeps, sorted.
KNOWN = {1: "aeroplane", 2: "bag", 6: "bicycle", 10: "bottle", 17: "chair", 37: "person", 56: "wall", 59: "wood"}


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2010"
    (root / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    for split, name in (("train", "2008_000002"), ("val", "2008_000003")):
        (root / "ImageSets" / "SegmentationContext" / f"{split}.txt").write_text(f"{name}\n")
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", (12, 20))
        write_labels(root / "SegmentationClassContext" / f"{name}.png", LABELS)
    return root


def test_59_classes_ignore_the_background(root: Path) -> None:
    dataset = PascalContext(root, "val")

    sample = dataset[0]

    assert (len(dataset), len(dataset.class_names)) == (1, 59)
    assert (sample.labels[LABELS == 0] == IGNORED).all()
    assert (sample.labels[LABELS > 0] == LABELS[LABELS > 0] - 1).all()
    for number, name in KNOWN.items():
        assert dataset.class_names[sample.labels[LABELS == number][0]] == name
    assert sample.name == "val/2008_000003"


def test_60_classes_have_it_as_the_first(root: Path) -> None:
    dataset = PascalContext(root, "train", background=True)

    assert (len(dataset.class_names), dataset.class_names[0]) == (60, "background")
    assert dataset[0].labels.tolist() == LABELS.tolist()
    for number, name in KNOWN.items():
        assert dataset.class_names[number] == name


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match=r"no list .*SegmentationContext/test\.txt .*train\.txt, val\.txt"):
        PascalContext(root, "test")
    (root / "SegmentationClassContext").rename(root / "SegmentationClass")
    with pytest.raises(DataError, match=r"no folder .*SegmentationClassContext\. .*pascal_context\.py writes them"):
        PascalContext(root, "val")
