# SPDX-License-Identifier: Apache-2.0
"""Sources of images without labels: a folder of files, a data set, rendered scenes, or a camera's topic in a ROS bag.

Bags are read by the package ``rosbags``, which needs no ROS. An image is decoded only when it is read, so that a long
bag is never in memory and skipped images cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from clip_seg_ros.data.samples import (
    PICTURE_SUFFIXES,
    DataError,
    InstanceDataset,
    ReferringDataset,
    SemanticDataset,
    read_rgb,
    refuse_video,
)
from clip_seg_ros.data.tabletop import FIRST_UNLABELLED_SEED, held_out_scene
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sources.bags import IMAGE_TYPES, open_bag, rgb_of


@dataclass(frozen=True)
class Picture:
    """An image that can be read."""

    name: str
    """Its name in the source, the same at every reading: a path in the folder, or a topic and a time."""
    read: Callable[[], np.ndarray]
    """Returns (H, W, 3) uint8 RGB; raises DataError if the image cannot be decoded."""


class PictureSource(Protocol):
    """Yields images, in the same order at every iteration."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Picture]: ...

    def identity(self) -> str:
        """Returns a line that identifies the images; another line means other images."""


class FolderPictures:
    """The images in a folder and its subfolders, sorted by name, without hidden files and folders.

    Args:
        folder: The folder, which is searched once, by the constructor.

    Raises:
        DataError: There is no such folder, or no image in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            refuse_video(folder)
            raise DataError(f"there is no folder {folder}")
        self._folder = folder
        found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        self._names = sorted(
            path.as_posix()
            for path in found
            if not any(part.startswith(".") for part in path.parts) and (folder / path).is_file()
        )
        if not self._names:
            refuse_video(folder)
            raise DataError(f"{folder} holds no pictures: looked in it and below for {', '.join(PICTURE_SUFFIXES)}")

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Picture]:
        for name in self._names:
            yield Picture(name, partial(read_rgb, self._folder / name))

    def identity(self) -> str:
        sizes = [f"{name} {(self._folder / name).stat().st_size}" for name in self._names]
        return f"folder of {len(sizes)}: {'; '.join(sizes)}"


class DatasetPictures:
    """The images of a data set, each once; its masks and labels are not used.

    Args:
        dataset: A data set of this package, which knows the names of its images without reading them.
    """

    def __init__(self, dataset: ReferringDataset | SemanticDataset | InstanceDataset) -> None:
        # Samples of one image share its name in "pictures"; elsewhere each image is one sample.
        names: Sequence[str] = getattr(dataset, "pictures", None) or getattr(dataset, "names", ())
        self._dataset = dataset
        self._first = {name: index for index, name in reversed(list(enumerate(names)))}

    def __len__(self) -> int:
        return len(self._first)

    def __iter__(self) -> Iterator[Picture]:
        for name in sorted(self._first, key=self._first.__getitem__):
            yield Picture(name, partial(self._read, self._first[name]))

    def identity(self) -> str:
        return f"data set of {len(self._first)}: {'; '.join(sorted(self._first))}"

    def _read(self, index: int) -> np.ndarray:
        return self._dataset[index].rgb


class ScenePictures:
    """Rendered scenes of 640x480 pixels without their labels, for trials without other images.

    Every second group of ``SCENES_PER_SHAPE_SET`` is drawn, in part, from beyond the ranges of training, because a
    teacher has not seen a user's own scenes either.

    Args:
        count: The number of scenes, from ``FIRST_UNLABELLED_SEED`` upwards.
    """

    def __init__(self, count: int) -> None:
        self._seeds = range(FIRST_UNLABELLED_SEED, FIRST_UNLABELLED_SEED + count)

    def __len__(self) -> int:
        return len(self._seeds)

    def __iter__(self) -> Iterator[Picture]:
        """Yields images, each to be read before the next one. Raises RendererUnavailable if nothing can be rendered."""
        with SceneRenderer() as renderer:
            for seed in self._seeds:
                yield Picture(f"scene {seed}", partial(self._draw, renderer, seed))

    def identity(self) -> str:
        return f"{len(self._seeds)} rendered scenes from seed {FIRST_UNLABELLED_SEED}"

    @staticmethod
    def _draw(renderer: SceneRenderer, seed: int) -> np.ndarray:
        return renderer.render(held_out_scene(seed), depth=False).rgb


class BagPictures:
    """The images of a camera in a bag of ROS 2 (sqlite3 or MCAP) or ROS 1, in the order of their recording.

    Args:
        bag: The folder with ``metadata.yaml``, a single ``.db3`` or ``.mcap`` file, or a ``.bag`` file.
        topic: A topic of sensor_msgs/Image or CompressedImage; it may be omitted if the bag has only one.
        every: Takes one of so many images, because neighbouring images of a camera hardly differ.

    Raises:
        DataError: There is no such bag, it cannot be read, or the topic is not clear; the message lists the topics of
            the bag.
        ValueError: ``every`` is below 1.
    """

    def __init__(self, bag: Path, topic: str | None = None, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self._bag, self._every = bag, every
        with open_bag(bag) as opened:
            counts: dict[str, int] = {}
            for each in opened.topics:
                if each.kind in IMAGE_TYPES:
                    counts[each.name] = counts.get(each.name, 0) + (each.count or 0)
            self._span = "{} to {}".format(*opened.span_ns)
        self.topic = _chosen(bag, counts, topic)
        self._messages = counts[self.topic]
        if not self._messages:
            raise DataError(f"{bag} holds the topic {self.topic}, but not one picture on it")

    def __len__(self) -> int:
        return (self._messages + self._every - 1) // self._every

    def __iter__(self) -> Iterator[Picture]:
        with open_bag(self._bag) as bag:
            messages = (each for each in bag.messages({self.topic}) if each.kind in IMAGE_TYPES)
            for index, message in enumerate(messages):
                if index % self._every == 0:
                    name = f"{self.topic} {message.logged_ns}"
                    yield Picture(name, partial(rgb_of, message, name))

    def identity(self) -> str:
        return f"bag, {self._span}: {self.topic}, {self._messages} messages, 1 of {self._every}"


def _chosen(bag: Path, counts: dict[str, int], topic: str | None) -> str:
    listed = ", ".join(f"{name} ({count} pictures)" for name, count in sorted(counts.items()))
    if not counts:
        raise DataError(f"{bag} holds no topic of {' or '.join(IMAGE_TYPES)}")
    if topic is None and len(counts) > 1:
        raise DataError(f"{bag} holds several topics of images, name one of them: {listed}")
    if topic is not None and topic not in counts:
        raise DataError(f"{bag} holds no images on {topic}; it holds {listed}")
    return topic or next(iter(counts))
