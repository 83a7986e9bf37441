# SPDX-License-Identifier: Apache-2.0
"""VOC 2012, on a few pictures in the layout of the VOCdevkit, with palette PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.data.voc import Voc2012

# Every number that VOC stores.
LABELS = np.random.default_rng(1).permutation(np.resize([*range(21), 255], 12 * 20)).reshape(12, 20)
LISTS = {
    "train": ["2007_000032"],
    "val": ["2007_000033", "2007_000042"],
    "trainaug": ["2007_000032", "2008_000002"],
}


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in LISTS.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for name in ("2007_000032", "2007_000033", "2007_000042", "2008_000002", "2009_000001"):
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", (12, 20))
    for name in ("2007_000032", "2007_000033", "2007_000042"):
        write_labels(root / "SegmentationClass" / f"{name}.png", LABELS, palette=True)
    # SBD has other, coarser labels for some pictures of VOC.
    for name in ("2007_000032", "2008_000002"):
        write_labels(root / "SegmentationClassAug" / f"{name}.png", np.full((12, 20), 15))
    return root


def test_with_background_numbers_are_labels(root: Path) -> None:
    dataset = Voc2012(root, "val")

    assert (len(dataset), len(dataset.class_names)) == (2, 21)
    assert [dataset.class_names[index] for index in (0, 1, 20)] == ["background", "aeroplane", "tvmonitor"]
    assert dataset[0].labels.tolist() == LABELS.tolist()
    assert [sample.name for sample in dataset] == ["val/2007_000033", "val/2007_000042"]


def test_without_background_it_is_ignored(root: Path) -> None:
    dataset = Voc2012(root, "val", background=False)

    expected = [[IGNORED if number in (0, 255) else number - 1 for number in row] for row in LABELS.tolist()]
    assert (len(dataset.class_names), dataset.class_names[0]) == (20, "aeroplane")
    assert dataset[1].labels.tolist() == expected


def test_labels_of_sbd_fill_what_voc_lacks(root: Path) -> None:
    dataset = Voc2012(root, "trainaug")

    assert dataset[0].labels.tolist() == LABELS.tolist()
    assert (dataset[1].labels == dataset.class_names.index("person")).all()


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match=r"no list .*test\.txt \(lists in that folder: train\.txt, trainaug\.txt, val"):
        Voc2012(root, "test")
    with pytest.raises(DataError, match=r"no list .*The folder of VOC 2012 \(VOCdevkit/VOC2012\) holds JPEGImages"):
        Voc2012(root.parent, "val")
    with (root / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("2009_000001\n")
    with pytest.raises(DataError, match=r"SegmentationClass/2009_000001\.png is missing"):
        Voc2012(root, "val")
    (root / "SegmentationClassAug").rename(root / "Aug")
    with pytest.raises(DataError, match=r"no folder .*SegmentationClassAug"):
        Voc2012(root, "trainaug")
