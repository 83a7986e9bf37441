# SPDX-License-Identifier: Apache-2.0
"""Reads PASCAL VOC 2012 segmentation, with the additional labels of SBD (Hariharan et al., 2011) if present."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.data.labelled_pictures import LabelledPictures, names_listed, paired, zero_ignored
from clip_seg_ros.resources import class_list

LAYOUT = (
    "The folder of VOC 2012 (VOCdevkit/VOC2012) holds JPEGImages/*.jpg, SegmentationClass/*.png and "
    "ImageSets/Segmentation/{train,val,trainval}.txt; the lists trainaug and aug also need SegmentationClassAug/*.png, "
    "the labels of SBD as PNG."
)


class Voc2012(LabelledPictures):
    """VOC 2012, with 1464 images for training, or 10582 with SBD, and 1449 images for validation.

    Label files store 0 for the background, 1..20 for the classes and 255 for the edges of objects, which are ignored.
    """

    def __init__(self, root: Path, split: str, background: bool = True) -> None:
        """Lists the files.

        Args:
            root: Path of the folder ``VOCdevkit/VOC2012``.
            split: Name of a list in ``ImageSets/Segmentation``: "train", "val", "trainval", "trainaug" or "aug". In the
                last two, VOC's own labels take precedence over those of SBD.
            background: Whether the background is a class, the first of 21; otherwise it is ignored and there are 20.

        Raises:
            DataError: The list does not exist, or a folder or a file is missing.
        """
        names = names_listed(root / "ImageSets" / "Segmentation" / f"{split}.txt", LAYOUT)
        label_folders = [root / "SegmentationClass"]
        if split in ("trainaug", "aug"):
            label_folders.append(root / "SegmentationClassAug")
        files = paired(names, root / "JPEGImages", label_folders, ".png", split, LAYOUT)
        things = class_list("voc20")
        if background:
            super().__init__(files, ("background", *things), {index: index for index in range(len(things) + 1)})
        else:
            super().__init__(files, things, zero_ignored(len(things)))
