# SPDX-License-Identifier: Apache-2.0
"""Models of the sizes in which their authors published them, with random numbers as weights, to be timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.clipseg.convert import as_hugging_face
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from clip_seg_ros.zoo.build import MODEL_KINDS

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
_VIT_B16 = {"layers": 12, "width": 768, "image_size": 224, "patch_size": 16}
_RN50 = {"layers": [3, 4, 6, 3], "width": 64, "image_size": 224}
_OF_CLIP = {"mean": CLIP_MEAN, "std": CLIP_STD}
_OF_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
LAYOUTS = ("clipseg-rd64-refined", "cris-r50", "denseclip-rn50", "maskclip-vit-b16")
"""The models, by the names of their weights."""


def configuration(layout: str) -> dict[str, Any]:
    """Returns the configuration of one of ``LAYOUTS``, as that in a weight file."""
    return {
        "clipseg-rd64-refined": _clipseg,
        "cris-r50": _cris,
        "denseclip-rn50": _denseclip,
        "maskclip-vit-b16": _maskclip,
    }[layout]()


def random_model(layout: str, seed: int = 0) -> PromptableSegmenter:
    """Builds one of ``LAYOUTS`` on the CPU, in evaluation mode; the same seed gives the same weights."""
    config = configuration(layout)
    torch.manual_seed(seed)
    return MODEL_KINDS[config["kind"]](layout, config).eval()


def write_hugging_face(path: Path) -> None:
    """Writes clipseg-rd64-refined of random numbers as the hub holds it, a .safetensors file of 603 MB."""
    save_file(as_hugging_face(random_model("clipseg-rd64-refined").state_dict()), path)


def _clip(vision: dict[str, Any], embed_dim: int) -> dict[str, Any]:
    return {"embed_dim": embed_dim, "vision": vision, "text": _TEXT, "quick_gelu": True}


def _tokenizer(length: int = 77) -> dict[str, Any]:
    return {"kind": "clip", "vocab_size": 49408, "context_length": length}


def _clipseg() -> dict[str, Any]:
    own = {
        "embed_dim": 512,
        "extract_layers": [3, 6, 9],
        "tap_widths": [768, 768, 768],
        "stride": 16,
        "prefix_tokens": 1,
        "input_spec": {"size": 352, "resize": "squash", "multiple": 16, **_OF_IMAGENET},
        "complex_trans_conv": True,
    }
    return {"kind": "clipseg", "clip": _clip(_VIT_B16, 512), "clipseg": own, "tokenizer": _tokenizer()}


def _cris() -> dict[str, Any]:
    own = {
        "fpn_out": [256, 512, 1024],
        "input_spec": {"size": 416, "resize": "letterbox", "multiple": 32, **_OF_CLIP},
    }
    return {"kind": "cris", "clip": _clip(_RN50, 1024), "cris": own, "tokenizer": _tokenizer(17)}


def _denseclip() -> dict[str, Any]:
    window = {"crop": 512, "stride": 341}
    own = {
        "class_names": resources.class_list("ade20k"),
        "input_spec": {
            "size": 512,
            "resize": "short_side",
            "multiple": 1,
            **_OF_CLIP,
            "long_side_limit": 2048,
            "window": window,
        },
    }
    return {
        "kind": "denseclip",
        "embed_dim": 1024,
        "quick_gelu": True,
        "vision": {**_RN50, "image_size": 512},
        "text": {**_TEXT, "context_length": 13},
        "denseclip": own,
        "tokenizer": _tokenizer(),
    }


def _maskclip() -> dict[str, Any]:
    spec = {"size": 512, "resize": "short_side", "multiple": 16, **_OF_CLIP, "long_side_limit": 2048}
    # One template in the place of 85, whose texts take minutes and are encoded once.
    own = {"input_spec": spec, "templates": ["a photo of a {}."]}
    return {"kind": "maskclip", "clip": _clip(_VIT_B16, 512), "maskclip": own, "tokenizer": _tokenizer()}
