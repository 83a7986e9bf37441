# SPDX-License-Identifier: Apache-2.0
"""PASCAL-5i, on a few pictures in the layout of VOC 2012."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.data.pascal5i import MIN_AREA_PX, Pascal5i
from clip_seg_ros.data.samples import DataError, read_rgb
from clip_seg_ros.data.voc import Voc2012

SIZE = (96, 128)
PERSON, DINING_TABLE, DOG, COW, CAR = 15, 11, 12, 10, 7
# The classes of each picture and how many pixels each covers. Classes 11..15 are those of fold 2.
VAL = {
    "2007_000001": {PERSON: 3000},
    "2007_000002": {PERSON: MIN_AREA_PX, CAR: 4000},
    "2007_000003": {PERSON: MIN_AREA_PX - 1, DINING_TABLE: 3000},
    "2007_000004": {PERSON: MIN_AREA_PX - 1},
    "2007_000005": {CAR: 5000, COW: 4000},
    "2007_000006": {DOG: 3000},
    "2007_000007": {PERSON: 5000, DINING_TABLE: 2500, DOG: 3000},
}
TRAIN = {
    "2008_000001": {CAR: 3000, PERSON: 3000, COW: 10},
    "2008_000002": {COW: 3000},
    "2008_000003": {PERSON: 6000},
    "2008_000004": {CAR: 2500},
}


def drawn(areas_px: dict[int, int]) -> np.ndarray:
    """Labels with the given areas, in stripes, and a row of ignored edges at the bottom."""
    labels = np.zeros(SIZE[0] * SIZE[1], int)
    start = 0
    for number, area in areas_px.items():
        labels[start : start + area] = number
        start += area
    labels[-SIZE[1] :] = 255
    return labels.reshape(SIZE)


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, pictures in (("val", VAL), ("train", TRAIN)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in pictures))
        for number, (name, areas_px) in enumerate(pictures.items()):
            # The height tells the pictures apart.
            write_jpeg(tmp_path / "JPEGImages" / f"{name}.jpg", (SIZE[0] + number, SIZE[1]))
            labels = np.pad(drawn(areas_px), ((0, number), (0, 0)))
            write_labels(tmp_path / "SegmentationClass" / f"{name}.png", labels, palette=True)
    return tmp_path


def asked_for(dataset: Pascal5i) -> list[tuple[str, str]]:
    return [tuple(sample.name.split("/")[1:]) for sample in dataset]


def test_folds_share_out_the_classes(root: Path) -> None:
    for fold, unseen in ((1, {6, 7, 8, 9, 10}), (2, {11, 12, 13, 14, 15})):
        assert set(Pascal5i(root, fold, "val").classes) == unseen
        assert set(Pascal5i(root, fold, "train").classes) == set(range(1, 21)) - unseen


@pytest.mark.parametrize("seed", range(5))
def test_validation_asks_a_picture_for_one_unseen_class(root: Path, seed: int) -> None:
    dataset = Pascal5i(root, 2, "val", seed=seed)

    asked = asked_for(dataset)

    # Number 4 shows too little of a person, number 5 no class of the fold.
    assert [name for name, _ in asked] == [f"2007_00000{number}" for number in (1, 2, 3, 6, 7)]
    for name, class_name in asked:
        number = {"person": PERSON, "diningtable": DINING_TABLE, "dog": DOG}[class_name]
        assert number in VAL[name]


def test_validation_draws_among_all_unseen_classes_of_a_picture(root: Path) -> None:
    drawn_classes = [dict(asked_for(Pascal5i(root, 2, "val", seed=seed))) for seed in range(40)]

    assert {classes["2007_000007"] for classes in drawn_classes} == {"person", "diningtable", "dog"}
    # A person too small to count may be asked for beside a table that is large enough.
    assert {classes["2007_000003"] for classes in drawn_classes} == {"person", "diningtable"}


def test_training_asks_for_every_seen_class_of_a_picture(root: Path) -> None:
    dataset = Pascal5i(root, 2, "train")

    assert asked_for(dataset) == [
        ("2008_000001", "car"),
        ("2008_000001", "cow"),
        ("2008_000002", "cow"),
        ("2008_000004", "car"),
    ]
    assert "person" not in dataset.phrases
    assert dataset.phrases == tuple(sample.phrase for sample in dataset)
    assert [picture.split("/")[-1] for picture in dataset.pictures] == [name for name, _ in asked_for(dataset)]


def test_masks_hold_the_class_and_nothing_else(root: Path) -> None:
    for sample in Pascal5i(root, 2, "val"):
        _, name, class_name = sample.name.split("/")
        labels = drawn(VAL[name])
        number = Voc2012(root, "val").class_names.index(class_name)
        mask = sample.mask[: SIZE[0]]
        assert mask.dtype == bool
        assert mask.tolist() == (labels == number).tolist()
        assert not mask[-1].any()
        assert sample.rgb.shape[:2] == sample.mask.shape


def test_the_edges_that_voc_ignores_are_ignored(root: Path) -> None:
    for sample in Pascal5i(root, 2, "val"):
        labels = drawn(VAL[sample.name.split("/")[1]])
        assert sample.ignored.shape == sample.mask.shape
        assert sample.ignored.dtype == bool
        assert sample.ignored[: SIZE[0]].tolist() == (labels == 255).tolist()
        assert sample.ignored.any()
        assert not (sample.ignored & sample.mask).any()


@pytest.mark.parametrize("seed", range(5))
def test_the_example_is_another_picture_with_enough_of_the_class(root: Path, seed: int) -> None:
    heights = {SIZE[0] + number: name for number, name in enumerate(VAL)}
    for sample in Pascal5i(root, 2, "val", seed=seed):
        _, name, class_name = sample.name.split("/")
        rgb, mask = sample.support
        shown = heights[rgb.shape[0]]
        number = Voc2012(root, "val").class_names.index(class_name)
        assert shown != name
        assert VAL[shown][number] >= MIN_AREA_PX
        assert mask.sum() == VAL[shown][number]
        assert rgb.tolist() == read_rgb(root / "JPEGImages" / f"{shown}.jpg").tolist()


def test_the_same_seed_gives_the_same_samples(root: Path) -> None:
    def told(seed: int) -> list[tuple]:
        dataset = Pascal5i(root, 2, "val", seed=seed)
        # Backwards: what a sample is must not depend on what was asked before.
        order = reversed(range(len(dataset)))
        return [(dataset[index].name, dataset[index].support[0].shape) for index in order]

    assert told(3) == told(3)
    assert len({tuple(told(seed)) for seed in range(10)}) > 1


def test_samples_without_an_example(root: Path) -> None:
    assert all(sample.support is None for sample in Pascal5i(root, 2, "val", one_shot=False))
    # Fold 1 has one picture with a car of the fold that is large and one with a cow: 2007_000005.
    with_cow = [s for seed in range(20) for s in Pascal5i(root, 1, "val", seed=seed) if s.phrase == "cow"]
    assert with_cow
    assert all(sample.support is None for sample in with_cow)


def test_phrases_are_words(root: Path) -> None:
    phrases = {sample.phrase for seed in range(10) for sample in Pascal5i(root, 2, "val", seed=seed)}

    assert phrases == {"person", "dog", "dining table"}


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="fold is 4; it may be 0, 1, 2, 3"):
        Pascal5i(root, 4, "val")
    with pytest.raises(DataError, match="split is 'test'; it may be train, trainaug, val"):
        Pascal5i(root, 0, "test")
    with pytest.raises(DataError, match=r"no picture of the list val.txt .* shows a class of this split of fold 3"):
        Pascal5i(root, 3, "val")
