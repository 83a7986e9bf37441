# SPDX-License-Identifier: Apache-2.0
"""Reads RefCOCO, RefCOCO+ and G-Ref, sentences about objects in COCO's images, as the refer toolkit publishes them.

RefCOCO and RefCOCO+ are by Yu et al. (ECCV 2016). G-Ref (RefCOCOg) is by Mao et al. (CVPR 2016), with another split by
Nagaraja et al. (ECCV 2016). The files are read directly; no LMDB or other copy is made of them.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from clip_seg_ros.data.coco_masks import decode_segmentation, packed, read_json
from clip_seg_ros.data.samples import DataError, ReferringSample, read_rgb

SPLITS = {
    ("refcoco", "unc"): ("train", "val", "testA", "testB"),
    ("refcoco", "google"): ("train", "val", "test"),
    ("refcoco+", "unc"): ("train", "val", "testA", "testB"),
    ("refcocog", "umd"): ("train", "val", "test"),
    ("refcocog", "google"): ("train", "val"),
}
"""The published splits of each (name, split_by). The first split_by of a name is the usual one."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    sent_id: int
    text: str
    ref_id: int
    ann_id: int
    image_id: int


class RefCOCO:
    """One split, with one sample per sentence; an object has about three sentences.

    Masks are decoded as by COCO's own tools. Overlapping parts of an object are joined.
    """

    def __init__(
        self,
        root: Path,
        name: Literal["refcoco", "refcoco+", "refcocog"],
        split: str,
        split_by: str | None = None,
        images: Path | None = None,
    ) -> None:
        """Indexes the annotations, without the objects of other splits.

        Args:
            root: Path of the folder that contains the folder ``name`` with refs(``split_by``).p and instances.json.
            name: Name of the data set.
            split: Name of the split, as in ``SPLITS``: "train", "val", and "testA" (people) and "testB" (other
                objects), or "test".
            split_by: Origin of the split, as in ``SPLITS``; by default "unc" for RefCOCO and RefCOCO+ and "umd" for
                G-Ref.
            images: Path of COCO's folder train2014, by default ``root``/images/train2014.

        Raises:
            DataError: The data set or split does not exist, a file or the folder of images is missing, or a file is
                broken or has invalid content.
        """
        root = Path(root)
        split_by = split_by or next((by for known, by in SPLITS if known == name), None)
        splits = SPLITS.get((name, split_by))
        if splits is None:
            known = ", ".join(f"{known} by {by}" for known, by in SPLITS)
            raise DataError(f"there is no data set {name!r} split by {split_by!r}, only {known}")
        if split not in splits:
            raise DataError(f"{name} split by {split_by} has no split {split!r}, only {', '.join(splits)}")
        advice = (
            f"unpack the refer toolkit's {name}.zip to {root / name}, "
            f"which then holds refs({split_by}).p and instances.json"
        )
        self._images = Path(images) if images is not None else root / "images" / "train2014"
        refs_path, instances_path = root / name / f"refs({split_by}).p", root / name / "instances.json"
        self._sentences = _read_sentences(refs_path, split, advice)
        self._segmentations, self._sizes = _read_instances(instances_path, self._sentences, advice)
        if not self._images.is_dir():
            raise DataError(
                f"{self._images} is missing: it is COCO's folder of training pictures of 2014, train2014, with "
                "COCO_train2014_<12 digits>.jpg"
            )
        self._prefix = f"{name}/{split}"
        self.phrases = tuple(sentence.text for sentence in self._sentences)
        """The sentence of each sample."""
        self.pictures = tuple(str(sentence.image_id) for sentence in self._sentences)
        """The name of the image of each sample."""
        self.objects = tuple(str(sentence.ref_id) for sentence in self._sentences)
        """The name of the object ("ref") of each sample; samples of one object are its sentences."""

    def __len__(self) -> int:
        return len(self._sentences)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads a sample, named "refcoco/val/ref_<ref_id>/sent_<sent_id>".

        Raises:
            DataError: The image is missing or unreadable, its size differs from the annotations, or its mask is not a
                COCO mask.
        """
        sentence = self._sentences[index]
        name = f"{self._prefix}/ref_{sentence.ref_id}/sent_{sentence.sent_id}"
        path = self._images / f"COCO_train2014_{sentence.image_id:012d}.jpg"
        if not path.is_file():
            raise DataError(f"{path} is missing: the folder must hold all of COCO's training pictures of 2014")
        rgb = read_rgb(path)
        height, width = self._sizes[sentence.image_id]
        if rgb.shape[:2] != (height, width):
            raise DataError(
                f"{path} is {rgb.shape[1]} x {rgb.shape[0]} pixels and {width} x {height} in instances.json: "
                "use COCO's pictures at their own size"
            )
        try:
            mask = decode_segmentation(self._segmentations[sentence.ann_id], height, width)
        except DataError as error:
            raise DataError(f"the mask of {name} (annotation {sentence.ann_id}): {error}") from error
        return ReferringSample(rgb, sentence.text, mask, name)


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings and numbers. No code can run, because a pickle refers to code by names."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}; the published file is plain data")


def _read_sentences(path: Path, split: str, advice: str) -> list[_Sentence]:
    if not path.is_file():
        raise DataError(f"{path} is missing: {advice}")
    try:
        with path.open("rb") as file:
            # The file was written by Python 2, whose strings are bytes.
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises almost anything
        raise DataError(f"{path} cannot be read ({error}): {advice}") from error
    try:
        return [
            _Sentence(sentence["sent_id"], sentence["sent"].strip(), ref["ref_id"], ref["ann_id"], ref["image_id"])
            for ref in refs
            if ref["split"] == split
            for sentence in ref["sentences"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"an entry of {path} is not as published: {error!r}; {advice}") from error


def _read_instances(
    path: Path, sentences: list[_Sentence], advice: str
) -> tuple[dict[int, Any], dict[int, tuple[int, int]]]:
    """Reads the segmentation of each annotation that sentences refer to, and the (height, width) of each image."""
    wanted = {sentence.ann_id for sentence in sentences}

    def shrink(entry: dict) -> dict | None:
        return entry if "segmentation" not in entry or entry["id"] in wanted else None

    try:
        instances = read_json(path, advice, shrink)
        segmentations = {entry["id"]: packed(entry["segmentation"]) for entry in instances["annotations"] if entry}
        sizes = {image["id"]: (image["height"], image["width"]) for image in instances["images"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"an entry of {path} is not as published: {error!r}; {advice}") from error
    for sentence in sentences:
        if sentence.ann_id not in segmentations or sentence.image_id not in sizes:
            raise DataError(
                f"{path} lacks annotation {sentence.ann_id} on picture {sentence.image_id}, which ref "
                f"{sentence.ref_id} is about; the two files do not belong together: {advice}"
            )
    return segmentations, sizes
