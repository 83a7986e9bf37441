"""MaskCLIP+ (Zhou et al., ECCV 2022, section 3.3): a network that learns from another model's answers, without labels.

    phase 1, guided:   pictures -> teacher, once a picture -> hard labels on disk -> student
    phase 2, self:     pictures -> student as it is now    -> hard labels         -> student

The second phase is there because a student soon sees more than its teacher; nothing is averaged over time. Only what
the labelling model is sure of becomes a label (prompt denoising and a threshold); other pixels are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from clip_seg_ros.data.image_sources import Picture, PictureSource
from clip_seg_ros.data.samples import IGNORED, DataError, read_labels, read_rgb
from clip_seg_ros.models.maskclip import BACKGROUND
from clip_seg_ros.models.refinement import denoise_prompts
from clip_seg_ros.models.student import MULTIPLE, Student
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training.augment import photometric_distortion
from clip_seg_ros.training.losses import dense_cross_entropy
from clip_seg_ros.training.optimizer import Precision
from clip_seg_ros.training.runner import Runner, Stage

BACKGROUND_CLASS = "background"
"""The class that is added where the list has none for what is no object."""
STORED_SHORT_SIDE_PX = 512
"""Larger pictures are kept smaller for training; the teacher sees them as they are."""
_RECIPE_NAME = "labels.json"
_NEVER_ZERO = 1e-12
_SCALES = (0.75, 1.5)
"""Range of the short side in training, times the student's own."""
_WARMUP_STEPS = 50
_AIMED_SHARE = 0.75
_BATCH_NORM_MOMENTUM = 0.1


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
        taught = teacher.model.class_names
        if taught is not None and (strange := [name for name in class_names if name not in taught]):
            raise ValueError(f"{teacher.model.name} knows a fixed list of classes, without {', '.join(strange)}")
        self.teacher, self.settings = teacher, settings
        self._asked = tuple(class_names)
        self.background_added = not {*BACKGROUND, *teacher.model.background_prompts}.intersection(class_names)
        self.class_names = (*class_names, BACKGROUND_CLASS) if self.background_added else self._asked

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Labels a picture (H, W, 3) uint8 at its full size: (H, W) uint8 index into ``class_names`` or ``IGNORED``."""
        values = self.teacher.predict(rgb, self._asked).values
        competing = self.teacher.model.competition == "softmax"
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
        return read_rgb(_paths(self.folder, index)[0])

    def labels(self, index: int) -> np.ndarray:
        """Reads the teacher's labels of a picture, (H, W) uint8."""
        return read_labels(_paths(self.folder, index)[1])

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
            if not all(path.is_file() for path in _paths(folder, index)):
                _label(picture, labeller, _paths(folder, index))
        except DataError as error:
            unreadable.append(str(error))
        else:
            indices.append(index)
    return LabelledPictures(folder, tuple(indices), tuple(unreadable))


def _label(picture: Picture, labeller: Labeller, paths: tuple[Path, Path]) -> None:
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
    _write_png(paths[0], rgb[..., ::-1])
    _write_png(paths[1], labels)


def _claim(folder: Path, source: PictureSource, labeller: Labeller) -> None:
    """Notes what the labels in ``folder`` are made from, or makes sure that it is what it was."""
    recipe = {
        "teacher": labeller.teacher.model.name,
        "classes": list(labeller.class_names),
        "settings": asdict(labeller.settings),
        "pictures": source.identity(),
    }
    path = folder / _RECIPE_NAME
    if not path.exists():
        for part in _paths(folder, 0):
            part.parent.mkdir(parents=True, exist_ok=True)
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


def _paths(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / "pictures" / f"{index:06d}.png", folder / "labels" / f"{index:06d}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes beside and renames, so that a file that exists is whole."""
    partial = path.with_suffix(".part")
    partial.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    os.replace(partial, path)


@dataclass(frozen=True)
class TrainSettings:
    """How the student is trained."""

    steps: int
    """Of both phases together."""
    self_share: float = 0.25
    """Share of the steps that train on the student's own labels, 0..1."""
    batch: int = 8
    learning_rate: float = 2e-3
    self_learning_rate: float = 3e-4
    weight_decay: float = 0.01
    confidence: float = 0.7
    """The student's own labels are taken from this probability upwards, 0..1."""
    precision: Precision = "float32"
    """Of activations in training."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise ValueError(f"needed are 1 step and batches of 2 at least, got {self.steps} and {self.batch}")
        if not 0.0 <= self.self_share < 1.0:
            raise ValueError(f"the share of self-training must lie in 0..1 and be less than 1, got {self.self_share}")


class MaskCLIPPlus:
    """Trains a student in both phases.

    Args:
        student: On the device that trains.
        pictures: With the teacher's labels.
        indices: Which of them are trained on.
        settings: Steps, rates and thresholds.
    """

    def __init__(
        self, student: Student, pictures: LabelledPictures, indices: Sequence[int], settings: TrainSettings
    ) -> None:
        self.student, self.settings = student, settings
        self._pictures, self._indices = pictures, tuple(indices)
        spec = student.input_spec
        self._short_side = spec.size
        self._crop = crop_side(spec.size)
        self._device = next(student.parameters()).device
        self._mean, self._std = (torch.tensor(v, device=self._device).view(3, 1, 1) for v in (spec.mean, spec.std))
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Some networks are made for a hundred thousand steps and would end here with statistics of the start.
                module.momentum = _BATCH_NORM_MOMENTUM

    def run(self, runner: Runner) -> None:
        """Trains from where ``runner`` was left, and leaves the student in evaluation mode."""
        settings = self.settings
        own = round(settings.steps * settings.self_share)
        for name, steps, rate, loss in (
            ("guided", settings.steps - own, settings.learning_rate, self._guided_terms),
            ("self", own, settings.self_learning_rate, self._self_terms),
        ):
            if steps:
                stage = Stage(name, steps, rate, settings.weight_decay, self.student, loss, warmup_steps=_WARMUP_STEPS)
                runner.run(replace(stage, precision=settings.precision))
        self.student.eval()

    def _guided_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        views, labels = self._views(rng, with_labels=True)
        self.student.train()
        return {"teacher": self._loss(_recoloured(views, rng), torch.from_numpy(labels))}

    def _self_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The labels are those of the student at this step, on the same views before their colours are changed."""
        views, _ = self._views(rng, with_labels=False)
        self.student.eval()
        with torch.no_grad():
            best = self._logits(views, views.shape[1:3]).softmax(dim=1).max(dim=1)
        labels = best.indices.where(best.values >= self.settings.confidence, IGNORED)
        self.student.train()
        return {"self": self._loss(_recoloured(views, rng), labels)}

    def _views(self, rng: np.random.Generator, with_labels: bool) -> tuple[np.ndarray, np.ndarray]:
        """Draws views of pictures, (B, s, s, 3) and (B, s, s) uint8; labels are all ignored where not wanted."""
        side = self._crop
        views = np.empty((self.settings.batch, side, side, 3), np.uint8)
        labels = np.full(views.shape[:3], IGNORED, np.uint8)
        for row, pick in enumerate(rng.integers(len(self._indices), size=len(views))):
            index = self._indices[pick]
            known = self._pictures.labels(index) if with_labels else None
            views[row], view_labels = random_view(self._pictures.rgb(index), known, rng, self._short_side, side)
            if view_labels is not None:
                labels[row] = view_labels
        return views, labels

    def _logits(self, rgb: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        pixels = torch.from_numpy(rgb).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        logits = self.student.encode_image((pixels - self._mean) / self._std).dense
        return nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def _loss(self, rgb: np.ndarray, labels: torch.Tensor) -> torch.Tensor:
        return dense_cross_entropy(self._logits(rgb, labels.shape[1:]), labels.long().to(self._device), IGNORED)


def crop_side(short_side: int) -> int:
    """Returns the side in pixels of training's square views: two thirds of the student's short side."""
    return max(MULTIPLE, short_side * 2 // 3 // MULTIPLE * MULTIPLE)


def random_view(
    rgb: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, short_side: int, side: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts a square out of a picture at a random scale and place, mirrored every other time.

    With labels, three squares in four hold a pixel of a class that is drawn from those that the picture has, each as
    likely as the others: small things would hardly be seen otherwise.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8 or ``None``.
        rng: Draws.
        short_side: The student's; the picture's becomes 0.75 to 1.5 times that.
        side: Of the square in pixels, at most 0.75 ``short_side``.

    Returns:
        (side, side, 3) and (side, side), of the types that came in.
    """
    height, width = rgb.shape[:2]
    scale = short_side * rng.uniform(*_SCALES) / min(height, width)
    window = min(max(1, round(side / scale)), height, width)
    corner = rng.integers([height - window + 1, width - window + 1])
    if labels is not None and rng.random() < _AIMED_SHARE and (aim := _aim(labels, rng)) is not None:
        corner = np.clip(aim - rng.integers(window, size=2), 0, [height - window, width - window])
    top, left = (int(value) for value in corner)
    flip = 1 - 2 * int(rng.integers(2))
    rgb = rgb[top : top + window, left : left + window]
    shrink = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    rgb = cv2.resize(rgb, (side, side), interpolation=shrink)[:, ::flip]
    if labels is None:
        return rgb, None
    labels = labels[top : top + window, left : left + window]
    return rgb, cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)[:, ::flip]


def _recoloured(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([photometric_distortion(view, rng) for view in views])


def _aim(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draws a class of labels (H, W), then one of its pixels: (2,) row and column; ``None`` where all are ignored."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED])
    if not present.size:
        return None
    places = np.flatnonzero(labels.ravel() == rng.choice(present))
    return np.array(divmod(int(rng.choice(places)), labels.shape[1]))
