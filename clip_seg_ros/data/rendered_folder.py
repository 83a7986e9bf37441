# SPDX-License-Identifier: Apache-2.0
"""Writes rendered images with what they show, as an example of a user's own images.

    my_data/
      images/0000.jpg
      phrases.csv, masks/                   phrases with masks: ``kind: folder``
      classes.txt, labels/                  a class for every pixel: ``kind: labelled_folder``
      annotations/instances_default.json    objects: ``kind: coco``

Workshop objects stand between objects that the embedded weights know. Only the workshop objects have phrases: each kind
alone, each kind with its colour, and one kind that is absent from the image. Where things of the table are named, one
more phrase names a colour and a kind that are both there, but not together.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from clip_seg_ros.data.coco_masks import encode_runs
from clip_seg_ros.data.folder import COLUMNS, TABLE
from clip_seg_ros.data.rendered_instances import instance_sample
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.data.tabletop import FIRST_UNLABELLED_SEED, TEST_SEEDS, class_map
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import KINDS, WORKSHOP_KINDS, sample_scene
from clip_seg_ros.sim.surfaces import SURFACES

Things = Literal["workshop", "table"]
THINGS: dict[Things, tuple[str, ...]] = {"workshop": WORKSHOP_KINDS, "table": KINDS}
"""The kinds of objects that have phrases: those that are new to the embedded weights, or those that they know."""
_KINDS: dict[Things, tuple[str, ...]] = {"workshop": (*WORKSHOP_KINDS, *KINDS), "table": KINDS}
"""All kinds of objects in the images, which are the classes of pixels and objects."""
_SEEDS: dict[tuple[Things, bool], int] = {
    ("workshop", False): 0,
    ("workshop", True): TEST_SEEDS.start,
    ("table", False): FIRST_UNLABELLED_SEED,
    ("table", True): TEST_SEEDS.start,
}
_MIN_SHARE = 0.002
"""Objects that cover a smaller share of the image get no phrase."""


def write_rendered_folder(
    root: Path, pictures: int, things: Things = "workshop", held_out: bool = False, size: tuple[int, int] = (640, 480)
) -> Iterator[int]:
    """Renders the data set and yields the number of images that are written, beginning with 0.

    Args:
        root: The folder, which is created if necessary; it must be empty.
        pictures: The number of images.
        things: The kinds of objects that have phrases, a key of ``THINGS``. Images for "table" have no other objects.
        held_out: Whether to draw other scenes with other shapes, for measurements.
        size: (width, height) in pixels.

    Raises:
        DataError: The folder is not empty.
        RendererUnavailable: Nothing can be rendered without a screen.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} holds something already: name a folder that is new or empty")
    for name in ("images", "masks", "labels", "annotations"):
        (root / name).mkdir(parents=True, exist_ok=True)
    yield 0
    rows: list[tuple[str, str, str]] = []
    objects = _Objects(_KINDS[things])
    first = _SEEDS[things, held_out]
    with SceneRenderer(*size) as renderer:
        for number in range(pictures):
            scene = sample_scene(first + number, workshop=things == "workshop")
            view, name = renderer.render(scene, depth=False), f"{number:04d}"
            rows += _write_picture(root, name, view, THINGS[things])
            Image.fromarray(class_map(scene, view.labels, _KINDS[things])).save(root / "labels" / f"{name}.png")
            objects.add(view, f"{name}.jpg")
            yield number + 1
    # The lists are written last, so that an incomplete folder is not taken for a data set.
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in (*_KINDS[things], *SURFACES)), encoding="utf-8")
    (root / "annotations" / "instances_default.json").write_text(json.dumps(objects.content()), encoding="utf-8")
    with (root / TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _write_picture(root: Path, name: str, view: RenderedView, kinds: tuple[str, ...]) -> list[tuple[str, str, str]]:
    image = f"images/{name}.jpg"
    Image.fromarray(view.rgb).save(root / image, quality=92)
    there = sorted({(item.color, item.kind) for item in view.objects if item.kind in kinds})
    named = [(None, kind) for kind in kinds if any(kind == other for _, other in there)]
    rows = []
    for color, kind in (*named, *there):
        mask = view.mask_of(color, kind)
        if mask.mean() >= _MIN_SHARE:
            phrase = f"{color} {kind}" if color else kind
            path = f"masks/{name}_{phrase.replace(' ', '_')}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / path)
            rows.append((image, path, phrase))
    absent = [kind for kind in kinds if all(kind != other for _, other in there)]
    if absent:
        rows.append((image, "", absent[int(name) % len(absent)]))
    if kinds == THINGS["table"]:
        colors = sorted({color for color, _ in there})
        apart = [f"{color} {kind}" for color in colors for _, kind in named if (color, kind) not in there]
        rows += [(image, "", apart[int(name) % len(apart)])] if apart else []
    return rows


@dataclass
class _Objects:
    """The objects of all images, for a file in COCO's format."""

    kinds: Sequence[str]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, view: RenderedView, file_name: str) -> None:
        """Adds an image. Objects of which hardly anything is visible are marked as ``iscrowd`` and do not count."""
        height, width = view.labels.shape
        image = {"id": len(self.images) + 1, "file_name": file_name, "width": width, "height": height}
        self.images.append(image)
        found = instance_sample(view.rgb, view.labels, [item.kind for item in view.objects], file_name, self.kinds)
        for label, mask, box, area, crowd in zip(
            found.labels.tolist(),
            found.masks,
            found.boxes_px.tolist(),
            found.areas_px.tolist(),
            found.crowd.tolist(),
            strict=True,
        ):
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image["id"],
                    "category_id": label + 1,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": area,
                    "iscrowd": int(crowd),
                    "segmentation": encode_runs(mask),
                }
            )

    def content(self) -> dict[str, Any]:
        """Returns the content of the file."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self.kinds, start=1)]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}
