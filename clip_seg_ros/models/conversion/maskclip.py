"""CLIPs, which MaskCLIP reads as they are, and the files of MaskCLIP's authors.

Options of all: ``variant``, ``key_smoothing``, ``prompt_denoising``, ``pamr_iterations``, ``official_tower``,
``attention_pool_heads`` (see ``MaskCLIPConfig``), ``quick_gelu`` (True; False for towers that open_clip's authors
trained), ``vision_head_width`` and ``text_head_width`` (64).
Of the authors' files, which hold no text tower: ``clip`` (tensors of the CLIP they were made from) for any phrase, or
``text_embeddings`` (K, D; their segmentors hold it) with ``class_names`` for a fixed list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from clip_seg_ros.models.backbone import ClipConfig, VisionConfig
from clip_seg_ros.models.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.clip import BOOKKEEPING, HEAD_WIDTH, clip_config, text_config
from clip_seg_ros.models.conversion.mapping import Converted, Source, assemble, count_blocks, require, shapes_of
from clip_seg_ros.models.maskclip import MaskCLIP, MaskCLIPConfig
from clip_seg_ros.models.tokenizer import tokenizer_config

_READOUT = ("variant", "key_smoothing", "prompt_denoising", "pamr_iterations", "attention_pool_heads")
OPTIONS = frozenset({*_READOUT, "official_tower", "quick_gelu", "vision_head_width", "text_head_width"})
AUTHORS_OPTIONS = OPTIONS | {"clip", "text_embeddings", "class_names"}
_SIZE, _LONG_SIDE_LIMIT = 512, 2048
_IMAGE_PREFIXES = ("backbone.", "clip/")
_TABLE = "visual.attnpool.positional_embedding"
"""Dense embeddings have no use for it."""


def matches_clip(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of a whole CLIP in OpenAI's layout, which is open_clip's."""
    return any(key.startswith("visual.") for key in tensors) and "token_embedding.weight" in tensors


def matches_authors(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of MaskCLIP's authors: a segmentor, a backbone, or weights of CLIP's image side."""
    starts = tuple(prefix + name for prefix in _IMAGE_PREFIXES for name in ("cls_token", "layers.", "stem."))
    return any(key.startswith(starts) for key in tensors)


def convert_clip(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a MaskCLIP for any phrase of a whole CLIP.

    Raises:
        WeightsError: Keys are missing, unexpected or mis-shaped.
    """
    clip = clip_config(
        tensors,
        origin,
        quick_gelu=options.get("quick_gelu", True),
        vision_head_width=options.get("vision_head_width", HEAD_WIDTH),
        text_head_width=options.get("text_head_width", HEAD_WIDTH),
    )
    config = _configure(clip, options, options.get("official_tower", False), None)

    def source(key: str) -> Source:
        return Source((key.removeprefix("text."),))

    ignored = {*BOOKKEEPING, "logit_scale", _TABLE}
    wanted = shapes_of(lambda: MaskCLIP.from_config("", config))
    return Converted(config, assemble(wanted, source, tensors, origin, ignored.__contains__))


def convert_authors(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a MaskCLIP of the authors' files: for a list of classes, or, with ``clip``, for any phrase.

    Raises:
        WeightsError: There is nothing to make text embeddings of, or keys are missing, unexpected or mis-shaped.
    """
    tensors = {_segmentor_name(key): value for key, value in tensors.items()}
    given = options.get("clip")
    if given is not None:
        tensors |= {f"text.{key}": value for key, value in given.items() if not key.startswith("visual.")}
        if not any(key.startswith("decode_head.") for key in tensors):
            tensors |= _projections(given)
        tensors.pop("decode_head.text_embeddings", None)
    elif "text_embeddings" in options:
        tensors["decode_head.text_embeddings"] = options["text_embeddings"]
    elif "decode_head.text_embeddings" not in tensors:
        raise WeightsError(
            f"{origin} holds the image side alone, and no phrase can be understood with it: add the CLIP that it was "
            "made from (--clip FILE), or text embeddings and the names of their classes"
        )
    vision, embed_dim = _vision(tensors, origin, options)
    if given is not None:
        text = text_config(tensors, origin, "text.", options.get("text_head_width", HEAD_WIDTH))
        names = None
    else:
        text, names = None, _class_names(tensors["decode_head.text_embeddings"], origin, options)
    clip = ClipConfig(embed_dim, vision, text, options.get("quick_gelu", True))
    config = _configure(clip, options, options.get("official_tower", True), names)
    wanted = shapes_of(lambda: MaskCLIP.from_config("", config))
    source = _resnet_source if isinstance(vision.layers, tuple) else _vit_source
    ignored = {f"text.{key}" for key in (*BOOKKEEPING, "logit_scale")}
    return Converted(config, assemble(wanted, source, tensors, origin, ignored.__contains__))


def _configure(
    clip: ClipConfig, options: Mapping[str, Any], official: bool, class_names: tuple[str, ...] | None
) -> dict[str, Any]:
    resnet = isinstance(clip.vision.layers, tuple)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if official else (CLIP_MEAN, CLIP_STD)
    # Whole patches: then nothing is padded, and labels lie exactly where things are.
    multiple = 32 if resnet else clip.vision.patch_size
    own = MaskCLIPConfig(
        InputSpec(_SIZE, "short_side", multiple, mean, std, _LONG_SIDE_LIMIT),
        official_tower=official,
        class_names=class_names,
        **{name: options[name] for name in _READOUT if name in options},
    )
    config = {"kind": "maskclip", "clip": clip.to_dict(), "maskclip": own.to_dict()}
    if class_names is None:
        config["tokenizer"] = tokenizer_config(clip.text.vocab_size, clip.text.context_length)
    return config


def _segmentor_name(key: str) -> str:
    """Brings the names of the authors' three kinds of files to those of a whole segmentor."""
    if key.startswith("clip/"):
        return f"backbone.{key.removeprefix('clip/')}"
    if re.fullmatch(r"([qkvc]_)?proj/(weight|bias)", key):
        return f"decode_head.{key.replace('/', '.')}"
    return key


def _projections(clip: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Takes from a whole CLIP the projections that the authors' backbone file lacks."""
    if "visual.proj" in clip:
        return {"decode_head.proj.weight": clip["visual.proj"].T}
    prefix = "visual.attnpool."
    names = [key for key in clip if key.startswith(prefix) and key != _TABLE]
    return {f"decode_head.{key.removeprefix(prefix)}": clip[key] for key in names}


def _vision(
    tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]
) -> tuple[VisionConfig, int]:
    """Reads the image tower's size and the width of the embedding off the weights."""
    head_width = options.get("vision_head_width", HEAD_WIDTH)
    if any(key.startswith("backbone.stem.") for key in tensors):
        layers = tuple(count_blocks(tensors, f"backbone.layer{stage}.") for stage in (1, 2, 3, 4))
        width = len(require(tensors, "backbone.layer1.0.conv1.weight", origin))
        # The position table is gone, and with it the size that CLIP was trained at.
        vision = VisionConfig(layers, width, 224, head_width=head_width)
        return vision, len(require(tensors, "decode_head.c_proj.weight", origin))
    width, _, patch, _ = require(tensors, "backbone.patch_embed.projection.weight", origin).shape
    positions = require(tensors, "backbone.pos_embed", origin).shape[1]
    layers = count_blocks(tensors, "backbone.layers.")
    vision = VisionConfig(layers, width, round((positions - 1) ** 0.5) * patch, patch, head_width)
    return vision, len(require(tensors, "decode_head.proj.weight", origin))


def _class_names(rows: torch.Tensor, origin: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    names = options.get("class_names")
    if names is None:
        raise WeightsError(
            f"{origin} holds embeddings of {len(rows)} classes without their names: name them with --classes, a shipped "
            "list or a file of one name a line"
        )
    if len(names) != len(rows):
        raise WeightsError(f"{origin} holds embeddings of {len(rows)} classes, but {len(names)} names were given")
    return tuple(names)


def _text_source(key: str) -> Source | None:
    if key == "text_embeddings":
        return Source(("decode_head.text_embeddings",))
    return Source((key,)) if key.startswith("text.") else None


_VIT_NAMES = (
    (r"transformer\.resblocks\.(\d+)\.ln_", r"layers.\1.ln"),
    (r"transformer\.resblocks\.(\d+)\.attn\.", r"layers.\1.attn.attn."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"layers.\1.ffn.layers.0.0."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"layers.\1.ffn.layers.1."),
    (r"ln_pre\.", "ln0."),
    (r"ln_post\.", "ln1."),
    (r"conv1\.", "patch_embed.projection."),
)


def _vit_source(key: str) -> Source:
    if (text := _text_source(key)) is not None:
        return text
    name = key.removeprefix("visual.")
    if name == "proj":
        return Source(("decode_head.proj.weight",), transposed=True)
    if name in ("class_embedding", "positional_embedding"):
        return Source(("backbone.cls_token" if name.startswith("class") else "backbone.pos_embed",), unit_axes=True)
    for ours, theirs in _VIT_NAMES:
        name = re.sub(f"^{ours}", theirs, name)
    return Source((f"backbone.{name}",))


_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


def _resnet_source(key: str) -> Source:
    if (text := _text_source(key)) is not None:
        return text
    name = key.removeprefix("visual.")
    if name.startswith("attnpool."):
        return Source((f"decode_head.{name.removeprefix('attnpool.')}",), unit_axes=True)
    part, _, rest = name.partition(".")
    if part in _STEM:
        return Source((f"backbone.stem.{_STEM[part]}.{rest}",))
    # The average pool of a shortcut has a number of its own there.
    return Source((f"backbone.{re.sub(r'downsample.([01])', lambda m: f'downsample.{int(m[1]) + 1}', name)}",))
