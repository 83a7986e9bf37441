# SPDX-License-Identifier: Apache-2.0
"""Builds the CLIP towers of the segmentation models. This is the only file that imports open_clip.

The towers are open_clip's own modules. ``vision_taps`` and ``text_tower`` read activations from inside them.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from clip_seg_ros.models.clip.late_imports import put_off


def _define_missing_operators() -> torch.library.Library | None:
    """Makes torchvision importable with a torch for which it was not built.

    Such a pair (common on robots: a vendor's torch with the package index's torchvision) fails at import because two
    compiled operators have no schema. Nothing here calls them, so that declaring the schemas is enough.

    Returns:
        The library with the schemas, which must be kept alive, or ``None`` if torchvision can be imported without it.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The failed attempt left half-imported submodules behind.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return library


# What open_clip has of others: timm's image towers and transformers' text towers.
with put_off("torch._dynamo.utils", "timm", "timm.layers", "transformers", "transformers.modeling_outputs"):
    _TORCHVISION_OPERATORS = _define_missing_operators()

    from open_clip import (
        OPENAI_IMAGENET_TEMPLATES,
        SimpleTokenizer,
        create_model,
        get_model_config,
        list_models,
        list_pretrained_tags_by_model,
    )
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, _build_text_tower, _build_vision_tower
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transformer import QuickGELU as QuickGELU
    from open_clip.transformer import ResidualAttentionBlock as ResidualAttentionBlock
    from open_clip.transformer import TextTransformer, VisionTransformer

_IMAGENET_EPS = 1e-6
KEPT_WORDS = 2048
"""The number of words whose pieces the tokenizer keeps."""
VisionTower: TypeAlias = VisionTransformer | ModifiedResNet
TextTower: TypeAlias = CLIP | TextTransformer
"""A module with ``token_embedding``, ``positional_embedding``, ``transformer``, ``ln_final``, ``text_projection`` and
``attn_mask``: open_clip's CLIP keeps its text side flat, and its TextTransformer apart."""


@dataclass(frozen=True)
class VisionConfig:
    """An image tower: a ViT if ``layers`` is a number of blocks, a ModifiedResNet if it has a number for each stage."""

    layers: int | tuple[int, ...]
    width: int
    image_size: int
    """Side in pixels of the square input for which the position table was made."""
    patch_size: int = 16
    """Side of a patch in pixels; ViT only."""
    head_width: int = 64
    """Channels of one attention head; a ResNet's attention pool has ``32 * width`` channels."""
    output_stride: int = 32
    """ResNet only: 32, or 16 to keep the last stage at the resolution of the one before."""
    trained_on: Literal["texts", "imagenet"] = "texts"
    """ViT only: a tower of CLIP, or one that was trained on the classes of ImageNet, which has no norm ahead of its
    blocks, the exact GELU, and norms with an epsilon of 1e-6."""

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.trained_on == "imagenet" and not isinstance(self.layers, int):
            raise ValueError("a tower that was trained on ImageNet must be a ViT")
        if self.output_stride not in (16, 32):
            raise ValueError(f"output_stride must be 16 or 32, got {self.output_stride}")


@dataclass(frozen=True)
class TextConfig:
    """A causal text tower."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int


@dataclass(frozen=True)
class ClipConfig:
    """Everything that determines the shapes of a CLIP's weights."""

    embed_dim: int
    vision: VisionConfig
    text: TextConfig | None
    """The text tower; ``None`` for an image tower alone."""
    quick_gelu: bool = False
    """True for towers trained by OpenAI."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipConfig:
        """Makes a configuration from the values of ``to_dict``. Raises TypeError on unknown or missing names."""
        text = values["text"]
        nested = {"vision": VisionConfig(**values["vision"]), "text": None if text is None else TextConfig(**text)}
        return cls(**{**values, **nested})


def build_clip(config: ClipConfig) -> CLIP:
    """Returns an open_clip CLIP with random weights. Nothing is downloaded."""
    clip = CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=_vision_cfg(config.vision),
        text_cfg=CLIPTextCfg(**asdict(config.text)),
        quick_gelu=config.quick_gelu,
    )
    if config.vision.trained_on == "imagenet":
        clip.visual = build_vision_tower(config.vision, config.embed_dim, quick_gelu=False)
    _apply_output_stride(clip.visual, config.vision)
    return clip


def build_vision_tower(config: VisionConfig, embed_dim: int, quick_gelu: bool) -> VisionTower:
    """Returns an image tower alone, with random weights."""
    visual = _build_vision_tower(embed_dim, _vision_cfg(config), quick_gelu)
    _apply_output_stride(visual, config)
    return visual


def build_text_tower(config: TextConfig, embed_dim: int, quick_gelu: bool) -> TextTransformer:
    """Returns a text tower alone, with random weights."""
    return _build_text_tower(embed_dim, CLIPTextCfg(**asdict(config)), quick_gelu)


def build_open_clip(name: str) -> CLIP:
    """Builds an architecture that open_clip knows, such as "ViT-B-16-quickgelu", with random weights.

    Nothing is downloaded.

    Raises:
        ValueError: The name is unknown, or it is not a plain CLIP: a ViT or ModifiedResNet for images, and a causal
            transformer that reads its end token for text.
    """
    if get_model_config(name) is None:
        raise ValueError(f'open_clip knows no architecture "{name}"; it knows {", ".join(list_models())}')
    clip = create_model(name, pretrained=None, load_weights=False)
    if type(clip) is not CLIP or not isinstance(clip.visual, VisionTransformer | ModifiedResNet):
        found = f"{type(clip).__name__} with a {type(clip.visual).__name__}"
        raise ValueError(f"{name} is a {found}: a CLIP with a VisionTransformer or a ModifiedResNet is needed")
    if clip.text_pool_type != "argmax":
        raise ValueError(f"the text tower of {name} does not read its end token, which is needed")
    return clip


# The fields in open_clip's configuration of a plain CLIP.
_PLAIN = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_PLAIN_VISION = {"image_size", "layers", "width", "patch_size", "head_width"}
_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


@dataclass(frozen=True)
class PretrainedClip:
    """Weights that open_clip lists on the Hugging Face hub, and the properties that they do not contain."""

    repository: str
    """OWNER/NAME."""
    files: tuple[str, ...]
    """Names of the file; the first one that the repository has is used."""
    resnet: bool
    """Whether the image tower is a ModifiedResNet; otherwise it is a ViT."""
    quick_gelu: bool
    vision_head_width: int
    text_head_width: int
    mean: tuple[float, float, float]
    """The mean with which images are normalised, RGB in 0..1."""
    std: tuple[float, float, float]


def pretrained_clip(name: str) -> PretrainedClip:
    """Looks up weights by open_clip's names, ARCHITECTURE/TAG such as "ViT-B-16-quickgelu/openai".

    Raises:
        ValueError: open_clip lists no such weights, or not on the hub, or they are not those of a plain CLIP.
    """
    architecture, _, tag = name.partition("/")
    model = get_model_config(architecture)
    if model is None:
        raise ValueError(f'open_clip knows no architecture "{architecture}"; it knows {", ".join(list_models())}')
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    strange = (model.keys() - _PLAIN) | (vision.keys() - _PLAIN_VISION) | (text.keys() - _PLAIN_TEXT)
    if strange:
        raise ValueError(
            f"{architecture} is no plain CLIP, a ViT or ModifiedResNet beside a causal transformer: it has "
            f"{', '.join(sorted(strange))}"
        )
    found = get_pretrained_cfg(architecture, tag)
    if not found.get("hf_hub"):
        tags = list_pretrained_tags_by_model(architecture)
        raise ValueError(
            f'open_clip lists no weights "{tag}" of {architecture} on the Hugging Face hub; '
            f"it lists {', '.join(tags) or 'none'}"
        )
    repository, _, file = found["hf_hub"].rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    safe = "open_clip_model.safetensors" if file.startswith("open_clip_pytorch_model.") else None
    return PretrainedClip(
        repository=repository,
        files=(file,) if safe is None else (safe, file),
        resnet=isinstance(vision["layers"], list),
        # OpenAI's weights need QuickGELU whichever of the two architectures is named.
        quick_gelu=found.get("quick_gelu", False) or model.get("quick_gelu", False),
        vision_head_width=vision.get("head_width", 64),
        text_head_width=text["width"] // text["heads"],
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
    )


def _vision_cfg(vision: VisionConfig) -> CLIPVisionCfg:
    return CLIPVisionCfg(
        layers=vision.layers,
        width=vision.width,
        head_width=vision.head_width,
        patch_size=vision.patch_size,
        image_size=vision.image_size,
        no_ln_pre=vision.trained_on == "imagenet",
        norm_kwargs={"eps": _IMAGENET_EPS} if vision.trained_on == "imagenet" else None,
    )


def _apply_output_stride(visual: VisionTower, config: VisionConfig) -> None:
    """Keeps a ResNet's last stage at stride 16 if the configuration says so.

    The strides of a ModifiedResNet are average pools, which have no weights: keys and shapes stay the same.
    """
    if isinstance(visual, ModifiedResNet) and config.output_stride == 16:
        block = visual.layer4[0]
        block.avgpool = nn.Identity()
        block.downsample[0] = nn.Identity()


def imagenet_templates() -> tuple[str, ...]:
    """Returns the 80 templates that CLIP's authors made for ImageNet, such as "a photo of a {}."."""
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


class _OwnWords(dict):
    """The cache of open_clip's tokenizer with the words it begins with; no other words are added."""

    def __setitem__(self, word: str, pieces: str) -> None:
        pass


@lru_cache(maxsize=1)
def bpe_tokenizer() -> SimpleTokenizer:
    """Returns CLIP's byte-pair tokenizer, which all threads share; its vocabulary file comes with open_clip."""
    tokenizer = SimpleTokenizer()
    # open_clip keeps the pieces of every word for ever, and a node runs for weeks: the last words do as well.
    tokenizer.cache = _OwnWords(tokenizer.cache)
    tokenizer.bpe = lru_cache(maxsize=KEPT_WORDS)(tokenizer.bpe)
    return tokenizer
