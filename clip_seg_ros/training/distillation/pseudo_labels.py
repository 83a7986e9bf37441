# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels: a teacher's answers as hard labels, made once per image and kept on disk, or made on views.

Prompt denoising and thresholds decide which pixels get a label (MaskCLIP+, Zhou et al., ECCV 2022, section 3.3).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from clip_seg_ros.data.samples import IGNORED, DataError, read_labels, read_rgb
from clip_seg_ros.evaluation.answers import at_scale, without_background
from clip_seg_ros.models.maskclip.model import BACKGROUND
from clip_seg_ros.models.maskclip.refinement import denoise_prompts
from clip_seg_ros.models.student.model import BACKGROUND_CLASS
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sources.images import Picture, PictureSource

GUIDED = "labels"
"""The folder of the teacher's labels."""
STORED_SHORT_SIDE_PX = 512
"""The largest short side of the images stored for training; the teacher sees them at their full size."""
_RECIPE_NAME = "labels.json"
_NEVER_ZERO = 1e-12


@dataclass(frozen=True)
class LabelSettings:
    """The thresholds at which an answer becomes a label; all are 0..1."""

    confidence: float = 0.7
    """The least probability of a class with which a pixel gets it."""
    background_below: float = 0.5
    """The probability of the best class below which a pixel is background, if that class was added; 0 for no limit."""
    denoising: float = 0.5
    """The threshold of ``refinement.denoise_prompts``: classes that are below it everywhere are not in the image."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {value}")
        if self.background_below > self.confidence:
            raise ValueError(
                f"background_below ({self.background_below}) must not be above confidence ({self.confidence}): "
                "a pixel would be both"
            )


class Labeller:
    """Makes hard labels from a teacher's answers.

    Args:
        teacher: Any predictor. If its prompts do not compete, the background has 1 minus the best prompt's probability.
        class_names: List of classes from the user.
        settings: Thresholds at which an answer becomes a label.
        background: Whether pixels may belong to none of these classes: the teacher's background phrases compete, and
            ``BACKGROUND_CLASS`` is added to a list without a background. Otherwise, as in the paper, every pixel of
            which the teacher is sure has a class of the list.
        asked: The phrase that asks the teacher for each class; by default its name.

    Raises:
        ValueError: The list is empty or too long, or contains a name or a phrase twice or a phrase that the teacher
            does not know.
    """

    def __init__(
        self,
        teacher: Predictor,
        class_names: Sequence[str],
        settings: LabelSettings,
        background: bool = True,
        asked: Sequence[str] | None = None,
    ) -> None:
        if not class_names or not all(name.strip() for name in class_names):
            raise ValueError("the list of classes is empty or holds an empty name: name what to look for")
        if len(set(class_names)) != len(class_names):
            raise ValueError(f"the list of classes holds a name twice: {', '.join(class_names)}")
        if len(class_names) >= IGNORED:
            raise ValueError(f"at most {IGNORED - 1} classes can be told apart, got {len(class_names)}")
        taught = teacher.spec.class_names
        self.asked = tuple(class_names if asked is None else asked)
        if not len(set(self.asked)) == len(self.asked) == len(class_names):
            raise ValueError(f"each class needs a phrase of its own, got {', '.join(self.asked)}")
        if taught is not None and (strange := [phrase for phrase in self.asked if phrase not in taught]):
            raise ValueError(f"{teacher.spec.name} knows a fixed list of classes, without {', '.join(strange)}")
        self.teacher, self.settings = teacher if background else without_background(teacher), settings
        self.background = background
        worded = {*BACKGROUND, *teacher.spec.background_prompts}
        self.background_added = background and not worded.intersection(class_names)
        self.class_names = (*class_names, BACKGROUND_CLASS) if self.background_added else tuple(class_names)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Labels an image (H, W, 3) uint8 at its full size: (H, W) uint8 index into ``class_names`` or ``IGNORED``."""
        return self.batch([rgb])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels several images, as ``__call__``; those of one size are encoded together."""
        competing = self.teacher.spec.competition == "softmax"
        answers = self.teacher.predict_batch(images, self.asked)
        return [hard_labels(maps.values, competing, self.background_added, self.settings) for maps in answers]

    def for_views(self, side_px: int) -> Labeller:
        """Returns the same labeller for square views, which the teacher sees at their own size.

        Args:
            side_px: The side of the views in pixels.

        Raises:
            ValueError: The teacher takes images of one size alone, or looks at them through windows.
        """
        spec = self.teacher.spec.input
        if spec.resize != "short_side" or spec.window is not None:
            raise ValueError(
                f"{self.teacher.spec.name} cannot label the views of each step, because it does not take every size: "
                "use a MaskCLIP, or labels that are stored"
            )
        other = copy.copy(self)
        other.teacher = at_scale(self.teacher, side_px / spec.size)
        return other


def hard_labels(values: np.ndarray, competing: bool, background_added: bool, settings: LabelSettings) -> np.ndarray:
    """Decides which pixels have a class, which are background, and which are ignored.

    Args:
        values: Probabilities of the classes, (P, H, W) float32.
        competing: Whether they and a background sum to 1; otherwise each class was decided alone.
        background_added: Whether pixels without a class are class P; otherwise they are ignored.
        settings: Thresholds at which an answer becomes a label.

    Returns:
        The labels, (H, W) uint8: 0..P, or ``IGNORED``.
    """
    rest = 1.0 - (values.sum(axis=0) if competing else values.max(axis=0))
    shares = torch.from_numpy(np.concatenate([values, rest[None]]).clip(_NEVER_ZERO))  # (P + 1, H, W)
    logits = (shares / shares.sum(dim=0)).log()
    denoised = denoise_prompts(logits[None], settings.denoising, 1.0)[0]
    denoised[-1] = logits[-1]  # the background is never denoised
    shares = denoised.softmax(dim=0).numpy()
    classes, background = shares[:-1], shares[-1]
    best, confidence = classes.argmax(axis=0), classes.max(axis=0)
    nothing = (confidence < settings.background_below) | (background > confidence)
    labels = np.where(confidence >= settings.confidence, best, IGNORED).astype(np.uint8)
    labels[nothing] = len(values) if background_added else IGNORED
    return labels


@dataclass(frozen=True)
class Split:
    """The indices of images in three parts that share none."""

    trained: tuple[int, ...]
    """The images to train on."""
    to_choose: tuple[int, ...]
    """The images on which weights are chosen."""
    measured: tuple[int, ...]
    """The images on which the student is measured, which nothing else saw."""


@dataclass(frozen=True)
class LabelledPictures:
    """The images and labels that ``label_pictures`` wrote to disk."""

    folder: Path
    indices: tuple[int, ...]
    """The indices of the images that could be read."""
    unreadable: tuple[str, ...]
    """The reasons why the others could not be read."""

    def rgb(self, index: int) -> np.ndarray:
        """Reads a stored image, (H, W, 3) uint8."""
        return read_rgb(_path(self.folder, "pictures", index))

    def labels(self, index: int, part: str = GUIDED) -> np.ndarray:
        """Reads the labels of an image from the folder ``part``, by default the teacher's, (H, W) uint8."""
        return read_labels(_path(self.folder, part, index))

    def has_labels(self, index: int, part: str) -> bool:
        """Returns whether the folder ``part`` has labels of an image."""
        return _path(self.folder, part, index).is_file()

    def write_labels(self, index: int, part: str, labels: np.ndarray) -> None:
        """Writes labels (H, W) uint8 of an image to the folder ``part``."""
        _write_png(_path(self.folder, part, index), labels)

    def split(self, to_choose: bool = False) -> Split:
        """Returns the images to train on, and every tenth image, which is held out to measure the student.

        Args:
            to_choose: Whether another tenth is held out, to choose between weights. Otherwise it has none.

        Raises:
            DataError: There are too few images.
        """
        needed = 3 if to_choose else 2
        if len(self.indices) < needed:
            raise DataError(f"training needs at least {needed} pictures that can be read, got {len(self.indices)}")
        measured = self.indices[::10]
        # In a video, images half way between two others differ most from both.
        chosen = self.indices[min(5, len(self.indices) - 1) :: 10] if to_choose else ()
        apart = {*measured, *chosen}
        return Split(tuple(index for index in self.indices if index not in apart), chosen, measured)

    def pixel_counts(self, class_count: int, indices: Sequence[int]) -> np.ndarray:
        """Counts the pixels of each class in some images: (class_count + 1,) int64, the ignored pixels last."""
        total = np.zeros(IGNORED + 1, np.int64)
        for index in indices:
            total += np.bincount(self.labels(index).ravel(), minlength=IGNORED + 1)
        return np.append(total[:class_count], total[IGNORED])


def label_pictures(
    source: PictureSource,
    labeller: Labeller,
    folder: Path,
    progress: Callable[[PictureSource], Iterable[Picture]] = iter,
    every: int = 1,
) -> LabelledPictures:
    """Stores every image and labels it once; labels that an earlier call wrote to disk are kept.

    Args:
        source: Source of the images.
        labeller: Labeller with the teacher.
        folder: Folder for ``pictures/``, ``labels/`` and a record of what they were made from.
        progress: Wraps the images, to show the progress.
        every: One of so many images is labelled, from the first on; all are stored.

    Raises:
        DataError: The folder contains labels that were made from something else.
    """
    claim(folder, _recipe(source, labeller))
    indices: list[int] = []
    unreadable = []
    for index, picture in enumerate(progress(source)):
        parts = ("pictures", GUIDED) if len(indices) % every == 0 else ("pictures",)
        try:
            if not all(_path(folder, part, index).is_file() for part in parts):
                _store(picture, labeller if GUIDED in parts else None, folder, index)
        except DataError as error:
            unreadable.append(str(error))
        else:
            indices.append(index)
    return LabelledPictures(folder, tuple(indices), tuple(unreadable))


def _store(picture: Picture, labeller: Labeller | None, folder: Path, index: int) -> None:
    rgb = picture.read()
    labels = None
    if labeller is not None:
        try:
            labels = labeller(rgb)
        except ValueError as error:  # an image that the teacher does not accept, such as one that is one pixel high
            raise DataError(f"{picture.name} cannot be labelled: {error}") from error
    store_pair(folder, index, rgb, labels)


def store_pair(folder: Path, index: int, rgb: np.ndarray, labels: np.ndarray | None) -> None:
    """Stores an image (H, W, 3) uint8 and its labels (H, W) uint8, made smaller if the image is large."""
    height, width = rgb.shape[:2]
    scale = min(1.0, STORED_SHORT_SIDE_PX / min(height, width))
    size = (round(width * scale), round(height * scale))
    if scale < 1:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    # The labels are written last: if they exist, so does the image.
    _write_png(_path(folder, "pictures", index), rgb[..., ::-1])
    if labels is not None:
        _write_png(_path(folder, GUIDED, index), cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))


def _unless_exact(labeller: Labeller) -> str:
    """Returns the engine whose labels may differ in some pixels; "" for PyTorch, whose labels are as ever."""
    chosen = labeller.teacher.chosen
    return "" if chosen.engine == "eager" else f" {chosen.engine} {chosen.precision}"


def _recipe(source: PictureSource, labeller: Labeller) -> dict[str, Any]:
    """Returns what the labels of a teacher are made from."""
    return {
        "teacher": f"{labeller.teacher.spec.name} {labeller.teacher.engine.fingerprint()}{_unless_exact(labeller)}",
        "classes": list(labeller.class_names),
        "settings": asdict(labeller.settings) | ({} if labeller.background else {"background": False}),
        # Folders that were made when every class went by its name have no such entry.
        **({} if labeller.asked == labeller.class_names[: len(labeller.asked)] else {"asked": list(labeller.asked)}),
        "pictures": source.identity(),
    }


def claim(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Records what the labels in ``folder`` are made from. Raises DataError if they are made from something else."""
    path = folder / _RECIPE_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in {**recipe, **before} if before.get(key) != recipe.get(key)]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read: delete {folder} to start anew") from error
    if changed:
        what = " and ".join(changed)
        raise DataError(f"{folder} holds labels that were made with other {what}: use another folder, or delete it")


def _path(folder: Path, part: str, index: int) -> Path:
    return folder / part / f"{index:06d}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes a temporary file and renames it, so that a file that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    os.replace(partial, path)
