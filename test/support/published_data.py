# SPDX-License-Identifier: Apache-2.0
"""Small data sets with phrases in the layouts in which they are published: a bright square in each of four pictures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT, COUNT = 64, 48, 4
_IDS = tuple(range(1, COUNT + 1))


def _corners(number: int) -> tuple[int, int, int, int]:
    left = 4 + 8 * number
    return left, 10, left + 24, 34


def _write_picture(path: Path, number: int) -> None:
    left, top, right, bottom = _corners(number)
    bgr = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    bgr[top:bottom, left:right] = (0, 0, 230)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), bgr)


def write_phrasecut(root: Path) -> dict[str, Any]:
    """VGPhraseCut_v0 with its training split."""
    tasks, sizes = [], []
    for number in _IDS:
        left, top, right, bottom = _corners(number)
        polygon = [[left, top], [right, top], [right, bottom], [left, bottom]]
        tasks.append(
            {
                "task_id": f"{number}__0",
                "image_id": number,
                "ann_ids": [number],
                "instance_boxes": [[left, top, right - left, bottom - top]],
                "Polygons": [[polygon]],
                "phrase": ("red square", "bright thing")[number % 2],
            }
        )
        sizes.append({"image_id": number, "width": WIDTH, "height": HEIGHT, "split": "train"})
        _write_picture(root / "images" / f"{number}.jpg", number)
    (root / "refer_train.json").write_text(json.dumps(tasks))
    (root / "image_data_split.json").write_text(json.dumps(sizes))
    return {"kind": "phrasecut", "root": str(root), "split": "train"}


def write_refcoco(root: Path) -> dict[str, Any]:
    """RefCOCO of the refer toolkit, with two sentences for each object: three objects to train on, and one of val."""
    refs, annotations, images = [], [], []
    for number in _IDS:
        left, top, right, bottom = _corners(number)
        texts = ("the red square", "square at the bottom")
        refs.append(
            {
                "ref_id": number,
                "ann_id": number,
                "image_id": number,
                "split": "val" if number == COUNT else "train",
                "sentences": [{"sent_id": 10 * number + n, "sent": text} for n, text in enumerate(texts)],
            }
        )
        polygon = [left, top, right, top, right, bottom, left, bottom]
        annotations.append({"id": number, "image_id": number, "segmentation": [polygon], "iscrowd": 0})
        images.append({"id": number, "width": WIDTH, "height": HEIGHT})
        _write_picture(root / "images" / "train2014" / f"COCO_train2014_{number:012d}.jpg", number)
    (root / "refcoco").mkdir()
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / "refcoco" / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return {"kind": "refcoco", "root": str(root), "name": "refcoco", "split": "train"}
