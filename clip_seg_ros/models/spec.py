# SPDX-License-Identifier: Apache-2.0
"""What whoever asks a model must know of it, in plain values: nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SlidingWindow:
    """Square windows over an image; where they overlap, their logits are averaged."""

    crop: int
    """Side of a window in pixels of the prepared image."""
    stride: int
    """Pixels from one window to the next; less than ``crop``."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.crop:
            raise ValueError(f"a window's stride must lie in 1..{self.crop}, got {self.stride}")


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its image prepared.

    ``resize="squash"`` makes it ``size`` x ``size`` whatever its shape, as CLIPSeg's authors do.
    ``resize="short_side"`` keeps the aspect ratio: the short side becomes ``size`` and both sides are rounded to a
    multiple of ``multiple``; a long side above ``long_side_limit`` shrinks both.
    ``resize="letterbox"`` keeps the aspect ratio inside a square of ``size`` whose rest has the colour ``mean``, as
    CRIS's authors do.
    ``mean`` and ``std`` are per RGB channel, for values in 0..1.
    """

    size: int
    resize: Literal["squash", "short_side", "letterbox"]
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    long_side_limit: int | None = None
    window: SlidingWindow | None = None
    """Whether the model sees the image through overlapping windows instead of whole."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Reads what ``dataclasses.asdict`` and JSON made of one. Raises TypeError on unknown or missing names."""
        window = values.get("window")
        nested = {"mean": tuple(values["mean"]), "std": tuple(values["std"])}
        return cls(**{**values, **nested, "window": SlidingWindow(**window) if window else None})


def _no_words(prompt: str) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class ModelSpec:
    """A model as it is asked, whatever runs it."""

    name: str
    input: InputSpec
    competition: Literal["sigmoid", "softmax"]
    """``sigmoid``: each prompt is decided alone. ``softmax``: prompts compete for a pixel."""
    threshold: float = 0.5
    """The probability above which a pixel counts where nobody says another, 0..1."""
    class_names: tuple[str, ...] | None = None
    """The only prompts there are, all decoded together in this order; ``None``: any phrase will do."""
    background_prompts: tuple[str, ...] = ()
    """Phrases that compete with those asked about, where prompts compete and a pixel may belong to none of them."""
    understands_relations: bool = False
    """Whether phrases may relate one thing to others: "the cup left of the box", "the largest ball"."""
    takes_examples: bool = False
    """Whether an example image can be a prompt."""
    example_px: int | None = None
    """Side of the square that an example image is brought to; ``None``: the size of the images in use."""
    known_words: tuple[str, ...] = ()
    """All words that the weights learnt; empty where any word will do."""
    unknown_words: Callable[[str], tuple[str, ...]] = field(default=_no_words, repr=False, compare=False)
    """Returns the words of a phrase that the weights never learnt, in order, each once."""
    for_real_pictures: str | None = None
    """The name of published weights to take for real pictures, where the model's own weights come with the package and
    know the simulated table alone; ``None`` for all other weights, also for those that a user trained."""
