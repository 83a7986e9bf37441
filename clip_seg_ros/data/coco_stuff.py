# SPDX-License-Identifier: Apache-2.0
"""Reads COCO-Stuff (Caesar et al., 2018), with 80 things of COCO and 91 kinds of stuff, in both of its sizes.

The large set has all images of 2017; the small one has the first 10000. COCO numbers its classes 1..182 and never
labels 11 of them, so that 171 remain. The published PNG files of the large set store the number minus 1. There are thus
two numberings: 0..181 with gaps, and "train ids" without gaps, to which MMSegmentation converts the files.
"""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.data.labelled_pictures import (
    LabelledPictures,
    check_choice,
    names_in,
    paired,
    zero_ignored,
)
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.resources import class_list

TRAIN_IDS = "_labelTrainIds.png"
"""The ending of the names of converted label files."""
NEVER_LABELLED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""The numbers, from 1, of the classes without labels: street sign, hat, shoe, eye glasses, plate, mirror, window, desk,
door, blender, hair brush."""
LAYOUT_164K = (
    "The folder of COCO-Stuff 164k holds images/{train2017,val2017}/*.jpg and annotations/{train2017,val2017}/*.png, "
    "the published stuffthingmaps or MMSegmentation's *_labelTrainIds.png."
)
LAYOUT_10K = (
    "The folder of COCO-Stuff 10k holds images/{train2014,test2014}/*.jpg and "
    "annotations/{train2014,test2014}/*_labelTrainIds.png, as MMSegmentation's "
    "tools/dataset_converters/coco_stuff10k.py writes them from the published annotations/*.mat, which this reader "
    "does not take."
)


class CocoStuff164k(LabelledPictures):
    """The large set, with 118287 images for training and 5000 for validation.

    Label files store 255 for pixels without a label.
    """

    def __init__(self, root: Path, split: str) -> None:
        """Lists the files. The published labels are used if both forms exist.

        Args:
            root: Path of the folder with ``images`` and ``annotations``.
            split: Name of the split, "train2017" or "val2017".

        Raises:
            DataError: The split does not exist, or a folder or a file is missing.
        """
        check_choice("split", split, ("train2017", "val2017"))
        pictures, labels = root / "images" / split, root / "annotations" / split
        names = names_in(pictures, ".jpg", LAYOUT_164K)
        class_names = class_list("coco_stuff171")
        published = any(not name.endswith("_labelTrainIds") for name in names_in(labels, ".png", LAYOUT_164K))
        if published:
            numbers = {number - 1: index for index, number in enumerate(_labelled_numbers())}
        else:
            numbers = {index: index for index in range(len(class_names))}
        files = paired(names, pictures, [labels], ".png" if published else TRAIN_IDS, split, LAYOUT_164K)
        super().__init__(files, class_names, numbers)


class CocoStuff10k(LabelledPictures):
    """The small set, with 9000 images for training and 1000 for testing.

    Label files store 0 for pixels without a label, and 1..171 for the classes.
    """

    def __init__(self, root: Path, split: str) -> None:
        """Lists the files.

        Args:
            root: Path of the folder with ``images`` and ``annotations``.
            split: Name of the split, "train" or "test".

        Raises:
            DataError: The split does not exist, a folder or a file is missing, or the labels are MATLAB files.
        """
        check_choice("split", split, ("train", "test"))
        pictures, labels = root / "images" / f"{split}2014", root / "annotations" / f"{split}2014"
        if not labels.is_dir() and any((root / "annotations").glob("*.mat")):
            raise DataError(f"{root / 'annotations'} holds MATLAB files (*.mat): convert them first. {LAYOUT_10K}")
        names = names_in(pictures, ".jpg", LAYOUT_10K)
        files = paired(names, pictures, [labels], TRAIN_IDS, split, LAYOUT_10K)
        class_names = class_list("coco_stuff171")
        super().__init__(files, class_names, zero_ignored(len(class_names)))


def _labelled_numbers() -> list[int]:
    """Returns COCO's numbers, from 1, of the 171 classes in order."""
    return [number for number in range(1, 183) if number not in NEVER_LABELLED]
