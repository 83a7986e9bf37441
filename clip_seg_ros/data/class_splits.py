# SPDX-License-Identifier: Apache-2.0
"""Seen and unseen classes: the published splits, and data sets whose unseen classes are hidden or left out.

A zero-shot experiment trains without the labels of the unseen classes and measures seen and unseen classes apart. There
are two ways to train without them: to ignore their pixels (``hide``, as MaskCLIP+ does), and to leave out the images
that show them (``drop``, as the zero-shot experiments on PASCAL VOC do to which CLIPSeg compares).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clip_seg_ros.data.samples import IGNORED, DataError, SemanticDataset, SemanticSample
from clip_seg_ros.data.suggestions import did_you_mean
from clip_seg_ros.resources import class_list

VOC_PAIRS = (
    ("cow", "motorbike"),
    ("aeroplane", "sofa"),
    ("cat", "tvmonitor"),
    ("train", "bottle"),
    ("chair", "pottedplant"),
)
"""The classes of VOC in the order in which ZS3Net hides them, two after two (Bucher et al., "Zero-Shot Semantic
Segmentation", NeurIPS 2019). CLIPSeg's table of zero-shot segmentation has the first four and all ten."""
CONTEXT_PAIRS = (
    ("cow", "motorbike"),
    ("sofa", "cat"),
    ("boat", "fence"),
    ("bird", "tvmonitor"),
    ("keyboard", "aeroplane"),
)
"""The classes of PASCAL Context in ZS3Net's order; MaskCLIP+ hides all ten and sees the other 49."""
VOC_15_5 = ("pottedplant", "sheep", "sofa", "train", "tvmonitor")
"""The five unseen classes of VOC in SPNet (Xian et al., "Semantic Projection Network for Zero- and Few-Label Semantic
Segmentation", CVPR 2019), and in MaskCLIP+."""
COCO_STUFF_156_15 = (
    "cow",
    "giraffe",
    "suitcase",
    "frisbee",
    "skateboard",
    "carrot",
    "scissors",
    "cardboard",
    "clouds",
    "grass",
    "playingfield",
    "river",
    "road",
    "tree",
    "wall-concrete",
)
"""The 15 unseen classes of COCO-Stuff in SPNet, and in MaskCLIP+."""
FOLDS = range(4)


def pascal5i_classes(fold: int) -> tuple[str, ...]:
    """Returns the five unseen classes of VOC in a fold of PASCAL-5i, 0..3 (Shaban et al., 2017)."""
    return class_list("voc20")[5 * fold : 5 * fold + 5]


def coco_classes() -> tuple[str, ...]:
    """Returns the 80 things of COCO, with which the list of COCO-Stuff begins."""
    return class_list("coco_stuff171")[:80]


def coco20i_classes(fold: int) -> tuple[str, ...]:
    """Returns every fourth class of COCO, the unseen ones of a fold of COCO-20i, 0..3 (Nguyen and Todorovic, 2019)."""
    return coco_classes()[fold :: len(FOLDS)]


def _first_pairs(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    flat = [one for pair in pairs for one in pair]
    return {f"{name}_zs{count}": tuple(flat[:count]) for count in range(2, len(flat) + 1, 2)}


def unseen_splits() -> dict[str, tuple[str, ...]]:
    """Returns the unseen classes of every published split, by its name."""
    return {
        **_first_pairs("voc", VOC_PAIRS),
        "voc_15_5": VOC_15_5,
        **_first_pairs("context", CONTEXT_PAIRS),
        "coco_stuff_156_15": COCO_STUFF_156_15,
        **{f"pascal5i_{fold}": pascal5i_classes(fold) for fold in FOLDS},
        **{f"coco20i_{fold}": coco20i_classes(fold) for fold in FOLDS},
    }


def chosen_classes(asked: str | Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of classes: those of a split, if ``asked`` is its name, or those in ``asked``.

    Args:
        asked: The name of a split, the name of a class, or names of classes.
        class_names: The classes of the data set.

    Raises:
        DataError: A name is neither, or no class is chosen.
    """
    splits = unseen_splits()
    names = splits.get(asked, (asked,)) if isinstance(asked, str) else tuple(asked)
    for name in names:
        if name not in class_names:
            hint = did_you_mean(name, [*class_names, *splits])
            of_split = f" of the split {asked}" if asked in splits else ""
            raise DataError(
                f"{name}{of_split} is no class of the data set, whose classes are {', '.join(class_names)}; the splits "
                f"are {', '.join(splits)}{hint}"
            )
    if not names:
        raise DataError("no class is named: name some, or a split such as voc_15_5")
    return names


class NamedImages(SemanticDataset, Protocol):
    """A data set of labels that knows the names of its images, like all of this package."""

    names: Sequence[str]


class SplitClasses:
    """A data set some of whose classes are hidden, left out or unseen. Its list of classes stays whole."""

    def __init__(
        self,
        dataset: NamedImages,
        hide: Sequence[str] = (),
        drop: Sequence[str] = (),
        unseen: Sequence[str] = (),
    ) -> None:
        """Chooses the images.

        Args:
            dataset: The data set.
            hide: The classes whose pixels are ignored.
            drop: The classes whose images are left out. Every label file is read once to find them.
            unseen: The classes that are measured apart from the others.

        Raises:
            DataError: No image is left, or a label file cannot be read.
        """
        self._dataset = dataset
        self.class_names = dataset.class_names
        self.unseen = tuple(unseen)
        """The classes that are measured apart from the others."""
        self._shown = np.arange(IGNORED + 1, dtype=np.uint8)
        self._shown[self._numbers(hide)] = IGNORED
        self._indices: Sequence[int] = range(len(dataset))
        if drop:
            dropped = self._numbers(drop)
            self._indices = [index for index in self._indices if not np.isin(self._labels(index), dropped).any()]
            if not self._indices:
                raise DataError(f"every image shows one of {', '.join(drop)}, so that none is left")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(self._dataset.names[index] for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> SemanticSample:
        """Reads an image and its labels; raises what the data set raises."""
        sample = self._dataset[self._indices[index]]
        return SemanticSample(sample.rgb, self._shown[sample.labels], sample.name)

    def _numbers(self, names: Sequence[str]) -> list[int]:
        return [self.class_names.index(name) for name in names]

    def _labels(self, index: int) -> np.ndarray:
        """Returns the labels of an image, without the image where the data set can."""
        read = getattr(self._dataset, "labels", None)
        return read(index) if read else self._dataset[index].labels
