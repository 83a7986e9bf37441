"""Names and weight files to models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.models.backbone import ClipConfig
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors, load_strict
from clip_seg_ros.models.clipseg import CLIPSeg
from clip_seg_ros.models.cris import CRIS
from clip_seg_ros.models.denseclip import DenseCLIP
from clip_seg_ros.models.maskclip import MaskCLIP

MODEL_KINDS: dict[str, Callable[[str, Mapping[str, Any]], PromptableSegmenter]] = {
    "clipseg": CLIPSeg.from_config,
    "cris": CRIS.from_config,
    "denseclip": DenseCLIP.from_config,
    "maskclip": MaskCLIP.from_config,
}
"""What a weight file's ``kind`` builds, with random weights, from a name and the file's configuration."""


def build_segmenter(name: str, weights_dir: Path | None = None) -> PromptableSegmenter:
    """Builds a model on the CPU, with its weights, in evaluation mode.

    Args:
        name: A key of ``EMBEDDED_MODELS``.
        weights_dir: Folder of the weight files; by default the one that came with the package.

    Raises:
        ValueError: There is no such model.
        WeightsError: Its weights cannot be used.
    """
    if name not in EMBEDDED_MODELS:
        raise ValueError(f'there is no model "{name}": use {" or ".join(EMBEDDED_MODELS)}')
    try:
        folder = weights_dir or resources.weights_dir()
    except FileNotFoundError as error:
        raise WeightsError(str(error)) from error
    return EMBEDDED_MODELS[name](name, folder).eval()


def build_from_config(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], origin: str
) -> PromptableSegmenter:
    """Builds the model that ``config`` describes and loads ``tensors`` into it, strictly.

    Raises:
        WeightsError: The configuration describes no model, or the tensors do not fit it.
    """
    try:
        model = MODEL_KINDS[config["kind"]](name, config)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configuration in {origin} does not describe a model of this version ({error}): "
            "restore the file, convert it again with `clip-seg weights convert`, or train it again with `clip-seg train`"
        ) from error
    load_strict(model, tensors, origin)
    return model


def _build_clipseg_pocket(name: str, weights_dir: Path) -> PromptableSegmenter:
    clip_path = weights_dir / "clip_pocket.safetensors"
    decoder_path = weights_dir / "clipseg_pocket.safetensors"
    clip_tensors, clip_values = load_safetensors(clip_path)
    decoder_tensors, decoder_values = load_safetensors(decoder_path)
    origin = f"{clip_path} and {decoder_path.name}"
    try:
        config = {"kind": "clipseg", "clipseg": decoder_values, **pocket_clip_config(clip_values)}
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"the configuration in {clip_path} does not describe a model of this version ({error}): "
            "restore the file or train it again with `clip-seg train`"
        ) from error
    tensors = {f"clip.{key}": value for key, value in clip_tensors.items()}
    tensors |= {f"decoder.{key}": value for key, value in decoder_tensors.items()}
    return build_from_config(name, config, tensors, origin)


def pocket_clip_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``clip`` and ``tokenizer`` parts of a model's configuration from that of the embedded CLIP's file."""
    context_length = ClipConfig.from_dict(values["clip"]).text.context_length
    tokenizer = {"kind": "compact", "known_words": values["known_words"], "context_length": context_length}
    return {"clip": values["clip"], "tokenizer": tokenizer}


EMBEDDED_MODELS: dict[str, Callable[[str, Path], PromptableSegmenter]] = {"clipseg-pocket": _build_clipseg_pocket}
