# SPDX-License-Identifier: Apache-2.0
"""Runs a model on the samples of data sets, with a phrase, an example image or both, or with every class of a list."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from clip_seg_ros.data.samples import DataError, ReferringSample
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.models.maskclip.model import MaskCLIP
from clip_seg_ros.models.spec import InputSpec, ModelSpec
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.runtime.eager import EagerEngine

PromptKind = Literal["text", "image", "mixed"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
MULTI_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales at which DenseCLIP's authors test every image and its mirror image."""
BACKGROUND = "background"
"""The name of the class for everything that belongs to no other class."""
_BACKGROUND_FACTOR = 3.0  # CLIPSeg's authors, for Pascal zero-shot
_EXAMPLE = "the example"


class PhraseAnswers:
    """Predicts the probabilities of samples with phrases.

    Args:
        predictor: The model.
        prompt: "text" for the phrase, "image" for the sample's example image, "mixed" for both.
        text_weight: The phrase's share in a mixed prompt, 0..1.
        wording: Makes the prompt of a sample's phrase; by default the prompt is the phrase.
    """

    def __init__(
        self,
        predictor: Predictor,
        prompt: PromptKind = "text",
        text_weight: float = 0.5,
        wording: Callable[[str], str] = str,
    ) -> None:
        self.predictor = predictor
        self.wording = wording
        self.prompt = prompt
        self.text_weight = text_weight
        self._last: tuple[np.ndarray, EncodedImage] | None = None

    def probabilities(self, sample: ReferringSample) -> np.ndarray:
        """Returns (H, W) float32, 0..1, at the size of the sample's image.

        Raises:
            DataError: An example image is needed and the sample has none.
            ValueError: The model does not take such a prompt.
        """
        encoded = self._encode(sample.rgb)
        if self.prompt == "text":
            return self.predictor.ask(encoded, [self.wording(sample.phrase)]).values[0]
        if sample.support is None:
            raise DataError(f"{sample.name} has no example image: ask with text")
        text = self.wording(sample.phrase) if self.prompt == "mixed" else None
        self.predictor.add_image_prompt(_EXAMPLE, *sample.support, text=text, text_weight=self.text_weight)
        try:
            return self.predictor.ask(encoded, [_EXAMPLE]).values[0]
        finally:
            self.predictor.remove_image_prompt(_EXAMPLE)

    def _encode(self, rgb: np.ndarray) -> EncodedImage:
        """Encodes an image once for successive samples, because data sets of phrases are ordered by image."""
        if self._last is None or not np.array_equal(self._last[0], rgb):
            self._last = (rgb, self.predictor.encode(rgb))
        return self._last[1]


class LabelAnswers:
    """Predicts the most probable class of a data set for every pixel.

    A class called "background" stands for everything else. With a threshold, it gets the pixels where no class is more
    probable than the threshold. Without a threshold, it is a prompt like the others: if prompts are decided alone, its
    probability is multiplied by three, as CLIPSeg's authors do; if they compete, it also gets the pixels of the model's
    own background phrases, where these take part.

    Args:
        predictor: The model.
        class_names: The classes of the data set, at most 255.
        scales: The sizes of the image, as multiples of the model's own, over which probabilities are averaged.
        flip: Whether to average over the mirror image, too.
        threshold: The least probability of classes other than the background, 0..1, or ``None``.
        prompts: The phrase that asks for each class; ``None`` for its name.
        background_phrases: Whether the model's own background phrases compete with the classes. ``None``: only if the
            data set has a background, because MaskCLIP's authors compare the classes with each other alone.

    Raises:
        ValueError: The model has a fixed list of classes, which lacks some of these; there is a threshold, but no
            background; or two classes have the same prompt.
    """

    def __init__(
        self,
        predictor: Predictor,
        class_names: Sequence[str],
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        threshold: float | None = None,
        prompts: Sequence[str] | None = None,
        background_phrases: bool | None = None,
    ) -> None:
        has_background = BACKGROUND in class_names
        if not (has_background if background_phrases is None else background_phrases):
            predictor = without_background(predictor)
        spec = predictor.spec
        self.class_names = tuple(class_names)
        self.scales = tuple(scales)
        self.flip = flip
        self.threshold = threshold
        self._background = self.class_names.index(BACKGROUND) if has_background else None
        if threshold is not None and self._background is None:
            raise ValueError("a threshold tells classes from the background, and the data set has no such class")
        of_class = dict(zip(self.class_names, self.class_names if prompts is None else prompts, strict=True))
        if len(set(of_class.values())) < len(of_class):
            raise ValueError("two classes are asked for by the same words")
        asked = tuple(of_class[name] for name in self.class_names if threshold is None or name != BACKGROUND)
        require_classes(spec, asked)
        competing = spec.competition == "softmax" and self._background is not None and threshold is None
        rest = spec.background_prompts if competing else ()
        # The classes in the data set's order, including the background only if it is a prompt; then all other prompts.
        self._prompts = asked + tuple(phrase for phrase in rest if phrase not in asked)
        self._factor = _BACKGROUND_FACTOR if spec.competition == "sigmoid" else 1.0
        self._predictors = [at_scale(predictor, scale) for scale in self.scales]

    def labels(self, rgb: np.ndarray) -> np.ndarray:
        """Returns (H, W) uint8, indices into ``class_names``, for an image (H, W, 3) uint8."""
        views = [(one, mirrored) for one in self._predictors for mirrored in ((False, True) if self.flip else (False,))]
        mean: Any = 0.0  # (P, H, W) from the first view on
        for predictor, mirrored in views:
            seen = np.ascontiguousarray(rgb[:, ::-1]) if mirrored else rgb
            values = predictor.predict(seen, self._prompts).values
            mean = mean + (values[:, :, ::-1] if mirrored else values) / len(views)
        if self._background is None:
            return mean.argmax(axis=0).astype(np.uint8)
        if self.threshold is not None:
            best = mean.argmax(axis=0)
            # After the background, which is not a prompt, the indices of the data set are larger by one.
            labels = best + (best >= self._background)
            return np.where(mean.max(axis=0) > self.threshold, labels, self._background).astype(np.uint8)
        mean, rest = np.split(mean, [len(self.class_names)])
        mean[self._background] = self._factor * np.concatenate([mean[[self._background]], rest]).max(axis=0)
        return mean.argmax(axis=0).astype(np.uint8)


def require_classes(spec: ModelSpec, class_names: Sequence[str]) -> None:
    """Raises ValueError if a model with a fixed list of classes lacks some of ``class_names``."""
    lacking = [name for name in class_names if spec.class_names is not None and name not in spec.class_names]
    if lacking:
        some = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        raise ValueError(
            f"{spec.name} knows only the {len(spec.class_names)} classes that it was trained on, and {len(lacking)} "
            f"of the data set's {len(class_names)} are not among them ({some}): use a model for any phrase, or the "
            "data set that it was trained on"
        )


def without_background(predictor: Predictor) -> Predictor:
    """Returns the same model without its own background phrases."""
    if not predictor.spec.background_prompts:
        return predictor
    engine = copy.copy(predictor.engine)
    engine.spec = replace(engine.spec, background_prompts=())
    return Predictor(engine, predictor.chosen)


def with_antialias(predictor: Predictor, antialias: bool | None) -> Predictor:
    """Returns the same model with images that are smoothed before they shrink, or not; ``None``: as the model says."""
    if antialias in (None, predictor.spec.input.antialias):
        return predictor
    engine = copy.copy(predictor.engine)
    engine.spec = replace(engine.spec, input=replace(engine.spec.input, antialias=antialias))
    return Predictor(engine, predictor.chosen)


def with_templates(predictor: Predictor, templates: Sequence[str] | None) -> Predictor:
    """Returns the same model with the texts of phrases averaged over ``templates``; ``None``: as the weights say.

    Raises:
        ValueError: The model does not average texts, PyTorch does not run it, or a template lacks "{}".
    """
    if templates is None:
        return predictor
    engine = copy.copy(predictor.engine)
    if not isinstance(engine, EagerEngine) or not isinstance(engine.model, (CLIPSeg, MaskCLIP)):
        raise ValueError(
            "templates are averaged by CLIPSeg and MaskCLIP, which PyTorch runs (--engine eager), and this model is "
            f"{engine.spec.name}, run by {engine.name}"
        )
    model = engine.model = copy.copy(engine.model)
    model.config = replace(model.config, templates=tuple(templates))
    return Predictor(engine, predictor.chosen)


def at_scale(predictor: Predictor, scale: float) -> Predictor:
    """Returns the same model for images that are ``scale`` times as large; its windows do not change."""
    if scale == 1.0:
        return predictor
    engine = copy.copy(predictor.engine)
    engine.spec = replace(engine.spec, input=_scaled(engine.spec.input, scale))
    return Predictor(engine)


def _scaled(spec: InputSpec, scale: float) -> InputSpec:
    size = max(1, round(spec.size * scale / spec.multiple)) * spec.multiple
    limit = None if spec.long_side_limit is None else round(spec.long_side_limit * scale)
    return replace(spec, size=size, long_side_limit=limit)
