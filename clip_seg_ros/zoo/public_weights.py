# SPDX-License-Identifier: Apache-2.0
"""Weights that others published: their names here, their addresses and their licences."""

from __future__ import annotations

import re
from dataclasses import dataclass

HUB = "https://huggingface.co"
OPEN_CLIP_PREFIX = "open_clip:"
"""The prefix of ARCHITECTURE/TAG for any CLIP that open_clip lists."""
SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
SUFFIX = ".safetensors"
MAX_NAME = 200
"""The largest number of characters in a name; file systems allow 255 with the suffix."""


AGAIN = "type the command again"
"""What messages tell a person to do for another attempt at a download; a node, which makes it itself, replaces it."""


@dataclass(frozen=True)
class HubFile:
    """A weight file on the Hugging Face hub."""

    repository: str
    """OWNER/NAME."""
    files: tuple[str, ...]
    """Names of the file; the first one that the repository has is used."""
    gated: bool = False
    """Whether it is given only to those who accepted its licence on the page and are logged in."""


@dataclass(frozen=True)
class PublicWeights:
    """One set of published weights. Exactly one of ``hub``, ``open_clip`` and ``by_hand`` says how to get it."""

    kind: str
    """The model that reads them, a key of ``factory.MODEL_KINDS``."""
    title: str
    page: str
    licence: str
    """The licence as the publisher states it, which binds everybody who downloads the weights."""
    megabytes: int
    """Approximate size of the converted file in 10^6 bytes."""
    hub: HubFile | None = None
    open_clip: str | None = None
    """ARCHITECTURE/TAG."""
    by_hand: str | None = None
    """Instructions for a user, if no program can download the file; ``{name}`` stands for the name."""


_CLIPSEG_FILES = ("model.safetensors", "pytorch_model.bin")
_CLIPSEG_LICENCE = (
    "the hub page says Apache-2.0; the authors' repository (github.com/timojl/clipseg) is MIT and says that this does "
    "not apply to its weights, so the authors themselves grant no licence for them"
)
_OPENAI_LICENCE = "MIT (of OpenAI's repository github.com/openai/CLIP, which the weights were published with)"
_CONVERT = "then type `clip-seg weights convert FILE --name {name}`"
_CRIS = (
    "the repository links no weights; take the best_model.pth that its training writes, or one that its authors gave "
    "you, " + _CONVERT + " (for G-Ref add --word-length 22)"
)
_DENSECLIP = (
    'follow the link "Tsinghua Cloud" of {row} in the page\'s table for Semantic FPN with a browser, ' + _CONVERT
)
_TALK2DINO_LICENCE = (
    "none is stated in the authors' repository (github.com/lorebianchi98/Talk2DINO), so see the hub page; the DINOv2 "
    "in them is Apache-2.0, and OpenAI's CLIP is MIT"
)
_MASKCLIP_LICENCE = "Apache-2.0 (the repository's); the weights in it are OpenAI's CLIP, MIT"


def _clipseg(variant: str, title: str, megabytes: int = 603) -> PublicWeights:
    repository = f"CIDAS/clipseg-{variant}"
    hub = HubFile(repository, _CLIPSEG_FILES)
    return PublicWeights("clipseg", title, f"{HUB}/{repository}", _CLIPSEG_LICENCE, megabytes, hub=hub)


def _maskclip(architecture: str, title: str, megabytes: int) -> PublicWeights:
    page = "https://github.com/openai/CLIP"
    tag = f"{architecture}-quickgelu/openai"
    return PublicWeights("maskclip", f"OpenAI's CLIP {title}", page, _OPENAI_LICENCE, megabytes, open_clip=tag)


def _cris(title: str, megabytes: int) -> PublicWeights:
    page = "https://github.com/DerrickWang005/CRIS.pytorch"
    licence = "MIT (the repository's); it says nothing of weights apart"
    return PublicWeights("cris", f"CRIS, {title}", page, licence, megabytes, by_hand=_CRIS)


def _denseclip(title: str, row: str, megabytes: int) -> PublicWeights:
    page = "https://github.com/raoyongming/DenseCLIP"
    licence = "the page says MIT License; it says nothing of weights apart"
    by_hand = _DENSECLIP.replace("{row}", row)
    return PublicWeights("denseclip", f"DenseCLIP for ADE20K, {title}", page, licence, megabytes, by_hand=by_hand)


def _maskclip_authors(title: str, model: str, clip: str, megabytes: int) -> PublicWeights:
    by_hand = (
        "these are OpenAI's weights under other names, made by the repository's tools/maskclip_utils/"
        f"convert_clip_weights.py --model {model}; `clip-seg weights download {clip}` gets the same without it. With "
        f"its {model}_clip_weights.pth and OpenAI's CLIP at hand type `clip-seg weights convert FILE --clip CLIP "
        "--name {name}`"
    )
    page = "https://github.com/chongzhou96/MaskCLIP"
    return PublicWeights("maskclip", f"MaskCLIP, {title}", page, _MASKCLIP_LICENCE, megabytes, by_hand=by_hand)


def _talk2dino(tower: str, title: str, megabytes: int) -> PublicWeights:
    repository = f"lorebianchi98/Talk2DINO-{tower}"
    hub = HubFile(repository, ("model.safetensors", "pytorch_model.bin"))
    page = f"{HUB}/{repository}"
    return PublicWeights("talk2dino", f"Talk2DINO, {title}", page, _TALK2DINO_LICENCE, megabytes, hub=hub)


_SAM3 = PublicWeights(
    "sam3",
    "SAM 3, all objects of a phrase",
    f"{HUB}/facebook/sam3",
    "SAM License (Meta's own, on the page and in github.com/facebookresearch/sam3); only who accepts it there gets the "
    "weights",
    3362,
    hub=HubFile("facebook/sam3", ("model.safetensors",), gated=True),
)


PUBLIC_WEIGHTS: dict[str, PublicWeights] = {
    "clipseg-rd64-refined": _clipseg("rd64-refined", "CLIPSeg, 64 channels, finer masks"),
    "clipseg-rd64": _clipseg("rd64", "CLIPSeg, 64 channels"),
    "clipseg-rd16": _clipseg("rd16", "CLIPSeg, 16 channels", 600),
    "maskclip-vit-b16": _maskclip("ViT-B-16", "ViT-B/16", 598),
    "maskclip-vit-b32": _maskclip("ViT-B-32", "ViT-B/32", 605),
    "maskclip-vit-l14": _maskclip("ViT-L-14", "ViT-L/14", 1711),
    "maskclip-rn50": _maskclip("RN50", "ResNet-50", 408),
    "maskclip-rn101": _maskclip("RN101", "ResNet-101", 479),
    "maskclip-rn50x16": _maskclip("RN50x16", "ResNet-50x16", 1162),
    "talk2dino-vit-b": _talk2dino("ViTB", "DINOv2 ViT-B/14", 604),
    "talk2dino-vit-l": _talk2dino("ViTL", "DINOv2 ViT-L/14", 1478),
    "sam3": _SAM3,
    "cris-r50": _cris("ResNet-50", 588),
    "cris-r101": _cris("ResNet-101", 646),
    "denseclip-rn50": _denseclip("ResNet-50", "RN50-DenseCLIP", 456),
    "denseclip-rn101": _denseclip("ResNet-101", "RN101-DenseCLIP", 525),
    "denseclip-vit-b": _denseclip("ViT-B/16", "ViT-B-DenseCLIP", 675),
    "maskclip-authors-vit-b16": _maskclip_authors("ViT-B/16", "ViT16", "maskclip-vit-b16", 598),
    "maskclip-authors-rn50": _maskclip_authors("ResNet-50", "RN50", "maskclip-rn50", 408),
}


def open_clip_tag(name: str) -> str | None:
    """Returns ARCHITECTURE/TAG for weights that open_clip lists, by their name here; ``None`` for others."""
    if name in PUBLIC_WEIGHTS:
        return PUBLIC_WEIGHTS[name].open_clip
    return name.removeprefix(OPEN_CLIP_PREFIX) if name.startswith(OPEN_CLIP_PREFIX) else None


def is_name(name: str) -> bool:
    """Returns whether weights may have this name: letters, digits, ".", "-" and "_", or open_clip:ARCHITECTURE/TAG."""
    return len(name) <= MAX_NAME and re.fullmatch(rf"({OPEN_CLIP_PREFIX}{SAFE_NAME}/)?{SAFE_NAME}", name) is not None


def file_name(name: str) -> str:
    """Returns the name of the file in the cache folder for the weights ``name``."""
    return f"{name.replace(OPEN_CLIP_PREFIX, 'open_clip_').replace('/', '_')}{SUFFIX}"


def download_command(name: str) -> str | None:
    """Returns the command that downloads the weights ``name``; ``None`` if nobody published such weights."""
    published = name in PUBLIC_WEIGHTS or name.startswith(OPEN_CLIP_PREFIX)
    return f"clip-seg weights download {name}" if published else None


def fetched_by_hand(name: str) -> str | None:
    """Returns how a user gets the weights ``name`` if no program can download them; otherwise ``None``."""
    entry = PUBLIC_WEIGHTS.get(name)
    if entry is None or entry.by_hand is None:
        return None
    how = entry.by_hand.replace("{name}", name)
    return f"{name} has to be fetched by hand from {entry.page}: {how}. Licence: {entry.licence}"


def how_to_get(name: str) -> str | None:
    """Returns how to get the weights ``name``; ``None`` if nobody published such weights."""
    command = download_command(name)
    if command is None:
        return None
    return f"type `{command}`" + (", which says how to get them by hand" if fetched_by_hand(name) else "")
