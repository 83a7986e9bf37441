"""The embedded DenseCLIP: kinds of objects, the table and the floor, from the embedded CLIP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES
from clip_seg_ros.models.base import InputSpec
from clip_seg_ros.models.backbone import TextConfig, build_text_tower
from clip_seg_ros.models.denseclip import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.denseclip_backbones import DenseResNet
from clip_seg_ros.training.pocket_clip import pocket_clip

_NAME_LENGTH, _CONTEXTS = 4, 4


def build_denseclip_pocket(
    clip_path: Path, input_px: int = 256, context_aware: bool = True, score_map: bool = True
) -> tuple[DenseCLIP, dict[str, Any]]:
    """Builds DenseCLIP on the embedded CLIP, with everything beside it random.

    Args:
        clip_path: ``clip_pocket.safetensors``.
        input_px: short side of the pictures in use.
        context_aware, score_map: as in ``DenseCLIPConfig``, to measure what they give.

    Returns:
        The model, and the configuration that ``factory.build_from_config`` builds it from.
    """
    length = _NAME_LENGTH + _CONTEXTS
    clip, clip_config, tokenizer = pocket_clip(clip_path, (), length)
    text_config = TextConfig(**{**asdict(clip_config.text), "context_length": length})
    text = build_text_tower(text_config, clip_config.embed_dim, clip_config.quick_gelu)
    state = {name: value for name, value in clip.state_dict().items() if name in text.state_dict()}
    # The last places of the table go: contexts and names are shorter than sentences.
    text.load_state_dict(state | {"positional_embedding": state["positional_embedding"][:length]})
    spec = InputSpec(input_px, "short_side", 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    own = DenseCLIPConfig(
        SEMANTIC_CLASSES, spec, _NAME_LENGTH, _CONTEXTS, context_width=64, context_layers=2, pyramid_channels=64,
        head_channels=64, context_aware=context_aware, score_map=score_map,
    )  # fmt: skip
    model = DenseCLIP("denseclip-pocket", DenseResNet(clip.visual), text, own, tokenizer)
    config = {
        "kind": "denseclip",
        "denseclip": own.to_dict(),
        "embed_dim": clip_config.embed_dim,
        "quick_gelu": clip_config.quick_gelu,
        "vision": asdict(clip_config.vision),
        "text": asdict(text_config),
        "tokenizer": {"kind": "compact", "known_words": list(tokenizer.known_words), "context_length": length},
    }
    return model, config
