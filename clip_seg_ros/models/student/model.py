# SPDX-License-Identifier: Apache-2.0
"""A small network for one list of classes, taught by a larger model: the target model of MaskCLIP+.

    pixels -> backbone -> light head -> logits of K classes

In Zhou et al., ECCV 2022, section 3.3, it may be any segmentation network, because the text tower and CLIP's image
tower are needed only for its training. Here it is one of torchvision's networks, or a Semantic FPN on a backbone of
timm or on CLIP's own ResNet. The last one can begin with the weights of its teacher's image tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures

# This import comes before torchvision, because it makes a torchvision that does not fit torch importable.
from clip_seg_ros.models.clip.backbone import ModifiedResNet, VisionConfig, build_vision_tower
from clip_seg_ros.models.denseclip.parts import FeaturePyramid, SemanticFPNHead
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

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
"""The prefix of the name of a backbone of timm."""
MULTIPLE = 32
"""Sides of the pixels are rounded to multiples of this number, the coarsest stride."""
_PYRAMID_STRIDES = (4, 8, 16, 32)
_PYRAMID_CHANNELS = 64
_DROPOUT = 0.1


@dataclass(frozen=True)
class StudentConfig:
    """The network and the classes of a student."""

    network: str
    """One of ``TORCHVISION_NETWORKS``, ``timm:`` and the name of a backbone, or ``CLIP_NETWORK``."""
    class_names: tuple[str, ...]
    """The K classes, in the order of the logits."""
    input_spec: InputSpec
    vision: VisionConfig | None = None
    """The shape of the ResNet of ``CLIP_NETWORK``; ``None`` for the other networks."""

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
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            TypeError: Names are unknown or missing.
            ValueError: A value is wrong.
        """
        nested = {
            "class_names": tuple(values["class_names"]),
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "vision": VisionConfig(**values["vision"]) if values.get("vision") else None,
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class StudentFeatures(ImageFeatures):
    """The logits of all classes."""

    logits: torch.Tensor
    """(B, K, h, w) at the network's own resolution."""


class Student(PromptableSegmenter[StudentFeatures]):
    """Semantic segmentation of a fixed list of classes by an ordinary network; there is no text tower."""

    competition = "softmax"
    light_decode = True

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
        """Returns the configuration of this model for a weight file, as plain values for JSON."""
        return {"kind": "student", "student": self.config.to_dict()}

    @classmethod
    def from_tower(
        cls, name: str, visual: ModifiedResNet, class_names: Sequence[str], input_spec: InputSpec
    ) -> Student:
        """Builds a student that begins with copies of CLIP's convolutions; the rest is random.

        Args:
            name: Name of the model.
            visual: The image tower; its attention pool is not needed.
            class_names: The names of the K classes.
            input_spec: The input spec, with the normalisation for which the tower was trained.
        """
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        vision = VisionConfig(tuple(map(len, stages)), visual.conv3.out_channels, visual.image_size)
        student = cls(name, StudentConfig(CLIP_NETWORK, tuple(class_names), input_spec, vision))
        student.network.backbone.load_state_dict(
            {key: value for key, value in visual.state_dict().items() if not key.startswith("attnpool.")}
        )
        return student

    def encode_image(self, pixels: torch.Tensor) -> StudentFeatures:
        """Computes the logits of all classes."""
        return StudentFeatures(self.network(pixels))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Returns a row for each prompt, (P, K): 1 at the index of its class, 0 elsewhere.

        Raises:
            ValueError: A prompt is not a class of this model.
        """
        places = torch.tensor([self.class_names.index(prompt) for prompt in prompts])
        device = next(self.parameters()).device
        return TextFeatures(nn.functional.one_hot(places, len(self.class_names)).float().to(device))

    def decode(self, image: StudentFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns the logits (B, P, h, w) of the prompts, at the network's own resolution."""
        return image.logits[:, text.pooled.argmax(dim=1)]


def known_networks() -> str:
    """Returns the names that ``build_network`` takes, for messages."""
    return f"{', '.join(TORCHVISION_NETWORKS)}, or {TIMM_PREFIX}BACKBONE such as {TIMM_PREFIX}mobilenetv3_small_100"


def build_network(name: str, class_count: int) -> nn.Module:
    """Builds a network with random weights that maps pixels (B, 3, H, W) to logits (B, ``class_count``, h, w).

    Args:
        name: One of ``TORCHVISION_NETWORKS``, or ``timm:`` and the name of a backbone with maps at strides 4 to 32.
        class_count: The number of classes K.

    Raises:
        ValueError: There is no such network, or the backbone of timm has no such maps.
    """
    if name in TORCHVISION_NETWORKS:
        return _TorchvisionNetwork(name, class_count)
    if name.startswith(TIMM_PREFIX):
        return _TimmNetwork(name.removeprefix(TIMM_PREFIX), class_count)
    raise ValueError(f'there is no network "{name}": use {known_networks()}')


def imagenet_input(short_side: int) -> InputSpec:
    """Returns a student's input spec: a short side of ``short_side`` pixels, and ImageNet's normalisation."""
    return InputSpec(short_side, "short_side", MULTIPLE, IMAGENET_MEAN, IMAGENET_STD)


class _TorchvisionNetwork(nn.Module):
    """One of torchvision's networks without its last step, the upsampling of logits, which is left to the caller."""

    def __init__(self, name: str, class_count: int) -> None:
        super().__init__()
        whole = TORCHVISION_NETWORKS[name](weights=None, weights_backbone=None, num_classes=class_count)
        self.backbone, self.classifier = whole.backbone, whole.classifier
        # LR-ASPP uses two maps, the other networks one.
        self._all_maps = isinstance(whole, segmentation.LRASPP)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(pixels)
        return self.classifier(maps if self._all_maps else maps["out"])


class _ClipNetwork(nn.Module):
    """A feature pyramid with few channels on CLIP's ResNet without its attention pool; logits at stride 4."""

    def __init__(self, vision: VisionConfig, class_count: int) -> None:
        super().__init__()
        # The width of the embedding belongs to the pool, which is removed.
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
    """A feature pyramid with few channels on a backbone of timm; logits at stride 4."""

    def __init__(self, name: str, class_count: int) -> None:
        # timm takes seconds to import, and few networks need it.
        import timm
        from timm.layers import Format

        super().__init__()
        try:
            self.backbone = timm.create_model(name, pretrained=False, features_only=True)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f'timm has no backbone "{name}" that gives its maps ({error}): use {known_networks()}'
            ) from error
        strides = tuple(self.backbone.feature_info.reduction()[-4:])
        # Backbones with channels last, such as Swin, also need all images to have one size.
        if strides != _PYRAMID_STRIDES or getattr(self.backbone, "output_fmt", Format.NCHW) != Format.NCHW:
            raise ValueError(f'"{name}" will not do: needed are maps (B, C, h, w) at strides {_PYRAMID_STRIDES}')
        widths = self.backbone.feature_info.channels()[-4:]
        self.neck = FeaturePyramid(widths, _PYRAMID_CHANNELS)
        self.head = SemanticFPNHead(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, class_count, _DROPOUT)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.neck(self.backbone(pixels)[-4:]))
