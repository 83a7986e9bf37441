# SPDX-License-Identifier: Apache-2.0
"""Reads PASCAL-5i: segmentation of unseen classes from their name or from one example (Shaban et al., 2017).

The 20 classes of VOC form four folds. Classes 5i+1 .. 5i+5 of fold i are unseen: they are tested on the images for
validation; the other 15 are for training. The rules for choosing images, classes and examples are those of PFENet
(Tian et al., 2020), on which CLIPSeg's one-shot figures are based, except that a seed fixes all random choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_seg_ros.data.class_splits import FOLDS, pascal5i_classes
from clip_seg_ros.data.labelled_pictures import check_choice
from clip_seg_ros.data.samples import IGNORED, DataError, ReferringSample
from clip_seg_ros.data.voc import Voc2012

MIN_AREA_PX = 2 * 32 * 32
"""The least area of a class in an image, because smaller ones cannot be recognised."""
SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
"""The names of VOC that are not words, and the phrases for them."""


@dataclass(frozen=True)
class _Episode:
    """The choices of one sample. Images are indices into the VOC data set."""

    picture: int
    number: int
    """The number of the class, 1..20."""
    example: int | None
    """Another image of the class; ``None`` if there is none."""


class Pascal5i:
    """PASCAL-5i, in which a sample is one class in one image, with an example of the class from another image.

    For validation, an image has one sample, with a random one of the unseen classes in it; for training, it has one
    sample for every seen class in it. Only images in which one of these classes covers at least ``MIN_AREA_PX`` are
    used; smaller classes in them are used, too, as in PFENet. In an example, the class always covers at least
    ``MIN_AREA_PX``.

    The mask is that of the class alone: other classes, including unseen ones in training, count as background. The
    edges of objects, which VOC labels 255, are ignored, because the authors exclude them from loss and metric.

    Every label file is read once when the list is made, because only these files tell which classes an image shows.
    """

    def __init__(self, root: Path, fold: int, split: str, seed: int = 0, one_shot: bool = True) -> None:
        """Lists the images that show a class of this split.

        Args:
            root: Path of the folder ``VOCdevkit/VOC2012``.
            fold: Number of the fold, 0..3.
            split: Name of the split: "val" for the unseen classes; "train", or "trainaug" with the labels of SBD, for
                the seen ones.
            seed: Seed of the choice of classes in validation, and of the example images.
            one_shot: Whether samples have a ``support``, which is still ``None`` if no other image shows the class.

        Raises:
            DataError: The fold or split does not exist, files are missing, or no image shows a class of this split.
        """
        check_choice("fold", fold, FOLDS)
        check_choice("split", split, ("train", "trainaug", "val"))
        self._voc = Voc2012(root, split, background=True)
        self._one_shot = one_shot
        unseen, names = pascal5i_classes(fold), self._voc.class_names
        self.classes = tuple(n for n in range(1, len(names)) if (names[n] in unseen) == (split == "val"))
        """The numbers in VOC of the classes of this split, 1..20."""
        self._episodes = self._drawn(np.random.default_rng(seed), every_class=split != "val")
        if not self._episodes:
            raise DataError(f"no picture of the list {split}.txt in {root} shows a class of this split of fold {fold}")
        self.phrases = tuple(self._phrase(episode.number) for episode in self._episodes)
        """The phrase of each sample."""
        self.pictures = tuple(self._voc.names[episode.picture] for episode in self._episodes)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads an image and, for one-shot, the example.

        Raises:
            DataError: A file cannot be read.
        """
        episode = self._episodes[index]
        sample = self._voc[episode.picture]
        support = None
        if self._one_shot and episode.example is not None:
            example = self._voc[episode.example]
            support = (example.rgb, example.labels == episode.number)
        return ReferringSample(
            rgb=sample.rgb,
            phrase=self.phrases[index],
            mask=sample.labels == episode.number,
            name=f"{sample.name}/{self._voc.class_names[episode.number]}",
            support=support,
            ignored=sample.labels == IGNORED,
        )

    def _phrase(self, number: int) -> str:
        class_name = self._voc.class_names[number]
        return SPOKEN.get(class_name, class_name)

    def _drawn(self, rng: np.random.Generator, every_class: bool) -> tuple[_Episode, ...]:
        """Reads all labels, then draws classes, unless ``every_class`` is used, and examples."""
        shown: dict[int, list[int]] = {}
        examples: dict[int, list[int]] = {number: [] for number in self.classes}
        for picture in range(len(self._voc)):
            areas_px = np.bincount(self._voc.labels(picture).ravel(), minlength=256)
            large = [number for number in self.classes if areas_px[number] >= MIN_AREA_PX]
            for number in large:
                examples[number].append(picture)
            if large:
                shown[picture] = [number for number in self.classes if areas_px[number]]
        episodes = []
        for picture, numbers in shown.items():
            for number in numbers if every_class else [numbers[int(rng.integers(len(numbers)))]]:
                others = [other for other in examples[number] if other != picture]
                episodes.append(_Episode(picture, number, others[int(rng.integers(len(others)))] if others else None))
        return tuple(episodes)
