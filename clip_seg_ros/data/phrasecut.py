# SPDX-License-Identifier: Apache-2.0
"""Reads VGPhraseCut as published: phrases about regions of Visual Genome's images (Wu et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from clip_seg_ros.data.coco_masks import read_json
from clip_seg_ros.data.removed_phrases import removal
from clip_seg_ros.data.samples import DataError, ReferringSample, draw_another, read_rgb

SPLITS = ("train", "val", "test", "miniv")
MISMATCHED_IMAGES = frozenset(
    (
        61530,
        61564,
        150333,
        150344,
        150417,
        150516,
        285665,
        285743,
        285761,
        285814,
        286065,
        286093,
        498010,
        498042,
        498187,
        498246,
        498269,
    )
)
"""The images whose size differs from their annotations; CLIPSeg's authors leave them out as well."""
_ADVICE = (
    "the data set's folder is VGPhraseCut_v0 with image_data_split.json, refer_train.json, refer_val.json, "
    "refer_test.json, refer_miniv.json and images/<image id>.jpg, as PhraseCutDataset's downloader makes it"
)


@dataclass(frozen=True, slots=True)
class _Task:
    """One phrase of an image. Points are packed, because a few hundred thousand phrases are in memory."""

    task_id: str
    image_id: int
    phrase: str
    points: np.ndarray
    """The corners of all polygons one after another, (N, 2) int32 x, y in pixels."""
    lengths: tuple[int, ...]
    """The number of points of each polygon."""
    boxed: bool
    """Whether the bounding boxes of the phrase have an area."""

    @classmethod
    def from_json(cls, entry: dict) -> _Task:
        # The instances of a phrase form one mask; their polygons are therefore in one list.
        polygons = [polygon for instance in entry["Polygons"] for polygon in instance]
        points = [point for polygon in polygons for point in polygon]
        return cls(
            task_id=entry["task_id"],
            image_id=int(entry["image_id"]),
            phrase=entry["phrase"],
            # Points are truncated to whole pixels, as the data set's own tools do before they fill polygons.
            points=np.array(points, np.float64).reshape(-1, 2).astype(np.int32),
            lengths=tuple(len(polygon) for polygon in polygons),
            boxed=sum(box[2] * box[3] for box in entry["instance_boxes"]) > 0,
        )

    def mask(self, height: int, width: int) -> np.ndarray:
        canvas = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(canvas)
        for polygon in np.split(self.points, np.cumsum(self.lengths)[:-1]):
            if len(polygon) > 1:
                draw.polygon(polygon.ravel().tolist(), fill=1, outline=1)
        return np.array(canvas, dtype=bool)


class PhraseCut:
    """One split of VGPhraseCut, with one sample per phrase, in the order of its file.

    As in CLIPSeg's code, images whose size is not the annotated one and phrases whose boxes have no area are left out.
    Masks are those of the data set's own tools: every pixel inside or on an outline. CLIPSeg's code only includes
    pixels whose centre is inside, so that its masks are up to a pixel smaller along slanted edges.
    """

    def __init__(
        self, root: Path, split: str, remove: str | None = None, examples: bool = False, seed: int = 0
    ) -> None:
        """Indexes the annotations.

        Args:
            root: Path of the folder VGPhraseCut_v0.
            split: Name of the split: "train", "val", "test" or "miniv" (20 images of the validation split).
            remove: Name of what training must not see, such as "pascal5i_0", "voc_zs4" or "affordances": phrases that
                name it are left out. See ``removed_phrases``.
            examples: Whether each sample has a ``support``: another sample of the same phrase. Phrases that occur once
                are then left out, as in the authors' tests of visual prompts.
            seed: Seed of the choice of examples.

        Raises:
            DataError: The split does not exist, a file or the folder of images is missing, a file is broken, or
                ``remove`` is unknown or needs WordNet, which is missing.
        """
        if split not in SPLITS:
            raise DataError(f"PhraseCut has no split {split!r}, only {', '.join(SPLITS)}")
        root = Path(root)
        self.split = split
        self._images = root / "images"
        tasks = _read_tasks(root / f"refer_{split}.json")
        if not self._images.is_dir():
            raise DataError(f"{self._images} is missing: {_ADVICE}")
        self._tasks = [task for task in tasks if task.boxed and task.image_id not in MISMATCHED_IMAGES]
        if remove is not None:
            removed = removal(remove)
            self._tasks = [task for task in self._tasks if not removed(task.phrase)]
        self._sizes = _read_sizes(root / "image_data_split.json", {task.image_id for task in self._tasks})
        self._examples = self._drawn(np.random.default_rng(seed)) if examples else None
        self.phrases = tuple(task.phrase for task in self._tasks)
        """The phrase of each sample."""
        self.pictures = tuple(str(task.image_id) for task in self._tasks)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads a sample.

        Raises:
            DataError: The image is missing or unreadable, or its size differs from the annotations.
        """
        sample = self._read(self._tasks[index])
        if self._examples is None:
            return sample
        shown = self._read(self._examples[index])
        return replace(sample, support=(shown.rgb, shown.mask))

    def _drawn(self, rng: np.random.Generator) -> list[_Task]:
        """Leaves out phrases that occur once, and draws an example for each of the others."""
        alike: dict[str, list[int]] = {}
        for number, task in enumerate(self._tasks):
            alike.setdefault(task.phrase, []).append(number)
        drawn = {number: draw_another(number, alike[task.phrase], rng) for number, task in enumerate(self._tasks)}
        pairs = [(self._tasks[number], self._tasks[other]) for number, other in drawn.items() if other is not None]
        self._tasks = [task for task, _ in pairs]
        return [example for _, example in pairs]

    def _read(self, task: _Task) -> ReferringSample:
        path = self._images / f"{task.image_id}.jpg"
        if not path.is_file():
            raise DataError(f"{path} is missing: download the pictures of the split {self.split} too; {_ADVICE}")
        rgb = read_rgb(path)
        height, width = self._sizes[task.image_id]
        if rgb.shape[:2] != (height, width):
            raise DataError(
                f"{path} is {rgb.shape[1]} x {rgb.shape[0]} pixels and {width} x {height} in image_data_split.json: "
                "use the pictures of Visual Genome 1.2 at their own size"
            )
        return ReferringSample(rgb, task.phrase, task.mask(height, width), f"{self.split}/{task.task_id}")


def _read_tasks(path: Path) -> list[_Task]:
    def shrink(entry: dict) -> dict | _Task:
        return _Task.from_json(entry) if "Polygons" in entry else entry

    try:
        tasks = read_json(path, _ADVICE, shrink)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"an entry of {path} is not as published: {error!r}; {_ADVICE}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, _Task) for task in tasks):
        raise DataError(f"{path} is no list of phrases with Polygons: {_ADVICE}")
    return tasks


def _read_sizes(path: Path, wanted: set[int]) -> dict[int, tuple[int, int]]:
    """Reads the (height, width) of the ``wanted`` images from image_data_split.json."""
    try:
        rows = read_json(path, _ADVICE)
        sizes = {row["image_id"]: (row["height"], row["width"]) for row in rows if row["image_id"] in wanted}
    except (KeyError, TypeError) as error:
        raise DataError(f"an entry of {path} is not as published: {error!r}; {_ADVICE}") from error
    if unknown := wanted - sizes.keys():
        raise DataError(f"{path} does not list picture {min(unknown)}: {_ADVICE}")
    return sizes
