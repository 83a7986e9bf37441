# SPDX-License-Identifier: Apache-2.0
"""PASCAL-5i: segment classes that were left out of training, from their name or from one example (Shaban et al., 2017).

The 20 classes of VOC make four folds. Classes 5i+1 .. 5i+5 of fold i are unseen: they are tested on the pictures for
validation, and the other 15 are trained on. The rules for choosing pictures, classes and examples are those of PFENet
(Tian et al., 2020), on which CLIPSeg's one-shot figures stand, except that a seed fixes what is left to chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_seg_ros.data.labelled_pictures import check_choice
from clip_seg_ros.data.samples import IGNORED, DataError, ReferringSample
from clip_seg_ros.data.voc import Voc2012

FOLDS = range(4)
CLASSES_PER_FOLD = 5
MIN_AREA_PX = 2 * 32 * 32
"""What is smaller counts as too small to tell what it is."""
SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
"""Names of VOC that are no words, and the phrases for them."""


@dataclass(frozen=True)
class _Episode:
    """What one sample asks. Pictures are indices into the VOC data set."""

    picture: int
    number: int
    """The class, 1..20."""
    example: int | None
    """Another picture of the class."""


class Pascal5i:
    """One class of one picture a sample, with an example of the class from another picture.

    For validation a picture is asked for one of the unseen classes that it shows, drawn at random; for training it is
    asked for every seen class that it shows, one after another. Pictures count that show one of these classes on at
    least ``MIN_AREA_PX``; of those, smaller classes are asked for too, as in PFENet. An example always shows its class
    on at least ``MIN_AREA_PX``.

    The mask holds the class and nothing else: other classes, unseen ones in training too, count as background. The
    edges of objects, which VOC labels 255, are ignored, as the authors leave them out of loss and metric.

    Every label file is read once when the list is made, since only they say which classes a picture shows.
    """

    def __init__(self, root: Path, fold: int, split: str, seed: int = 0, one_shot: bool = True) -> None:
        """Lists the pictures that show a class of this split.

        Args:
            root: The folder ``VOCdevkit/VOC2012``.
            fold: 0..3.
            split: "val" for the unseen classes; "train", or "trainaug" with the labels of SBD, for the seen ones.
            seed: Decides which classes are asked for in validation, and which pictures are the examples.
            one_shot: Whether samples have a ``support``. It is None also for a class that no other picture shows.

        Raises:
            DataError: There is no such fold or split, files are missing, or no picture shows a class of this split.
        """
        check_choice("fold", fold, FOLDS)
        check_choice("split", split, ("train", "trainaug", "val"))
        self._voc = Voc2012(root, split, background=True)
        self._one_shot = one_shot
        unseen = range(CLASSES_PER_FOLD * fold + 1, CLASSES_PER_FOLD * (fold + 1) + 1)
        self.classes = tuple(number for number in range(1, 21) if (number in unseen) == (split == "val"))
        """The numbers in VOC, 1..20, of the classes of this split."""
        self._episodes = self._drawn(np.random.default_rng(seed), every_class=split != "val")
        if not self._episodes:
            raise DataError(f"no picture of the list {split}.txt in {root} shows a class of this split of fold {fold}")
        self.phrases = tuple(self._phrase(episode.number) for episode in self._episodes)
        """The phrase of each sample."""
        self.pictures = tuple(self._voc.names[episode.picture] for episode in self._episodes)
        """Which picture each sample is about."""

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads a picture and, for one-shot, the example.

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
        """Looks through all labels, then draws classes, unless ``every_class`` is asked for, and examples."""
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
