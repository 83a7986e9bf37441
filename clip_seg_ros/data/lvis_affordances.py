# SPDX-License-Identifier: Apache-2.0
"""What one can do with things: objects of LVIS that are asked for by a use, an ability or a part.

CLIPSeg's experiment on generalisation (section 5.5 of the paper): the name of an object's class is replaced by what it
affords, so that a chair is asked for as "sit on". LVIS is by Gupta et al. (CVPR 2019); its annotations are in COCO's
format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from clip_seg_ros.data.coco import CocoPhrases, find_coco
from clip_seg_ros.data.coco_annotations import CocoFile
from clip_seg_ros.data.labelled_pictures import check_choice
from clip_seg_ros.data.samples import DataError, ReferringSample

Group = Literal["affordances", "attributes", "parts"]
_SEATS = "armchair sofa loveseat deck_chair rocking_chair highchair folding_chair chair recliner wheelchair".split()
_BIRDS_AND_PETS = "eagle bird duck gull owl seabird pigeon goose parakeet dog cat flamingo penguin cow puppy".split()
_CARS = "minivan bus_(vehicle) cab_(taxi) jeep ambulance car_(automobile)".split()
GROUPS: dict[Group, dict[str, tuple[str, ...]]] = {
    "affordances": {
        "sit on": tuple(_SEATS),
        "drink from": ("bottle", "beer_bottle", "water_bottle", "wine_bottle", "thermos_bottle"),
        "ride on": ("horse", "pony", "motorcycle"),
    },
    "attributes": {
        "can fly": tuple(
            "eagle jet_plane airplane fighter_jet bird duck gull owl seabird pigeon goose parakeet".split()
        ),
        "can be driven": tuple(_CARS),
        "can swim": tuple("duck duckling water_scooter penguin boat kayak canoe".split()),
    },
    "parts": {
        "has wheels": (*_CARS, "dirt_bike", "wheelchair", "motorcycle", "bicycle"),
        "has legs": (
            *_SEATS,
            *_BIRDS_AND_PETS,
            *"horse pony sheep black_sheep ostrich ram_(animal) chicken_(animal) person".split(),
        ),
    },
}
"""The phrases of each group, and the classes of LVIS that they fit (appendix of the paper)."""
MIN_AREA = 0.03
"""The least share of the image that a class covers in a sample, as in the authors' code."""


class LvisAffordances:
    """A sample is one class in one image, with the mask of its objects and a phrase that fits the class.

    Where several phrases of the group fit, a seed chooses one. Other classes that the phrase fits count as background,
    as in the authors' code. They cut squares around the objects; here, images are whole.
    """

    def __init__(self, root: Path, split: str, group: Group, seed: int = 0, annotations: str | None = None) -> None:
        """Lists the images that show a class of the group.

        Args:
            root: Path of LVIS's folder, with lvis_v1_train.json, lvis_v1_val.json, train2017/ and val2017/.
            split: Name of the split, "train" or "val".
            group: Which phrases: what one does with things ("affordances"), what they can do ("attributes"), or what
                they have ("parts", the paper's meronymy).
            seed: Seed of the choice of phrases.
            annotations: The JSON file, relative to ``root``, if it has another name.

        Raises:
            DataError: The split does not exist, files are missing, or no image shows a class of the group.
        """
        check_choice("split", split, ("train", "val"))
        fitting: dict[str, list[str]] = {}
        for phrase, names in GROUPS[group].items():
            for name in names:
                fitting.setdefault(name, []).append(phrase)
        file = find_coco(root, split, annotations or f"lvis_v1_{split}.json")
        there = [category.name for category in file.categories if category.name in fitting]
        if not there:
            raise DataError(f"{file.path} has no class of the group {group}: is it LVIS?")
        shares = _shares(file)
        self._objects = CocoPhrases(file, there)
        pairs = zip(self._objects.pictures, self._objects.phrases)
        self._indices = [index for index, pair in enumerate(pairs) if shares[pair] > MIN_AREA]
        if not self._indices:
            raise DataError(f"no object of the group {group} in {file.path} covers {MIN_AREA:.0%} of its image")
        rng = np.random.default_rng(seed)
        fit = [fitting[self._objects.phrases[index]] for index in self._indices]
        self.phrases = tuple(phrases[int(rng.integers(len(phrases)))] for phrases in fit)
        """The phrase of each sample."""
        self.pictures = tuple(self._objects.pictures[index] for index in self._indices)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads an image and the mask of one class, named "val2017/000000000139/chair".

        Raises:
            DataError: A file cannot be read, or an outline is invalid.
        """
        sample = self._objects[self._indices[index]]
        return ReferringSample(sample.rgb, self.phrases[index], sample.mask, sample.name)


def _shares(file: CocoFile) -> dict[tuple[str, str], float]:
    """Returns the share of each image that each of its classes covers, by the areas in the file."""
    names = {category.number: category.name for category in file.categories}
    shares: dict[tuple[str, str], float] = {}
    for image in file.images:
        for thing in image.objects:
            height, width = image.measured()
            key = (image.name, names[thing.category])
            shares[key] = shares.get(key, 0.0) + (thing.area_px or 0.0) / (height * width)
    return shares
