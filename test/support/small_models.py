# SPDX-License-Identifier: Apache-2.0
"""Tiny models of all kinds, with weights of no meaning, for what must hold for every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSegConfig
from clip_seg_ros.models.cris.model import CRISConfig
from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig
from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances
from clip_seg_ros.models.denseclip.model import DenseCLIPConfig
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.models.maskclip.dense_attention import Variant
from clip_seg_ros.models.maskclip.model import MaskCLIPConfig
from clip_seg_ros.models.spec import InputSpec, SlidingWindow
from clip_seg_ros.models.student.model import StudentConfig
from clip_seg_ros.models.student.networks import CLIP_NETWORK
from clip_seg_ros.models.talk2dino.dino import DinoConfig
from clip_seg_ros.models.talk2dino.model import Talk2DINOConfig
from clip_seg_ros.zoo.build import MODEL_KINDS

WORDS = ("red", "green", "cup", "box", "the", "a")
CLASSES = ("red", "green", "cup")
SHORT_SIDE = InputSpec(48, "short_side", 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FINE = InputSpec(96, "short_side", 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
"""Images with more patches than SC-CLIP counts neighbours."""
SQUARE = InputSpec(64, "squash", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
_TOKENIZER = {"kind": "compact", "known_words": list(WORDS), "context_length": 12}
_TEXT = TextConfig(12, CompactTokenizer(WORDS, 12).vocab_size, 16, 2, 1)
_VIT = ClipConfig(24, VisionConfig(4, 32, 64, 16, head_width=16), _TEXT, quick_gelu=True)
_RESNET = ClipConfig(24, VisionConfig((1, 1, 1, 1), 8, 64, head_width=32), _TEXT)


def _clipseg_vit(spec: InputSpec = SHORT_SIDE, templates: tuple[str, ...] = ()) -> dict:
    sizes = {"reduce_dim": 16, "n_heads": 2, "feed_forward": 32}
    own = CLIPSegConfig(24, (0, 2, 3), (32, 32, 32), 16, 1, spec, templates=templates, **sizes)
    return {"kind": "clipseg", "clip": _VIT.to_dict(), "clipseg": own.to_dict(), "tokenizer": _TOKENIZER}


def _cris() -> dict:
    own = CRISConfig((12, 16, 24), SQUARE, n_layers=1, n_heads=2, feed_forward=32)
    return {"kind": "cris", "clip": _RESNET.to_dict(), "cris": own.to_dict(), "tokenizer": _TOKENIZER}


def _denseclip(clip: ClipConfig, **changes) -> dict:
    spec = InputSpec(64, "short_side", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), window=SlidingWindow(64, 32))
    sizes = {"context_width": 8, "context_heads": 2, "context_layers": 1, "pyramid_channels": 8, "head_channels": 8}
    own = DenseCLIPConfig(CLASSES, spec, 9, 3, blocks=(0, 1, 2, 3), **sizes, **changes)
    towers = {name: clip.to_dict()[name] for name in ("embed_dim", "quick_gelu", "vision", "text")}
    return {"kind": "denseclip", **towers, "denseclip": own.to_dict(), "tokenizer": _TOKENIZER}


def detector_config() -> dict:
    """The configuration of a detector, which is none of ``CONFIGS``, because no other engine than torch runs it."""
    sizes = {"context_width": 8, "context_heads": 2, "context_layers": 1, "pyramid_channels": 8, "box_channels": 16}
    own = DenseCLIPInstancesConfig(CLASSES, SQUARE, 9, 3, mask_channels=8, anchor_px=16.0, proposals=20, **sizes)
    towers = {name: _RESNET.to_dict()[name] for name in ("embed_dim", "quick_gelu", "vision", "text")}
    return {"kind": "denseclip_instances", **towers, "denseclip": own.to_dict(), "tokenizer": _TOKENIZER}


def _maskclip(variant: Variant = "maskclip", spec: InputSpec = SHORT_SIDE) -> dict:
    own = MaskCLIPConfig(spec, variant, templates=("{}", "a {}"), background=("box",))
    return {"kind": "maskclip", "clip": _VIT.to_dict(), "maskclip": own.to_dict(), "tokenizer": _TOKENIZER}


def _student() -> dict:
    own = StudentConfig(CLIP_NETWORK, CLASSES, SQUARE, _RESNET.vision)
    return {"kind": "student", "student": asdict(own)}


def talk2dino_config() -> dict:
    spec = InputSpec(56, "short_side", 14, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    dino = DinoConfig(layers=2, width=32, heads=4, image_size=42)
    own = Talk2DINOConfig(spec, dino, _TEXT, 24, background_cleaning=0.2, templates=("{}", "a {}"))
    return {"kind": "talk2dino", "talk2dino": own.to_dict(), "tokenizer": _TOKENIZER}


CONFIGS: dict[str, Callable[[], dict]] = {
    "clipseg-vit": _clipseg_vit,
    "clipseg-templates": lambda: _clipseg_vit(templates=("{}", "a {}")),
    "cris": _cris,
    "denseclip-resnet": lambda: _denseclip(_RESNET),
    "denseclip-vit": lambda: _denseclip(_VIT),
    "denseclip-pre": lambda: _denseclip(_RESNET, prompting="pre"),
    "maskclip": _maskclip,
    "scclip": lambda: _maskclip("scclip", FINE),
    "student": _student,
    "talk2dino": talk2dino_config,
}


def small_detector() -> DenseCLIPInstances:
    """Returns a detector in evaluation mode."""
    torch.manual_seed(0)
    return DenseCLIPInstances.from_config("small-detector", detector_config()).eval()


def small_model(kind: str) -> PromptableSegmenter:
    """Returns the model of ``CONFIGS`` in evaluation mode, with its batch norms folded."""
    config = CONFIGS[kind]()
    torch.manual_seed(0)
    model = MODEL_KINDS[config["kind"]](f"small-{kind}", config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # fresh norms and biases hide mistakes
                parameter.add_(0.4 * torch.rand_like(parameter) - 0.2)
            elif "positional" in name:
                parameter.mul_(10.0)
    fold_batch_norms(model)
    return model
