# SPDX-License-Identifier: Apache-2.0
"""Labels that a model makes: what a teacher answers on pictures, hardened, once a picture, kept on disk.

Prompt denoising and thresholds decide what is a label (MaskCLIP+, Zhou et al., ECCV 2022, section 3.3).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from clip_seg_ros.data.samples import IGNORED, DataError, read_labels, read_rgb
from clip_seg_ros.models.maskclip.model import BACKGROUND
from clip_seg_ros.models.maskclip.refinement import denoise_prompts
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sources.images import Picture, PictureSource

BACKGROUND_CLASS = "background"
"""The class that is added where the list has none for what is no object."""
STORED_SHORT_SIDE_PX = 512
"""Larger pictures are kept smaller for training; the teacher sees them as they are."""
_RECIPE_NAME = "labels.json"
_NEVER_ZERO = 1e-12


@dataclass(frozen=True)
class LabelSettings:
    """When an answer is good enough to be a label; all 0..1."""

    confidence: float = 0.7
    """A pixel gets a class only where that class has at least this probability."""
    background_below: float = 0.5
    """Where the best class has less than this, the pixel is background, if that class was added; 0 leaves it out."""
    denoising: float = 0.5
    """Threshold of ``refinement.denoise_prompts``: classes that stay below it everywhere in a picture are not in it."""

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
    """Turns a teacher's answers into hard labels.

    Args:
        teacher: Any predictor. Where its prompts do not compete, the background gets what the best prompt leaves.
        class_names: The list of the user.
        settings: When an answer is a label.

    Raises:
        ValueError: The list is empty, too long, holds a name twice or one that the teacher cannot be asked about.
    """

    def __init__(self, teacher: Predictor, class_names: Sequence[str], settings: LabelSettings) -> None:
        if not class_names or not all(name.strip() for name in class_names):
            raise ValueError("the list of classes is empty or holds an empty name: name what to look for")
        if len(set(class_names)) != len(class_names):
            raise ValueError(f"the list of classes holds a name twice: {', '.join(class_names)}")
        if len(class_names) >= IGNORED:
            raise ValueError(f"at most {IGNORED - 1} classes can be told apart, got {len(class_names)}")
        taught = teacher.spec.class_names
        if taught is not None and (strange := [name for name in class_names if name not in taught]):
            raise ValueError(f"{teacher.spec.name} knows a fixed list of classes, without {', '.join(strange)}")
        self.teacher, self.settings = teacher, settings
        self._asked = tuple(class_names)
        self.background_added = not {*BACKGROUND, *teacher.spec.background_prompts}.intersection(class_names)
        self.class_names = (*class_names, BACKGROUND_CLASS) if self.background_added else self._asked

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Labels a picture (H, W, 3) uint8 at its full size: (H, W) uint8 index into ``class_names`` or ``IGNORED``."""
        values = self.teacher.predict(rgb, self._asked).values
        competing = self.teacher.spec.competition == "softmax"
        return hard_labels(values, competing, self.background_added, self.settings)


def hard_labels(values: np.ndarray, competing: bool, background_added: bool, settings: LabelSettings) -> np.ndarray:
    """Decides where a class is, where none is, and where nobody knows.

    Args:
        values: (P, H, W) float32 probabilities of the classes.
        competing: Whether they and a background sum to 1; else each was decided alone.
        background_added: Whether pixels without a class are class P; else they are ignored.
        settings: The thresholds.

    Returns:
        (H, W) uint8: 0..P, or ``IGNORED``.
    """
    rest = 1.0 - (values.sum(axis=0) if competing else values.max(axis=0))
    shares = torch.from_numpy(np.concatenate([values, rest[None]]).clip(_NEVER_ZERO))  # (P + 1, H, W)
    logits = (shares / shares.sum(dim=0)).log()
    denoised = denoise_prompts(logits[None], settings.denoising, 1.0)[0]
    denoised[-1] = logits[-1]  # the background is always there
    shares = denoised.softmax(dim=0).numpy()
    classes, background = shares[:-1], shares[-1]
    best, confidence = classes.argmax(axis=0), classes.max(axis=0)
    nothing = (confidence < settings.background_below) | (background > confidence)
    labels = np.where(confidence >= settings.confidence, best, IGNORED).astype(np.uint8)
    labels[nothing] = len(values) if background_added else IGNORED
    return labels


@dataclass(frozen=True)
class LabelledPictures:
    """What ``label_pictures`` left on disk."""

    folder: Path
    indices: tuple[int, ...]
    """Of the pictures that could be read."""
    unreadable: tuple[str, ...]
    """Why others could not."""

    def rgb(self, index: int) -> np.ndarray:
        """Reads a picture as it was stored, (H, W, 3) uint8."""
        return read_rgb(_path(self.folder, "pictures", index))

    def labels(self, index: int, part: str = "labels") -> np.ndarray:
        """Reads the labels of a picture in the folder ``part``, the teacher's by default, (H, W) uint8."""
        return read_labels(_path(self.folder, part, index))

    def has_labels(self, index: int, part: str) -> bool:
        """Whether ``labels`` would find them."""
        return _path(self.folder, part, index).is_file()

    def write_labels(self, index: int, part: str, labels: np.ndarray) -> None:
        """Keeps labels (H, W) uint8 of a picture in the folder ``part``."""
        _write_png(_path(self.folder, part, index), labels)

    def split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns what is trained on, and every tenth picture, which is not.

        Raises:
            DataError: There are fewer than two pictures.
        """
        if len(self.indices) < 2:
            raise DataError(f"training needs at least 2 pictures that can be read, got {len(self.indices)}")
        held_out = self.indices[::10]
        return tuple(index for index in self.indices if index not in set(held_out)), held_out

    def pixel_counts(self, class_count: int) -> np.ndarray:
        """Counts pixels of all pictures: (class_count + 1,) int64, the ignored ones last."""
        total = np.zeros(IGNORED + 1, np.int64)
        for index in self.indices:
            total += np.bincount(self.labels(index).ravel(), minlength=IGNORED + 1)
        return np.append(total[:class_count], total[IGNORED])


def label_pictures(
    source: PictureSource,
    labeller: Labeller,
    folder: Path,
    progress: Callable[[PictureSource], Iterable[Picture]] = iter,
) -> LabelledPictures:
    """Asks the teacher about every picture, once: what is on disk from an earlier call is kept.

    Args:
        source, labeller: Which pictures, and whose labels.
        folder: Receives ``pictures/``, ``labels/`` and a note of what they were made from.
        progress: Wraps the pictures, to show how far it is.

    Raises:
        DataError: The folder holds labels that were made from something else.
    """
    _claim(folder, source, labeller)
    indices, unreadable = [], []
    for index, picture in enumerate(progress(source)):
        try:
            if not _path(folder, "labels", index).is_file():
                _label(picture, labeller, folder, index)
        except DataError as error:
            unreadable.append(str(error))
        else:
            indices.append(index)
    return LabelledPictures(folder, tuple(indices), tuple(unreadable))


def _label(picture: Picture, labeller: Labeller, folder: Path, index: int) -> None:
    rgb = picture.read()
    try:
        labels = labeller(rgb)
    except ValueError as error:  # a picture that the teacher cannot take, such as one pixel high
        raise DataError(f"{picture.name} cannot be labelled: {error}") from error
    height, width = labels.shape
    scale = STORED_SHORT_SIDE_PX / min(height, width)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    # The labels last: where they are, the picture is.
    _write_png(_path(folder, "pictures", index), rgb[..., ::-1])
    _write_png(_path(folder, "labels", index), labels)


def _claim(folder: Path, source: PictureSource, labeller: Labeller) -> None:
    """Notes what the labels in ``folder`` are made from, or makes sure that it is what it was."""
    recipe = {
        "teacher": f"{labeller.teacher.spec.name} {labeller.teacher.engine.fingerprint()}",
        "classes": list(labeller.class_names),
        "settings": asdict(labeller.settings),
        "pictures": source.identity(),
    }
    path = folder / _RECIPE_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key, value in recipe.items() if before.get(key) != value]
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: delete {folder} to start anew") from error
    if changed:
        what = " and ".join(changed)
        raise DataError(f"{folder} holds labels that were made with other {what}: use another folder, or delete it")


def _path(folder: Path, part: str, index: int) -> Path:
    return folder / part / f"{index:06d}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes beside and renames, so that a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    os.replace(partial, path)
