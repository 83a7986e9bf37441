# SPDX-License-Identifier: Apache-2.0
"""Small data sets with a class for every pixel, or with objects, in the layouts in which they are published.

Each has four pictures of a bright square on a dark ground, and their upper edge belongs to no class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from clip_seg_ros.data.class_splits import coco_classes

SIZE = (64, 96)
COUNT = 4
SIDE = 48
"""The side of a square, whose area PASCAL-5i counts as large enough."""


def _left(number: int) -> int:
    return 4 + 10 * number


def _square(number: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[8 : 8 + SIDE, _left(number) : _left(number) + SIDE] = True
    return mask


def _labels(number: int, ground: int, square: int, unknown: int) -> np.ndarray:
    labels = np.where(_square(number), square, ground).astype(np.uint8)
    labels[:2] = unknown
    return labels


def _write_pictures(folder: Path, prefix: str) -> Iterator[tuple[int, str]]:
    """Writes the pictures as JPEG; gives the number and the name of each, without the ending."""
    folder.mkdir(parents=True)
    for number in range(COUNT):
        name = f"{prefix}{number + 1:08d}"
        bgr = np.full((*SIZE, 3), 60, np.uint8)
        bgr[_square(number)] = (0, 0, 230)
        assert cv2.imwrite(str(folder / f"{name}.jpg"), bgr)
        yield number, name


def _write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def write_ade20k(root: Path) -> dict[str, Any]:
    """ADEChallengeData2016: 150 classes from 1, and 0 for what has none."""
    for number, name in _write_pictures(root / "images" / "training", "ADE_train_"):
        _write_labels(root / "annotations" / "training" / f"{name}.png", _labels(number, 1, 21, 0))
    return {"kind": "ade20k", "root": str(root), "split": "training"}


def write_pascal_context(root: Path) -> dict[str, Any]:
    """VOC2010 with the labels of mmsegmentation's converter: 59 classes from 1, and 0 for the background."""
    names = []
    for number, name in _write_pictures(root / "JPEGImages", "2008_"):
        _write_labels(root / "SegmentationClassContext" / f"{name}.png", _labels(number, 56, 17, 0))
        names.append(name)
    _write_list(root / "ImageSets" / "SegmentationContext" / "train.txt", names)
    return {"kind": "pascal_context", "root": str(root), "split": "train"}


def write_coco_stuff_10k(root: Path) -> dict[str, Any]:
    """The small COCO-Stuff with the labels of mmsegmentation's converter: 171 classes from 1."""
    for number, name in _write_pictures(root / "images" / "train2014", "COCO_train2014_0000"):
        path = root / "annotations" / "train2014" / f"{name}_labelTrainIds.png"
        _write_labels(path, _labels(number, 100, 1, 0))
    return {"kind": "coco_stuff_10k", "root": str(root), "split": "train"}


def write_coco_stuff_164k(root: Path) -> dict[str, Any]:
    """The large COCO-Stuff as published: COCO's numbers less one, and 255 for what has none."""
    for number, name in _write_pictures(root / "images" / "train2017", "0000"):
        _write_labels(root / "annotations" / "train2017" / f"{name}.png", _labels(number, 123, 0, 255))
    return {"kind": "coco_stuff_164k", "root": str(root), "split": "train2017"}


def write_labelled_folder(root: Path) -> dict[str, Any]:
    """One's own images and label images, with a list of classes."""
    for number, name in _write_pictures(root / "images", "mine_"):
        _write_labels(root / "labels" / f"{name}.png", _labels(number, 0, 1, 255))
    (root / "classes.txt").write_text("floor\nbox\n")
    return {"kind": "labelled_folder", "root": str(root)}


def write_annotated(root: Path, task: str) -> dict[str, Any]:
    """What ``clip-seg annotate`` writes of a folder of pictures: COCO's file, with more about objects and pictures."""
    objects = [
        {"category_id": 1, "segmentation": [_outline(number)], "score": 0.9, "band": "sure"} for number in range(COUNT)
    ]
    images = [f"desk/{name}" for _, name in _write_pictures(root / "images" / "desk", "0000")]
    path = root / "annotations" / "instances_default.json"
    _write_coco(path, images, objects, [{"id": 1, "name": "box"}])
    return {"kind": "annotated", "root": str(root), "task": task, "split": "all"}


def write_pascal5i(root: Path) -> dict[str, Any]:
    """VOC2012, whose persons are seen in the training of fold 0."""
    names = []
    for number, name in _write_pictures(root / "JPEGImages", "2007_"):
        _write_labels(root / "SegmentationClass" / f"{name}.png", _labels(number, 0, 15, 255))
        names.append(name)
    _write_list(root / "ImageSets" / "Segmentation" / "train.txt", names)
    return {"kind": "pascal5i", "root": str(root), "split": "train", "fold": 0}


def write_coco20i(root: Path) -> dict[str, Any]:
    """COCO's images and instances of 2014, whose bicycles are seen in the training of fold 0."""
    images = [name for _, name in _write_pictures(root / "train2014", "COCO_train2014_0000")]
    outlines = [{"category_id": 2, "segmentation": [_outline(number)]} for number in range(COUNT)]
    categories = [{"id": number, "name": name} for number, name in enumerate(coco_classes(), start=1)]
    _write_coco(root / "annotations" / "instances_train2014.json", images, outlines, categories)
    return {"kind": "coco20i", "root": str(root), "split": "train", "fold": 0}


def write_coco(root: Path, task: str) -> dict[str, Any]:
    """COCO's objects as outlines and as runs."""
    images = [name for _, name in _write_pictures(root / "train2017", "0000")]
    objects: list[dict[str, Any]] = []
    for number in range(COUNT):
        segments: Any = [_outline(number)]
        if number % 2:
            line = np.concatenate([[False], _square(number).ravel(order="F"), [False]])
            ends = np.flatnonzero(line[1:] != line[:-1])
            segments = {"size": list(SIZE), "counts": np.diff([0, *ends, line.size - 2]).tolist()}
        box = [_left(number), 8, SIDE, SIDE]
        objects.append({"category_id": 3, "segmentation": segments, "bbox": box, "area": SIDE**2})
    categories = [{"id": 3, "name": "box"}]
    _write_coco(root / "annotations" / "instances_train2017.json", images, objects, categories)
    return {"kind": "coco", "root": str(root), "split": "train2017", "task": task}


def write_panoptic(root: Path, task: str) -> dict[str, Any]:
    """COCO's panoptic segments: PNGs of three bytes beside a JSON file."""
    annotations = []
    images = [name for _, name in _write_pictures(root / "train2017", "0000")]
    for number, name in enumerate(images):
        segments = _labels(number, 2, 1, 0)
        colours = np.stack([segments, np.zeros_like(segments), np.zeros_like(segments)], axis=-1)
        _write_labels(root / "annotations" / "panoptic_train2017" / f"{name}.png", colours)
        infos = [
            {"id": 1, "category_id": 3, "bbox": [_left(number), 8, SIDE, SIDE], "area": SIDE**2, "iscrowd": 0},
            {"id": 2, "category_id": 187, "bbox": [0, 2, SIZE[1], SIZE[0] - 2], "area": 1, "iscrowd": 0},
        ]
        annotations.append({"file_name": f"{name}.png", "segments_info": infos})
    categories = [{"id": 3, "name": "box", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}]
    _write_coco(root / "annotations" / "panoptic_train2017.json", images, annotations, categories)
    return {"kind": "coco", "root": str(root), "split": "train2017", "task": task}


def _outline(number: int) -> list[int]:
    left, right, top, bottom = _left(number), _left(number) + SIDE, 8, 8 + SIDE
    return [left, top, right, top, right, bottom, left, bottom]


def _write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{name}\n" for name in names))


def _write_coco(path: Path, images: list[str], annotations: list[dict[str, Any]], categories: list[dict]) -> None:
    """Writes a file with one annotation for each image."""
    numbered = [
        {"id": number, "image_id": number, "iscrowd": 0, **annotation}
        for number, annotation in enumerate(annotations, start=1)
    ]
    sizes = {"height": SIZE[0], "width": SIZE[1]}
    pictures = [{"id": number, "file_name": f"{name}.jpg", **sizes} for number, name in enumerate(images, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": pictures, "annotations": numbered, "categories": categories}))
