# SPDX-License-Identifier: Apache-2.0
"""A small network for one list of classes, which a larger model teaches: the target model of MaskCLIP+.

    pixels -> backbone -> light head -> logits of K classes

Zhou et al., ECCV 2022, section 3.3: any segmentation network will do, for the text tower and CLIP's image tower are
needed for its training alone. Here it is one of torchvision's, or a backbone of timm or CLIP's own ResNet under a
Semantic FPN. The last can begin with what its teacher's image tower knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures

# Ahead of timm and torchvision: it makes the latter importable where it does not fit torch.
from clip_seg_ros.models.clip.backbone import ModifiedResNet, VisionConfig, build_vision_tower
from clip_seg_ros.models.denseclip.parts import FeaturePyramid, SemanticFPNHead
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

import timm  # isort: skip
from timm.layers import Format  # isort: skip
from torchvision.models import segmentation  # isort: skip

TORCHVISION_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lraspp_mobilenet_v3_large": segmentation.lraspp_mobilenet_v3_large,
    "deeplabv3_mobilenet_v3_large": segmentation.deeplabv3_mobilenet_v3_large,
    "deeplabv3_resnet50": segmentation.deeplabv3_resnet50,
    "deeplabv3_resnet101": segmentation.deeplabv3_resnet101,
    "fcn_resnet50": segmentation.fcn_resnet50,
    "fcn_resnet101": segmentation.fcn_resnet101,
}
"""Smallest first."""
CLIP_NETWORK = "clip"
TIMM_PREFIX = "timm:"
"""Ahead of the name of a backbone of timm."""
MULTIPLE = 32
"""Sides of the pixels are rounded to multiples of it: the coarsest stride."""
_PYRAMID_STRIDES = (4, 8, 16, 32)
_PYRAMID_CHANNELS = 64
_DROPOUT = 0.1


@dataclass(frozen=True)
class StudentConfig:
    """What a student is made of."""

    network: str
    """One of ``TORCHVISION_NETWORKS``, ``timm:`` and the name of a backbone, or ``CLIP_NETWORK``."""
    class_names: tuple[str, ...]
    """The K classes, in the order of the logits."""
    input_spec: InputSpec
    vision: VisionConfig | None = None
    """The ResNet of ``CLIP_NETWORK``; ``None`` for the others."""

    def __post_init__(self) -> None:
        if (self.vision is not None) != (self.network == CLIP_NETWORK):
            raise ValueError(f'the network "{CLIP_NETWORK}", and no other, needs the shape of its ResNet')
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class names must be there and differ, got {self.class_names}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudentConfig:
        """Reads what ``to_dict`` wrote. Raises TypeError on unknown or missing names, ValueError on wrong values."""
        nested = {
            "class_names": tuple(values["class_names"]),
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "vision": VisionConfig(**values["vision"]) if values.get("vision") else None,
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class StudentFeatures(ImageFeatures):
    """The answer for all classes."""

    logits: torch.Tensor
    """(B, K, h, w) at the network's own resolution."""


class Student(PromptableSegmenter[StudentFeatures]):
    """Semantic segmentation of a fixed list of classes by an ordinary network; there is no text tower."""

    competition = "softmax"

    def __init__(self, name: str, config: StudentConfig) -> None:
        """Builds the network with random weights.

        Raises:
            ValueError: There is no such network.
        """
        super().__init__()
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.class_names = config.class_names
        if config.vision is not None:
            self.network = _ClipNetwork(config.vision, len(config.class_names))
        else:
            self.network = build_network(config.network, len(config.class_names))

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Student:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no student.
        """
        return cls(name, StudentConfig.from_dict(config["student"]))

    def file_config(self) -> dict[str, Any]:
        """Returns what a weight file says about this model, plain values for JSON."""
        return {"kind": "student", "student": self.config.to_dict()}

    @classmethod
    def from_tower(
        cls, name: str, visual: ModifiedResNet, class_names: Sequence[str], input_spec: InputSpec
    ) -> Student:
        """Builds a student that begins with copies of CLIP's convolutions; the rest is random.

        Args:
            name: Of the model.
            visual: The image tower; its attention pool is not needed.
            class_names: K classes.
            input_spec: With the colours that the tower is used to.
        """
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        vision = VisionConfig(tuple(map(len, stages)), visual.conv3.out_channels, visual.image_size)
        student = cls(name, StudentConfig(CLIP_NETWORK, tuple(class_names), input_spec, vision))
        student.network.backbone.load_state_dict(
            {key: value for key, value in visual.state_dict().items() if not key.startswith("attnpool.")}
        )
        return student

    def encode_image(self, pixels: torch.Tensor) -> StudentFeatures:
        """Computes the logits of all classes: that is all there is to do."""
        return StudentFeatures(self.network(pixels))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Returns a row for each class, (P, K): 1 at its place, 0 elsewhere.

        Raises:
            ValueError: One of them is no class of this model.
        """
        places = torch.tensor([self.class_names.index(prompt) for prompt in prompts])
        device = next(self.parameters()).device
        return TextFeatures(nn.functional.one_hot(places, len(self.class_names)).float().to(device))

    def decode(self, image: StudentFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns the logits (B, P, h, w) of the classes that were asked about, at the network's own resolution."""
        return image.logits[:, text.pooled.argmax(dim=1)]


def known_networks() -> str:
    """Lists what ``build_network`` takes, for messages."""
    return f"{', '.join(TORCHVISION_NETWORKS)}, or {TIMM_PREFIX}BACKBONE such as {TIMM_PREFIX}mobilenetv3_small_100"


def build_network(name: str, class_count: int) -> nn.Module:
    """Builds a network with random weights that maps pixels (B, 3, H, W) to logits (B, ``class_count``, h, w).

    Args:
        name: One of ``TORCHVISION_NETWORKS``, or ``timm:`` and the name of a backbone with maps at strides 4 to 32.
        class_count: K.

    Raises:
        ValueError: There is no such network, or timm's has no such maps.
    """
    if name in TORCHVISION_NETWORKS:
        return _TorchvisionNetwork(name, class_count)
    if name.startswith(TIMM_PREFIX):
        return _TimmNetwork(name.removeprefix(TIMM_PREFIX), class_count)
    raise ValueError(f'there is no network "{name}": use {known_networks()}')


def imagenet_input(short_side: int) -> InputSpec:
    """Returns how a student wants its image: ``short_side`` pixels, its shape kept, colours as ImageNet's."""
    return InputSpec(short_side, "short_side", MULTIPLE, IMAGENET_MEAN, IMAGENET_STD)


class _TorchvisionNetwork(nn.Module):
    """One of torchvision's, without its last step, which blows logits up to the size of the pixels: callers do that."""

    def __init__(self, name: str, class_count: int) -> None:
        super().__init__()
        whole = TORCHVISION_NETWORKS[name](weights=None, weights_backbone=None, num_classes=class_count)
        self.backbone, self.classifier = whole.backbone, whole.classifier
        # LR-ASPP looks at two maps, the others at one.
        self._all_maps = isinstance(whole, segmentation.LRASPP)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(pixels)
        return self.classifier(maps if self._all_maps else maps["out"])


class _ClipNetwork(nn.Module):
    """CLIP's ResNet without its attention pool under a pyramid of few channels; logits at stride 4."""

    def __init__(self, vision: VisionConfig, class_count: int) -> None:
        super().__init__()
        # The width of the embedding is that of the pool, which goes.
        self.backbone = build_vision_tower(vision, embed_dim=vision.width, quick_gelu=False)
        self.backbone.attnpool = nn.Identity()
        stages = (self.backbone.layer1, self.backbone.layer2, self.backbone.layer3, self.backbone.layer4)
        self.neck = FeaturePyramid([stage[-1].bn3.num_features for stage in stages], _PYRAMID_CHANNELS)
        self.head = SemanticFPNHead(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, class_count, _DROPOUT)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        backbone = self.backbone
        maps = [backbone.stem(pixels)]
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            maps.append(stage(maps[-1]))
        return self.head(self.neck(maps[1:]))


class _TimmNetwork(nn.Module):
    """A backbone of timm under a pyramid of few channels; logits at stride 4."""

    def __init__(self, name: str, class_count: int) -> None:
        super().__init__()
        try:
            self.backbone = timm.create_model(name, pretrained=False, features_only=True)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f'timm has no backbone "{name}" that gives its maps ({error}): use {known_networks()}'
            ) from error
        strides = tuple(self.backbone.feature_info.reduction()[-4:])
        # Those whose channels come last, Swin and its kin, also want all images of one size.
        if strides != _PYRAMID_STRIDES or getattr(self.backbone, "output_fmt", Format.NCHW) != Format.NCHW:
            raise ValueError(f'"{name}" will not do: needed are maps (B, C, h, w) at strides {_PYRAMID_STRIDES}')
        widths = self.backbone.feature_info.channels()[-4:]
        self.neck = FeaturePyramid(widths, _PYRAMID_CHANNELS)
        self.head = SemanticFPNHead(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, class_count, _DROPOUT)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.neck(self.backbone(pixels)[-4:]))
