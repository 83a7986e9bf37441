# SPDX-License-Identifier: Apache-2.0
"""Recognises the layout of a published weight file and converts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clipseg import convert as clipseg
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.cris import convert as cris
from clip_seg_ros.models.denseclip import convert as denseclip
from clip_seg_ros.models.maskclip import convert as maskclip
from clip_seg_ros.models.sam3 import convert as sam3
from clip_seg_ros.models.talk2dino import convert as talk2dino


@dataclass(frozen=True)
class Format:
    """One layout in which weights are published."""

    title: str
    """The name of the layout for messages."""
    matches: Callable[[Mapping[str, torch.Tensor]], bool]
    """Returns whether the tensors look like this layout, even if the file is damaged."""
    convert: Callable[[Mapping[str, torch.Tensor], str, Mapping[str, Any]], Converted]
    """(tensors, origin, options) -> the model. Raises WeightsError if keys are missing, unexpected or mis-shaped, and
    ValueError if an option is unknown or missing."""
    options: frozenset[str]
    """Options for properties that leave no trace in the weights; the converter's module describes them."""


FORMATS: tuple[Format, ...] = (
    Format("Hugging Face CLIPSeg", clipseg.matches_hugging_face, clipseg.convert_hugging_face, clipseg.OPTIONS),
    Format("CLIPSeg of its authors", clipseg.matches_authors, clipseg.convert_authors, clipseg.OPTIONS | {"clip"}),
    Format("CRIS", cris.matches, cris.convert, cris.OPTIONS),
    Format("DenseCLIP", denseclip.matches, denseclip.convert, denseclip.OPTIONS),
    Format("MaskCLIP of its authors", maskclip.matches_authors, maskclip.convert_authors, maskclip.AUTHORS_OPTIONS),
    Format("SAM 3 of the Hugging Face hub", sam3.matches, sam3.convert, sam3.OPTIONS),
    Format("Talk2DINO", talk2dino.matches_whole, talk2dino.convert_whole, talk2dino.OPTIONS),
    Format(
        "projection of Talk2DINO",
        talk2dino.matches_projection,
        talk2dino.convert_projection,
        talk2dino.PROJECTION_OPTIONS,
    ),
    Format("CLIP of OpenAI or open_clip", maskclip.matches_clip, maskclip.convert_clip, maskclip.OPTIONS),
)
"""All known layouts; the first one that matches is used."""


def recognise(tensors: Mapping[str, torch.Tensor], origin: str) -> Format:
    """Returns the layout of a published file by the names of its tensors.

    Args:
        tensors: The tensors from ``reading.read_tensors``.
        origin: Name of the file, for the message.

    Raises:
        WeightsError: No layout fits.
    """
    for format in FORMATS:
        if format.matches(tensors):
            return format
    known = "\n  ".join(format.title for format in FORMATS)
    some = ", ".join(list(tensors)[:5])
    raise WeightsError(f"{origin} has a layout that is not known. Its first keys: {some}. Known layouts:\n  {known}")


def convert(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any] | None = None) -> Converted:
    """Converts the tensors of a published file, whatever its layout.

    Args:
        tensors: The tensors from ``reading.read_tensors``.
        origin: Name of the file, for messages.
        options: Options of the layout's converter.

    Raises:
        WeightsError: No layout fits, or keys are missing, unexpected or mis-shaped.
        ValueError: An option is unknown to the layout, or one that it needs is missing.
    """
    options = options or {}
    format = recognise(tensors, origin)
    unknown = sorted(set(options) - format.options)
    if unknown:
        raise ValueError(
            f"{origin} is a {format.title}, which takes no {', '.join(unknown)}; "
            f"it takes {', '.join(sorted(format.options)) or 'no options'}"
        )
    return format.convert(tensors, f"{origin} ({format.title})", options)
