# SPDX-License-Identifier: Apache-2.0
"""Reads COCO-20i: segmentation of unseen classes of COCO from their name or from one example.

The 80 classes form four folds; every fourth class belongs to one of them (Nguyen and Todorovic, "Feature Weighting and
Boosting for Few-Shot Segmentation", ICCV 2019). The rules for choosing images, classes and examples are those of HSNet
(Min et al., 2021), whose code CLIPSeg's authors use, except that a seed fixes all random choices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_seg_ros.data.class_splits import FOLDS, coco20i_classes, coco_classes
from clip_seg_ros.data.coco import CocoPhrases, find_coco
from clip_seg_ros.data.labelled_pictures import check_choice
from clip_seg_ros.data.samples import DataError, ReferringSample, draw_another

EPISODES = 1000
"""The number of samples of the test."""


class Coco20i:
    """COCO-20i, in which a sample is one class in one image, with an example of the class from another image.

    For "val", there are ``episodes`` samples: first a class is drawn, then an image that shows it, so that all classes
    count alike. For "train", every class that an image shows is one sample. The mask is that of the class alone: other
    classes, including unseen ones in training, count as background.
    """

    def __init__(
        self,
        root: Path,
        fold: int,
        split: str,
        seed: int = 0,
        one_shot: bool = True,
        episodes: int = EPISODES,
        annotations: str | None = None,
    ) -> None:
        """Lists the images that show a class of this split.

        Args:
            root: Path of COCO's folder, with train2014/, val2014/ and annotations/instances_{train,val}2014.json.
            fold: Number of the fold, 0..3.
            split: Name of the split: "val" for the unseen classes in COCO's images for validation, or "train" for the
                seen ones in those for training.
            seed: Seed of the choice of classes, images and examples.
            one_shot: Whether samples have a ``support``, which is still ``None`` if no other image shows the class.
            episodes: Number of samples for "val".
            annotations: The JSON file, relative to ``root``, if it has another name.

        Raises:
            DataError: The fold or split does not exist, files are missing, or no image shows a class of this split.
        """
        check_choice("fold", fold, FOLDS)
        check_choice("split", split, ("train", "val"))
        if episodes < 1:
            raise DataError(f"episodes must be at least 1, got {episodes}")
        unseen = coco20i_classes(fold)
        self.classes = tuple(name for name in coco_classes() if (name in unseen) == (split == "val"))
        """The classes of this split."""
        coco = CocoPhrases(find_coco(root, f"{split}2014", annotations), self.classes)
        self._coco, self._one_shot = coco, one_shot
        rng = np.random.default_rng(seed)
        places: dict[str, list[int]] = {}
        for index, phrase in enumerate(coco.phrases):
            places.setdefault(phrase, []).append(index)
        queries = list(range(len(coco)))
        if split == "val":
            shown = [name for name in self.classes if name in places]
            drawn = [shown[int(rng.integers(len(shown)))] for _ in range(episodes)]
            queries = [places[name][int(rng.integers(len(places[name])))] for name in drawn]
        self._episodes = tuple((query, draw_another(query, places[coco.phrases[query]], rng)) for query in queries)
        self.phrases = tuple(coco.phrases[query] for query in queries)
        """The phrase of each sample."""
        self.pictures = tuple(coco.pictures[query] for query in queries)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads an image and, for one-shot, the example.

        Raises:
            DataError: A file cannot be read, or an outline is invalid.
        """
        query, example = self._episodes[index]
        sample = self._coco[query]
        if not self._one_shot or example is None:
            return sample
        shown = self._coco[example]
        return ReferringSample(sample.rgb, sample.phrase, sample.mask, sample.name, support=(shown.rgb, shown.mask))
