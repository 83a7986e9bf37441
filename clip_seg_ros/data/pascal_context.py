# SPDX-License-Identifier: Apache-2.0
"""Reads PASCAL Context: the images of VOC 2010 with a class for every pixel, of 59 classes (Mottaghi et al., 2014)."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.data.labelled_pictures import LabelledPictures, names_listed, paired, zero_ignored
from clip_seg_ros.resources import class_list

LAYOUT = (
    "The folder of PASCAL Context (VOCdevkit/VOC2010) holds JPEGImages/*.jpg and, as MMSegmentation's "
    "tools/dataset_converters/pascal_context.py writes them, SegmentationClassContext/*.png and "
    "ImageSets/SegmentationContext/{train,val}.txt."
)


class PascalContext(LabelledPictures):
    """PASCAL Context, with 4996 images for training and 5104 for validation.

    Label files store 1..59 for the 59 most frequent classes in alphabetical order, and 0 for everything else.
    """

    def __init__(self, root: Path, split: str, background: bool = False) -> None:
        """Lists the files.

        Args:
            root: Path of the folder ``VOCdevkit/VOC2010``.
            split: Name of a list in ``ImageSets/SegmentationContext``: "train" or "val".
            background: Whether 0 is a class, the first of 60; otherwise it is ignored and there are 59.

        Raises:
            DataError: The list does not exist, or a folder or a file is missing.
        """
        names = names_listed(root / "ImageSets" / "SegmentationContext" / f"{split}.txt", LAYOUT)
        files = paired(names, root / "JPEGImages", [root / "SegmentationClassContext"], ".png", split, LAYOUT)
        classes = class_list("pascal_context59")
        if background:
            super().__init__(files, ("background", *classes), {index: index for index in range(len(classes) + 1)})
        else:
            super().__init__(files, classes, zero_ignored(len(classes)))
