"""Names to models with their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clip_seg_ros import resources
from clip_seg_ros.models.backbone import ClipConfig, build_clip
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors, load_strict
from clip_seg_ros.models.clipseg import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.tokenizer import CompactTokenizer


def build_segmenter(name: str, weights_dir: Path | None = None) -> PromptableSegmenter:
    """Builds the model called ``name`` on the CPU, with its weights, in evaluation mode.

    Args:
        name: A key of ``MODEL_BUILDERS``.
        weights_dir: Folder of the weight files; by default the one that came with the package.

    Raises:
        ValueError: There is no such model.
        WeightsError: Its weights cannot be used.
    """
    if name not in MODEL_BUILDERS:
        raise ValueError(f'there is no model "{name}": use {" or ".join(MODEL_BUILDERS)}')
    try:
        folder = weights_dir or resources.weights_dir()
    except FileNotFoundError as error:
        raise WeightsError(str(error)) from error
    return MODEL_BUILDERS[name](folder).eval()


def _build_clipseg_pocket(weights_dir: Path) -> CLIPSeg:
    clip_path = weights_dir / "clip_pocket.safetensors"
    decoder_path = weights_dir / "clipseg_pocket.safetensors"
    clip_tensors, clip_values = load_safetensors(clip_path)
    decoder_tensors, decoder_values = load_safetensors(decoder_path)
    try:
        clip_config = ClipConfig.from_dict(clip_values["clip"])
        tokenizer = CompactTokenizer(clip_values["known_words"], clip_config.text.context_length)
        decoder_config = CLIPSegConfig.from_dict(decoder_values)
        model = CLIPSeg("clipseg-pocket", build_clip(clip_config), decoder_config, tokenizer)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configurations in {clip_path} and {decoder_path.name} do not describe a model of this version "
            f"({error}): restore both files or train them again with `clip-seg train`"
        ) from error
    load_strict(model.clip, clip_tensors, str(clip_path))
    load_strict(model.decoder, decoder_tensors, str(decoder_path))
    return model


MODEL_BUILDERS: dict[str, Callable[[Path], PromptableSegmenter]] = {"clipseg-pocket": _build_clipseg_pocket}
