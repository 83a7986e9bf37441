# SPDX-License-Identifier: Apache-2.0
"""Writes rendered images, masks and phrases as a ``folder`` data set: an example of a user's own images.

Workshop objects stand between objects that the embedded weights know. Only the workshop objects have phrases: each kind
alone, each kind with its colour, and one kind that is absent from the image.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from clip_seg_ros.data.folder import COLUMNS, TABLE
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.data.tabletop import FIRST_UNLABELLED_SEED, TEST_SEEDS
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import KINDS, WORKSHOP_KINDS, sample_scene

Things = Literal["workshop", "table"]
THINGS: dict[Things, tuple[str, ...]] = {"workshop": WORKSHOP_KINDS, "table": KINDS}
"""The kinds of objects that have phrases: those that are new to the embedded weights, or those that they know."""
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
    """Renders a ``folder`` data set and yields the number of images that are written, beginning with 0.

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
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    yield 0
    rows: list[tuple[str, str, str]] = []
    first = _SEEDS[things, held_out]
    with SceneRenderer(*size) as renderer:
        for number in range(pictures):
            scene = sample_scene(first + number, workshop=things == "workshop")
            rows += _write_picture(root, f"{number:04d}", renderer.render(scene, depth=False), THINGS[things])
            yield number + 1
    # The table is written last, so that an incomplete folder is not taken for a data set.
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
    return rows
