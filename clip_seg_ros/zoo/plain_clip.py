# SPDX-License-Identifier: Apache-2.0
"""Reads a plain CLIP, an image tower and a text tower, with which the training of a method begins.

It may come as OpenAI's or open_clip's file, from the hub by open_clip's name, converted by this package, or as one of
the embedded CLIPs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.models.checkpoints import WeightsError, is_weight_file, load_safetensors
from clip_seg_ros.models.clip.backbone import ClipConfig, build_clip
from clip_seg_ros.models.clip.convert import BOOKKEEPING, HEAD_WIDTH, clip_config
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import Source, assemble, shapes_of
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.maskclip.convert import matches_clip
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from clip_seg_ros.zoo.build import StoredModel
from clip_seg_ros.zoo.embedded import pocket_clip_config
from clip_seg_ros.zoo.factory import full_name, read_stored
from clip_seg_ros.zoo.formats import convert
from clip_seg_ros.zoo.public_weights import file_name, open_clip_tag

EMBEDDED_CLIPS = {"clip-pocket": "clip_pocket.safetensors", "clip-vit-pocket": "clip_vit_pocket.safetensors"}
"""The names of the embedded CLIPs, and their files in the folder of embedded weights."""
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
"""How the names of weight files end, whoever publishes them."""
_FIRST_SCALE = math.log(1 / 0.07)


@dataclass(frozen=True)
class ClipOptions:
    """The properties of a CLIP that leave no trace in its file. They are OpenAI's by default."""

    quick_gelu: bool = True
    """Whether the activation is QuickGELU; false for towers that open_clip's authors trained."""
    vision_head_width: int = HEAD_WIDTH
    """The number of channels of an attention head of the image tower."""
    text_head_width: int = HEAD_WIDTH
    """The number of channels of an attention head of the text tower."""


@dataclass(frozen=True)
class PlainClip:
    """A CLIP that was trained on images with texts, and on nothing else afterwards."""

    config: ClipConfig
    tokenizer: Mapping[str, Any]
    """The configuration for ``tokenizer.build_tokenizer``."""
    tensors: Mapping[str, torch.Tensor]
    """The complete ``state_dict`` of ``build_clip(config)``."""
    origin: str
    """The name of the file, for messages."""
    mean: tuple[float, float, float] = CLIP_MEAN
    """The mean with which images were normalised, RGB in 0..1."""
    std: tuple[float, float, float] = CLIP_STD


def read_start(name: str, options: ClipOptions | None = None) -> StoredModel | PlainClip:
    """Reads the weights that a training begins with.

    Args:
        name: A name or a file for ``factory.read_stored``; a file of OpenAI, of open_clip or of a paper's authors;
            ``open_clip:ARCHITECTURE/TAG``, which is downloaded unless it is in the hub's cache; or one of
            ``EMBEDDED_CLIPS``.
        options: What a file of OpenAI or open_clip does not hold.

    Returns:
        A ``PlainClip`` if it is one, and otherwise a whole model of a method.

    Raises:
        ValueError: There are no such weights.
        WeightsError: They do not exist yet, or cannot be used; or they are a MaskCLIP that lacks parts of its CLIP.
    """
    if name in EMBEDDED_CLIPS:
        return _embedded(resources.weights_dir() / EMBEDDED_CLIPS[name])
    if name.endswith(FILE_SUFFIXES):
        return _from_file(Path(name).expanduser(), options or ClipOptions())
    published = open_clip_tag(name) is not None
    if published and not (resources.cache_dir() / file_name(name)).is_file():
        return _from_hub(name)
    stored = read_stored(full_name(name))
    return _from_hub(name) if published and _lacks_positions(stored) else _plain_if_maskclip(stored)


def _from_file(path: Path, options: ClipOptions) -> StoredModel | PlainClip:
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    if is_weight_file(path):
        tensors, config = load_safetensors(path)
        if "kind" not in config and "known_words" in config:
            return _embedded(path)
        return _plain_if_maskclip(StoredModel(config, tensors, str(path)))
    tensors = read_tensors(path)
    if matches_clip(tensors):
        return _published(tensors, str(path), options)
    converted = convert(tensors, str(path))
    return _plain_if_maskclip(StoredModel(converted.config, converted.tensors, str(path)))


def _embedded(path: Path) -> PlainClip:
    tensors, values = load_safetensors(path)
    parts = pocket_clip_config(values)
    config = ClipConfig.from_dict(parts["clip"])
    return PlainClip(config, parts["tokenizer"], tensors, str(path), IMAGENET_MEAN, IMAGENET_STD)


def _published(tensors: Mapping[str, torch.Tensor], origin: str, options: ClipOptions) -> PlainClip:
    """Takes the tensors of OpenAI's or open_clip's file, whose names are those of our CLIP."""
    config = clip_config(
        tensors,
        origin,
        quick_gelu=options.quick_gelu,
        vision_head_width=options.vision_head_width,
        text_head_width=options.text_head_width,
    )
    wanted = shapes_of(lambda: build_clip(config))
    whole = assemble(wanted, lambda key: Source((key,)), tensors, origin, BOOKKEEPING.__contains__)
    tokenizer = tokenizer_config(config.text.vocab_size, config.text.context_length)
    return PlainClip(config, tokenizer, whole, origin)


def _from_hub(name: str) -> PlainClip:
    # The import is not at the top, because nothing else needs the libraries for downloads.
    from clip_seg_ros.zoo.download import fetch, find

    found = find(name)
    path = fetch(found.hub)
    clip = _published(read_tensors(path), f"{found.hub.repository}/{path.name}", ClipOptions(**found.options))
    return replace(clip, mean=found.normalisation["mean"], std=found.normalisation["std"])


def _lacks_positions(stored: StoredModel) -> bool:
    """Returns whether this is a MaskCLIP with a ResNet, which leaves out the positions of CLIP's attention pool."""
    return stored.config.get("kind") == "maskclip" and not isinstance(stored.config["clip"]["vision"]["layers"], int)


def _plain_if_maskclip(stored: StoredModel) -> StoredModel | PlainClip:
    """Returns the CLIP inside a MaskCLIP, which leaves it as it is; other models are returned unchanged."""
    if stored.config.get("kind") != "maskclip":
        return stored
    config = ClipConfig.from_dict(stored.config["clip"])
    advice = "begin with OpenAI's or open_clip's own file, with open_clip:ARCHITECTURE/TAG, or with clip-pocket"
    if config.text is None or "tokenizer" not in stored.config:
        raise WeightsError(f"{stored.origin} is a MaskCLIP without a text tower: {advice}")
    if _lacks_positions(stored):
        raise WeightsError(
            f"{stored.origin} is a MaskCLIP with a ResNet, which leaves out the positions of CLIP's attention pool: "
            f"{advice}"
        )
    tensors = {key.removeprefix("text."): value for key, value in stored.tensors.items()}
    # MaskCLIP leaves it out. No method here uses it.
    tensors["logit_scale"] = torch.tensor(_FIRST_SCALE)
    spec = stored.config["maskclip"]["input_spec"]
    return PlainClip(
        config, stored.config["tokenizer"], tensors, stored.origin, tuple(spec["mean"]), tuple(spec["std"])
    )
