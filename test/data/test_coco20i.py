# SPDX-License-Identifier: Apache-2.0
"""COCO-20i, on a few pictures in COCO's layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from clip_seg_ros.data.class_splits import coco20i_classes, coco_classes
from clip_seg_ros.data.coco20i import EPISODES, Coco20i
from clip_seg_ros.data.samples import DataError

SIZE = (12, 16)
CLASSES = coco_classes()
# The classes of each picture; person, airplane and boat belong to fold 0, bicycle and bus to fold 1.
SHOWN = {1: ("person", "bicycle"), 2: ("person", "bus"), 3: ("person", "airplane"), 4: ("boat",), 5: ("bus", "boat")}


def write(root: Path, split: str, write_jpeg) -> None:
    objects = []
    for image, names in SHOWN.items():
        # The height tells the pictures apart.
        write_jpeg(root / f"{split}2014" / f"{image}.jpg", (SIZE[0] + image, SIZE[1]))
        for place, name in enumerate(names):
            left = 8 * place
            outline = [left, 0, left + 4, 0, left + 4, 4, left, 4]
            objects.append({"image_id": image, "category_id": 2 * CLASSES.index(name) + 1, "segmentation": [outline]})
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in SHOWN],
        "annotations": objects,
        "categories": [{"id": 2 * index + 1, "name": name} for index, name in enumerate(CLASSES)],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path, write_jpeg) -> Path:
    for split in ("train", "val"):
        write(tmp_path, split, write_jpeg)
    return tmp_path


def test_the_test_draws_classes_alike(root: Path) -> None:
    dataset = Coco20i(root, 0, "val")

    counts = Counter(dataset.phrases)
    assert dataset.classes == coco20i_classes(0)
    assert len(dataset) == EPISODES == 1000
    assert set(counts) == {"person", "airplane", "boat"}
    # person is shown three times as often as airplane; a share of 1/3 each has a standard deviation of 15
    assert all(abs(count - EPISODES / 3) < 75 for count in counts.values())


def test_training_asks_for_every_seen_class_of_a_picture(root: Path) -> None:
    dataset = Coco20i(root, 0, "train")

    assert list(zip(dataset.pictures, dataset.phrases)) == [("1", "bicycle"), ("2", "bus"), ("5", "bus")]
    assert len(dataset.classes) == 60


def test_samples_have_the_mask_of_their_class_and_another_picture(root: Path) -> None:
    for seed in range(3):
        for sample in list(Coco20i(root, 0, "val", seed=seed, episodes=20)):
            image = int(sample.name.split("/")[0])
            left = 8 * SHOWN[image].index(sample.phrase)
            assert sample.rgb.shape[0] == SIZE[0] + image
            assert sample.mask[:4, left : left + 4].all()
            assert sample.mask.sum() == 16
            if sample.phrase == "airplane":
                assert sample.support is None, "no other picture shows one"
                continue
            other = sample.support[0].shape[0] - SIZE[0]
            assert other != image
            assert sample.phrase in SHOWN[other]
            assert sample.support[1].sum() == 16


def test_the_same_seed_gives_the_same_samples(root: Path) -> None:
    def told(seed: int) -> list[tuple]:
        return [(s.name, s.support and s.support[0].shape) for s in Coco20i(root, 0, "val", seed=seed, episodes=12)]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_samples_without_an_example(root: Path) -> None:
    assert all(sample.support is None for sample in Coco20i(root, 1, "val", one_shot=False, episodes=5))


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="fold is 4; it may be 0, 1, 2, 3"):
        Coco20i(root, 4, "val")
    with pytest.raises(DataError, match="split is 'test'; it may be train, val"):
        Coco20i(root, 0, "test")
    with pytest.raises(DataError, match="episodes must be at least 1, got 0"):
        Coco20i(root, 0, "val", episodes=0)
    with pytest.raises(DataError, match="has no object of these classes: motorcycle, truck"):
        Coco20i(root, 3, "val")
