# SPDX-License-Identifier: Apache-2.0
"""The networks of a student: pixels -> backbone -> light head -> maps of channels.

They are torchvision's networks, the DeepLabv2 of MaskCLIP+, and a Semantic FPN on a backbone of timm or on CLIP's own
ResNet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

# This import comes before torchvision, because it makes a torchvision that does not fit torch importable.
from clip_seg_ros.models.clip.backbone import VisionConfig, build_vision_tower
from clip_seg_ros.models.denseclip.parts import FeaturePyramid, SemanticFPNHead

from torchvision.models import resnet, segmentation  # isort: skip

TORCHVISION_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lraspp_mobilenet_v3_large": segmentation.lraspp_mobilenet_v3_large,
    "deeplabv3_mobilenet_v3_large": segmentation.deeplabv3_mobilenet_v3_large,
    "deeplabv3_resnet50": segmentation.deeplabv3_resnet50,
    "deeplabv3_resnet101": segmentation.deeplabv3_resnet101,
    "fcn_resnet50": segmentation.fcn_resnet50,
    "fcn_resnet101": segmentation.fcn_resnet101,
}
"""Smallest first."""
DEEPLABV2_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv2_resnet50": resnet.resnet50,
    "deeplabv2_resnet101": resnet.resnet101,
}
"""The networks of MaskCLIP+ in the paper, by their backbones."""
CLIP_NETWORK = "clip"
TIMM_PREFIX = "timm:"
"""The prefix of the name of a backbone of timm."""
_PYRAMID_STRIDES = (4, 8, 16, 32)
_PYRAMID_CHANNELS = 64
_DROPOUT = 0.1
_ASPP_DILATIONS = (6, 12, 18, 24)
_ASPP_CHANNELS = 512


def known_networks() -> str:
    """Returns the names that ``build_network`` takes, for messages."""
    names = ", ".join((*TORCHVISION_NETWORKS, *DEEPLABV2_NETWORKS))
    return f"{names}, or {TIMM_PREFIX}BACKBONE such as {TIMM_PREFIX}mobilenetv3_small_100"


def build_network(name: str, channels: int, for_features: bool = False) -> nn.Module:
    """Builds a network with random weights that maps pixels (B, 3, H, W) to (B, ``channels``, h, w).

    Args:
        name: One of ``TORCHVISION_NETWORKS`` or ``DEEPLABV2_NETWORKS``, or ``timm:`` and the name of a backbone with
            maps at strides 4 to 32.
        channels: The number of channels: of classes, or of features.
        for_features: Whether they are features for a classifier that follows. DeepLabv2 then ends with its pyramid.

    Raises:
        ValueError: There is no such network, or the backbone of timm has no such maps.
    """
    if name in TORCHVISION_NETWORKS:
        return _TorchvisionNetwork(name, channels)
    if name in DEEPLABV2_NETWORKS:
        return _DeepLabV2(name, channels, for_features)
    if name.startswith(TIMM_PREFIX):
        return _TimmNetwork(name.removeprefix(TIMM_PREFIX), channels)
    raise ValueError(f'there is no network "{name}": use {known_networks()}')


class _TorchvisionNetwork(nn.Module):
    """One of torchvision's networks without its last step, the upsampling of logits, which is left to the caller."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        whole = TORCHVISION_NETWORKS[name](weights=None, weights_backbone=None, num_classes=channels)
        self.backbone, self.classifier = whole.backbone, whole.classifier
        # LR-ASPP uses two maps, the other networks one.
        self._all_maps = isinstance(whole, segmentation.LRASPP)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(pixels)
        return self.classifier(maps if self._all_maps else maps["out"])


class _DeepLabV2(nn.Module):
    """DeepLabv2 (Chen et al., TPAMI 2018) as the authors of MaskCLIP+ use it; its maps have stride 8.

    The branches of the atrous spatial pyramid are dilated 3x3 convolutions, each with a norm and a ReLU, and their
    outputs are summed. The backbone is torchvision's ResNet, whose first convolution is one of 7x7 pixels; that of the
    authors has three of 3x3.
    """

    def __init__(self, name: str, channels: int, for_features: bool) -> None:
        super().__init__()
        whole = DEEPLABV2_NETWORKS[name](weights=None, replace_stride_with_dilation=[False, True, True])
        width = channels if for_features else _ASPP_CHANNELS
        self.aspp = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(whole.fc.in_features, width, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for dilation in _ASPP_DILATIONS
        )
        whole.fc = nn.Identity()  # the backbone keeps its layers by the names of ImageNet's checkpoints
        self.backbone = whole
        self.conv_seg = nn.Identity() if for_features else nn.Conv2d(width, channels, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        backbone = self.backbone
        maps = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(pixels))))
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            maps = stage(maps)
        total = self.aspp[0](maps)
        for branch in self.aspp[1:]:
            total = total + branch(maps)
        return self.conv_seg(total)


class ClipNetwork(nn.Module):
    """A feature pyramid with few channels on CLIP's ResNet without its attention pool; its maps have stride 4."""

    def __init__(self, vision: VisionConfig, channels: int) -> None:
        super().__init__()
        # The width of the embedding belongs to the pool, which is removed.
        self.backbone = build_vision_tower(vision, embed_dim=vision.width, quick_gelu=False)
        self.backbone.attnpool = nn.Identity()
        stages = (self.backbone.layer1, self.backbone.layer2, self.backbone.layer3, self.backbone.layer4)
        self.neck = FeaturePyramid([stage[-1].bn3.num_features for stage in stages], _PYRAMID_CHANNELS)
        self.head = SemanticFPNHead(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, channels, _DROPOUT)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        backbone = self.backbone
        maps = [backbone.stem(pixels)]
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            maps.append(stage(maps[-1]))
        return self.head(self.neck(maps[1:]))


class _TimmNetwork(nn.Module):
    """A feature pyramid with few channels on a backbone of timm; its maps have stride 4."""

    def __init__(self, name: str, channels: int) -> None:
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
        self.head = SemanticFPNHead(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, channels, _DROPOUT)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.neck(self.backbone(pixels)[-4:]))
