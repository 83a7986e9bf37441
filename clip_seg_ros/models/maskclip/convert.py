# SPDX-License-Identifier: Apache-2.0
"""Converts CLIPs, which MaskCLIP uses unchanged, and the files of MaskCLIP's authors.

Options of all: ``variant``, ``key_smoothing``, ``prompt_denoising``, ``pamr_iterations``, ``official_tower``,
``attention_pool_heads`` (see ``MaskCLIPConfig``), ``quick_gelu`` (True; False for towers that open_clip's authors
trained), ``vision_head_width`` and ``text_head_width`` (64).
Of the authors' files, which hold no text tower: ``clip`` (tensors of the CLIP they were made from) for any phrase, or
``text_embeddings`` (K, D; their segmentors hold it) with ``class_names`` for a fixed list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import ClipConfig, VisionConfig
from clip_seg_ros.models.clip.convert import BOOKKEEPING, HEAD_WIDTH, clip_config, text_config
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import (
    Converted,
    Source,
    antialiased,
    assemble,
    count_blocks,
    require,
    shapes_of,
)
from clip_seg_ros.models.maskclip.dense_attention import pool_variant
from clip_seg_ros.models.maskclip.model import MaskCLIP, MaskCLIPConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, InputSpec

_READOUT = ("variant", "key_smoothing", "prompt_denoising", "pamr_iterations", "attention_pool_heads")
OPTIONS = frozenset({*_READOUT, "official_tower", "quick_gelu", "vision_head_width", "text_head_width", "antialias"})
AUTHORS_OPTIONS = OPTIONS | {"clip", "text_embeddings", "class_names"}
_SIZE, _LONG_SIDE_LIMIT = 512, 2048
_IMAGE_PREFIXES = ("backbone.", "clip/")
_ROWS = "decode_head.text_embeddings"
_PROJECTIONS = ("visual.proj", "visual.attnpool.")
_TABLE = "visual.attnpool.positional_embedding"
"""The position table, which dense embeddings do not use."""


def matches_clip(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a whole CLIP in OpenAI's layout, which is open_clip's."""
    return any(key.startswith("visual.") for key in tensors) and "token_embedding.weight" in tensors


def matches_authors(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of MaskCLIP's authors: a segmentor, a backbone, or an image tower."""
    starts = tuple(prefix + name for prefix in _IMAGE_PREFIXES for name in ("cls_token", "layers.", "stem."))
    return any(key.startswith(starts) for key in tensors)


def convert_clip(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a MaskCLIP for any phrase from a whole CLIP.

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
    """Makes a MaskCLIP from the authors' files: for a list of classes or, with ``clip``, for any phrase.

    Raises:
        WeightsError: There are no text embeddings and no text tower, or keys are missing, unexpected or mis-shaped.
    """
    names = _Names.of(tensors)
    given = options.get("clip")
    if given is not None:
        tensors = {key: value for key, value in tensors.items() if key != _ROWS}
        tensors |= {key: value for key, value in given.items() if not key.startswith("visual.")}
        if names.projections is None:
            names = replace(names, projections="visual.")
            tensors |= {key: value for key, value in given.items() if key.startswith(_PROJECTIONS) and key != _TABLE}
    elif "text_embeddings" in options:
        tensors = {**tensors, _ROWS: options["text_embeddings"]}
    elif _ROWS not in tensors:
        lacking = "text embeddings" + (" and the projection onto them" if names.projections is None else "")
        raise WeightsError(
            f"{origin} holds the image side alone, without {lacking}, and no phrase can be understood with it: add the "
            "CLIP that it was made from (--clip FILE), or text embeddings and the names of their classes"
        )
    if names.projections is None:
        names = replace(names, projections="decode_head.")  # reported as missing
    vision, embed_dim = _vision(tensors, names, origin, options)
    if given is not None:
        text = text_config(tensors, origin, "", options.get("text_head_width", HEAD_WIDTH))
        classes = None
    else:
        text, classes = None, _class_names(tensors[_ROWS], origin, options)
    clip = ClipConfig(embed_dim, vision, text, options.get("quick_gelu", True))
    config = _configure(clip, options, options.get("official_tower", True), classes)
    wanted = shapes_of(lambda: MaskCLIP.from_config("", config))
    ignored = {*BOOKKEEPING, "logit_scale"}
    return Converted(config, assemble(wanted, names.source, tensors, origin, ignored.__contains__))


def check_options(options: Mapping[str, Any], resnet: bool) -> None:
    """Checks the options that can be checked without a file.

    Args:
        options: The options.
        resnet: Whether the image tower is a ResNet.

    Raises:
        ValueError: A value is wrong.
    """
    spec = InputSpec(_SIZE, "short_side", 32, CLIP_MEAN, CLIP_STD)
    config = MaskCLIPConfig(spec, **{name: options[name] for name in _READOUT if name in options})
    if resnet:
        pool_variant(config.variant)
    antialiased(options)


def _configure(
    clip: ClipConfig, options: Mapping[str, Any], official: bool, class_names: tuple[str, ...] | None
) -> dict[str, Any]:
    resnet = isinstance(clip.vision.layers, tuple)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if official else (CLIP_MEAN, CLIP_STD)
    # The size is a multiple of the patches, so that nothing is padded and labels are not shifted.
    multiple = 32 if resnet else clip.vision.patch_size
    own = MaskCLIPConfig(
        InputSpec(_SIZE, "short_side", multiple, mean, std, _LONG_SIDE_LIMIT, antialias=antialiased(options)),
        official_tower=official,
        class_names=class_names,
        **{name: options[name] for name in _READOUT if name in options},
    )
    config = {"kind": "maskclip", "clip": clip.to_dict(), "maskclip": own.to_dict()}
    if class_names is None:
        config["tokenizer"] = tokenizer_config(clip.text.vocab_size, clip.text.context_length)
    return config


@dataclass(frozen=True)
class _Names:
    """The names of the tensors in one of the authors' kinds of files."""

    resnet: bool
    image: str
    """The prefix of the image tower: "backbone." or, in the nested file, "clip/"."""
    projections: str | None
    """The prefix of the projections: "decode_head."; "" in the nested file ("proj/weight"); "visual." for those of a
    separate CLIP; ``None`` if there are none."""

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> _Names:
        nested = any(key.startswith("clip/") for key in tensors)
        image = "clip/" if nested else "backbone."
        resnet = any(key.startswith(f"{image}stem.") for key in tensors)
        if nested:
            return cls(resnet, image, "")
        whole = any(key.startswith("decode_head.") and key != _ROWS for key in tensors)
        return cls(resnet, image, "decode_head." if whole else None)

    def projection(self, name: str) -> str:
        """Returns the key of ``name``: "proj.weight", "c_proj.bias" and the like."""
        if self.projections == "visual.":
            return "visual.proj" if name == "proj.weight" else f"visual.attnpool.{name}"
        return f"{self.projections}{name}" if self.projections else name.replace(".", "/")

    def source(self, key: str) -> Source:
        """Returns the source of one of our tensors."""
        if key == "text_embeddings":
            return Source((_ROWS,))
        if key.startswith("text."):
            return Source((key.removeprefix("text."),))
        name = key.removeprefix("visual.")
        if name == "proj":
            return Source((self.projection("proj.weight"),), transposed=self.projections != "visual.")
        if name.startswith("attnpool."):
            return Source((self.projection(name.removeprefix("attnpool.")),), unit_axes=True)
        return Source((f"{self.image}{_image_name(name, self.resnet)}",), unit_axes=name in _TOKENS)


def _vision(
    tensors: Mapping[str, torch.Tensor], names: _Names, origin: str, options: Mapping[str, Any]
) -> tuple[VisionConfig, int]:
    """Reads the size of the image tower and the width of the embedding from the weights."""
    image, head_width = names.image, options.get("vision_head_width", HEAD_WIDTH)
    if names.resnet:
        layers = tuple(count_blocks(tensors, f"{image}layer{stage}.") for stage in (1, 2, 3, 4))
        width = len(require(tensors, f"{image}layer1.0.conv1.weight", origin))
        # The position table is missing, and with it the image size at which CLIP was trained.
        vision = VisionConfig(layers, width, 224, head_width=head_width)
        return vision, len(require(tensors, names.projection("c_proj.weight"), origin))
    width, _, patch, _ = require(tensors, f"{image}patch_embed.projection.weight", origin).shape
    positions = require(tensors, f"{image}pos_embed", origin).shape[1]
    vision = VisionConfig(
        count_blocks(tensors, f"{image}layers."), width, round((positions - 1) ** 0.5) * patch, patch, head_width
    )
    projection = require(tensors, names.projection("proj.weight"), origin)
    return vision, projection.shape[1 if names.projections == "visual." else 0]


def _class_names(rows: torch.Tensor, origin: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    names = options.get("class_names")
    if names is None:
        raise WeightsError(
            f"{origin} holds embeddings of {len(rows)} classes without their names: name them with --classes, a "
            "list of the package or a file with one name in each line"
        )
    if len(names) != len(rows):
        raise WeightsError(f"{origin} holds embeddings of {len(rows)} classes, but {len(names)} names were given")
    return tuple(names)


_TOKENS = {"class_embedding": "cls_token", "positional_embedding": "pos_embed"}
_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
_RENAMED = (
    (r"transformer\.resblocks\.(\d+)\.ln_", r"layers.\1.ln"),
    (r"transformer\.resblocks\.(\d+)\.attn\.", r"layers.\1.attn.attn."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"layers.\1.ffn.layers.0.0."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"layers.\1.ffn.layers.1."),
    (r"ln_pre\.", "ln0."),
    (r"ln_post\.", "ln1."),
    # The average pool of a shortcut has an index of its own there.
    (r"(.*)\.downsample\.1\.", r"\1.downsample.2."),
    (r"(.*)\.downsample\.0\.", r"\1.downsample.1."),
)


def _image_name(name: str, resnet: bool) -> str:
    """Returns the authors' name of a tensor of our image tower."""
    if name in _TOKENS:
        return _TOKENS[name]
    part, _, rest = name.partition(".")
    if part in _STEM and resnet:
        return f"stem.{_STEM[part]}.{rest}"
    if part == "conv1":
        return f"patch_embed.projection.{rest}"
    for ours, theirs in _RENAMED:
        renamed, count = re.subn(f"^{ours}", theirs, name)
        if count:
            return renamed
    return name
