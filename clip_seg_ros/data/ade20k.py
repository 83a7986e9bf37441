# SPDX-License-Identifier: Apache-2.0
"""Reads ADE20K of the scene parsing challenge of 2016: 150 classes of things and stuff (Zhou et al., 2017)."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.data.labelled_pictures import (
    LabelledPictures,
    check_choice,
    names_in,
    paired,
    zero_ignored,
)
from clip_seg_ros.resources import class_list

SPLITS = ("training", "validation")
LAYOUT = (
    "The folder of ADE20K (ADEChallengeData2016) holds images/{training,validation}/*.jpg and "
    "annotations/{training,validation}/*.png."
)


class Ade20k(LabelledPictures):
    """ADE20K, with 20210 images for training and 2000 for validation.

    Label files store 0 for pixels of no class, and 1..150 for the classes.
    """

    def __init__(self, root: Path, split: str) -> None:
        """Lists the files.

        Args:
            root: Path of the folder ``ADEChallengeData2016``.
            split: Name of the split, "training" or "validation".

        Raises:
            DataError: The split does not exist, or a folder or a file is missing.
        """
        check_choice("split", split, SPLITS)
        pictures = root / "images" / split
        names = names_in(pictures, ".jpg", LAYOUT)
        files = paired(names, pictures, [root / "annotations" / split], ".png", split, LAYOUT)
        class_names = class_list("ade20k")
        super().__init__(files, class_names, zero_ignored(len(class_names)))
