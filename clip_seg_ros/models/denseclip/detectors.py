# SPDX-License-Identifier: Apache-2.0
"""The settings of DenseCLIP's detectors, and torchvision's detectors with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clip_seg_ros.models.denseclip.backbones import STRIDES
from clip_seg_ros.models.denseclip.prompting import PromptingConfig
from clip_seg_ros.models.operators import complete_torchvision

_LEVELS = 5
_RATIOS = (0.5, 1.0, 2.0)
_BOX_CELLS, _MASK_CELLS, _SAMPLES = 7, 14, 2
"""The cells along a side of a box that is classified, or whose mask is drawn; and the points along a side of a cell."""


@dataclass(frozen=True)
class DenseCLIPInstancesConfig(PromptingConfig):
    """Everything besides its towers that determines the shapes of the detector, and how it chooses objects.

    The defaults are the authors' for COCO.
    """

    head: Literal["mask_rcnn", "retinanet"] = "mask_rcnn"
    """Mask R-CNN gives boxes and masks, RetinaNet boxes alone."""
    pyramid_channels: int = 256
    box_channels: int = 1024
    """Mask R-CNN only: the width of the two layers that classify a box."""
    mask_channels: int = 256
    """Mask R-CNN only: the width of the four layers that draw a mask."""
    anchor_px: float = 32.0
    """Side of the smallest anchors in pixels; each of five levels doubles it."""
    proposals: int = 1000
    """Mask R-CNN only: the largest number of boxes of an image that are classified."""
    sampled_boxes: int = 512
    """Mask R-CNN only: the number of these that the loss counts in training."""
    least_score: float = 0.05
    """Objects with a lower score are left out, 0..1."""
    overlap: float = 0.5
    """Of two boxes of one class whose IoU is larger than this, the better one is kept, 0..1."""
    max_objects: int = 100
    """The largest number of objects in an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in ("mask_rcnn", "retinanet"):
            raise ValueError(f'head must be "mask_rcnn" or "retinanet", got "{self.head}"')
        if self.input_spec.resize == "letterbox" or self.input_spec.window is not None:
            raise ValueError("a detector sees the whole image: its input has neither a letterbox nor windows")
        if self.input_spec.multiple % STRIDES[-1]:
            raise ValueError(f"a detector's images have sides that are multiples of {STRIDES[-1]}")


def build_mask_rcnn(sizes: DenseCLIPInstancesConfig, widths: Sequence[int]) -> Any:
    """Builds a Mask R-CNN (He et al., ICCV 2017) with random weights, whose ``backbone`` is an FPN of the four maps.

    Args:
        sizes: The settings.
        widths: The numbers of channels of the maps at strides 4 to 32.
    """
    complete_torchvision()
    # torchvision is imported here, because clip.backbone must have made it importable, and few models need it.
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

    width, classes = sizes.pyramid_channels, len(sizes.class_names) + 1  # the background is class 0
    pyramid = FeaturePyramidNetwork(list(widths), width, LastLevelMaxPool())
    pyramid.out_channels = width
    return MaskRCNN(
        pyramid,
        rpn_anchor_generator=AnchorGenerator(
            tuple((sizes.anchor_px * 2**level,) for level in range(_LEVELS)), (_RATIOS,) * _LEVELS
        ),
        rpn_pre_nms_top_n_train=2 * sizes.proposals,
        rpn_pre_nms_top_n_test=sizes.proposals,
        rpn_post_nms_top_n_train=sizes.proposals,
        rpn_post_nms_top_n_test=sizes.proposals,
        box_roi_pool=_pooling(_BOX_CELLS),
        box_head=TwoMLPHead(width * _BOX_CELLS**2, sizes.box_channels),
        box_predictor=FastRCNNPredictor(sizes.box_channels, classes),
        box_score_thresh=sizes.least_score,
        box_nms_thresh=sizes.overlap,
        box_detections_per_img=sizes.max_objects,
        box_batch_size_per_image=sizes.sampled_boxes,
        mask_roi_pool=_pooling(_MASK_CELLS),
        mask_head=MaskRCNNHeads(width, (sizes.mask_channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(sizes.mask_channels, sizes.mask_channels, classes),
    )


def build_retinanet(sizes: DenseCLIPInstancesConfig, widths: Sequence[int]) -> Any:
    """Builds a RetinaNet (Lin et al., ICCV 2017) with random weights.

    Its ``backbone`` is an FPN of the maps at strides 8 to 32, with two more levels made of the last map. The arguments
    are those of ``build_mask_rcnn``.
    """
    complete_torchvision()
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

    width = sizes.pyramid_channels
    pyramid = FeaturePyramidNetwork(list(widths[1:]), width, LastLevelP6P7(widths[-1], width))
    pyramid.out_channels = width
    steps = [2 ** (third / 3) for third in range(3)]
    return RetinaNet(
        pyramid,
        len(sizes.class_names),
        anchor_generator=AnchorGenerator(
            tuple(tuple(sizes.anchor_px * 2**level * step for step in steps) for level in range(_LEVELS)),
            (_RATIOS,) * _LEVELS,
        ),
        score_thresh=sizes.least_score,
        nms_thresh=sizes.overlap,
        detections_per_img=sizes.max_objects,
    )


def _pooling(cells: int) -> Any:
    """Returns RoIAlign over the levels of strides 4 to 32."""
    from torchvision.ops.poolers import MultiScaleRoIAlign, initLevelMapper

    pooling = MultiScaleRoIAlign([str(level) for level in range(4)], cells, _SAMPLES)
    # Otherwise it would guess the strides from the first batch, whose images may be padded.
    pooling.scales = [1 / 2 ** (2 + level) for level in range(4)]
    pooling.map_levels = initLevelMapper(2, 5)
    return pooling
