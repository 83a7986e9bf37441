# SPDX-License-Identifier: Apache-2.0
"""The properties of a model that its users must know, as plain values: nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clip_seg_ros.models.calibration import Calibration

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SlidingWindow:
    """Square windows over an image; where they overlap, their logits are averaged."""

    crop: int
    """Side of a window in pixels of the prepared image."""
    stride: int
    """Distance from one window to the next in pixels, 1..``crop``."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.crop:
            raise ValueError(f"a window's stride must lie in 1..{self.crop}, got {self.stride}")


@dataclass(frozen=True)
class InputSpec:
    """How an image must be prepared for a model.

    ``resize="squash"`` resizes it to ``size`` x ``size`` whatever its shape, as CLIPSeg's authors do.
    ``resize="short_side"`` keeps the aspect ratio: the short side becomes ``size``, and both sides are rounded to a
    multiple of ``multiple``; if the long side exceeds ``long_side_limit``, both sides shrink.
    ``resize="letterbox"`` keeps the aspect ratio inside a square of ``size`` whose rest has the colour ``mean``, as
    CRIS's authors do.
    ``mean`` and ``std`` have one value for each RGB channel, for pixels in 0..1.
    """

    size: int
    resize: Literal["squash", "short_side", "letterbox"]
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    long_side_limit: int | None = None
    window: SlidingWindow | None = None
    """The sliding windows of a model that sees an image through them; ``None`` if it sees the whole image."""
    antialias: bool = True
    """Whether an image is smoothed before it shrinks. The authors of CLIPSeg, DenseCLIP and MaskCLIP interpolate
    between the four nearest pixels alone. A letterbox, which is cubic as by CRIS's authors, never smooths."""

    def model_size(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size (h, w) of the model's pixels for an image of ``source_size`` (H, W), both at least 1."""
        height, width = source_size
        sides: tuple[float, float] = (self.size, self.size)
        if self.resize == "short_side":
            scale = self.size / min(source_size)
            if self.long_side_limit is not None:
                scale = min(scale, self.long_side_limit / max(source_size))
            sides = (scale * height, scale * width)
        model_height, model_width = (max(1, int(side / self.multiple + 0.5)) * self.multiple for side in sides)
        return model_height, model_width

    def encoder_size(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size (h, w) of what the image encoder sees at once of such an image: all pixels, or a window."""
        height, width = self.model_size(source_size)
        return (height, width) if self.window is None else (min(height, self.window.crop), min(width, self.window.crop))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Makes a spec from its ``dataclasses.asdict`` after JSON. Raises TypeError on unknown or missing names."""
        window = values.get("window")
        nested = {"mean": tuple(values["mean"]), "std": tuple(values["std"])}
        return cls(**{**values, **nested, "window": SlidingWindow(**window) if window else None})


@dataclass(frozen=True)
class ExampleStyle:
    """How an example image is changed so that CLIP sees the object in it (CLIPSeg, section 3.3 and table 1)."""

    blur_sigma: float = 3.0
    """Standard deviation in pixels of the Gaussian (15 x 15) over the background; 0 leaves it sharp."""
    intensity: float = 0.1
    """Factor on the background, 0..1, which fades it to the mean colour; 1 leaves it unchanged."""
    margin: float | None = 0.1
    """The image is cut to the object's box, which grows on each side by this share of its own side; ``None``: it is not
    cut."""

    def __post_init__(self) -> None:
        if self.blur_sigma < 0:
            raise ValueError(f"blur_sigma must be at least 0, got {self.blur_sigma}")
        if not 0 <= self.intensity <= 1:
            raise ValueError(f"intensity must lie in 0..1, got {self.intensity}")
        if self.margin is not None and self.margin < 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")


BEST_STYLE = ExampleStyle()
"""The style that CLIPSeg's paper found best."""


NOTHING_CORRECTED = Calibration()
"""The calibration of weights as they were trained."""


def _no_words(prompt: str) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class ModelSpec:
    """The properties of a model, whichever engine runs it."""

    name: str
    input: InputSpec
    competition: Literal["sigmoid", "softmax"]
    """``sigmoid``: each prompt is decided alone. ``softmax``: prompts compete for a pixel."""
    threshold: float = 0.5
    """The default threshold on probabilities, 0..1."""
    class_names: tuple[str, ...] | None = None
    """The fixed list of classes, which are all decoded together in this order; ``None``: any phrase may be a prompt."""
    background_prompts: tuple[str, ...] = ()
    """Phrases that compete with the prompts, for a model whose prompts compete and may all be absent from a pixel."""
    understands_relations: bool = False
    """Whether phrases may relate one object to others: "the cup left of the box", "the largest ball"."""
    takes_examples: bool = False
    """Whether an example image can be a prompt."""
    example_px: int | None = None
    """Side of the square to which an example image is resized; ``None``: the size of all other images."""
    example_style: ExampleStyle = BEST_STYLE
    """How an example image is changed before it is a prompt."""
    finds_objects: bool = False
    """Whether the model finds objects one by one, also where they touch; only the eager engine runs it."""
    box_phrase: str | None = None
    """The phrase that is asked where boxes alone are the examples of what is meant; ``None``: it takes no boxes."""
    known_words: tuple[str, ...] = ()
    """All words that the weights learnt; empty for an open vocabulary."""
    unknown_words: Callable[[str], tuple[str, ...]] = field(default=_no_words, repr=False, compare=False)
    """Returns the words of a phrase that the weights never learnt, in order, each once."""
    calibration: Calibration = NOTHING_CORRECTED
    """How logits are corrected before they become probabilities; only for phrases that are decided alone."""
    for_real_pictures: str | None = None
    """For embedded weights, which know only the simulated table: the name of published weights for real images.
    ``None`` for all other weights, including those that a user trained."""
