# SPDX-License-Identifier: Apache-2.0
"""Builds torchvision's detectors for maps of a given width, with the settings of DenseCLIP's authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clip_seg_ros.models.denseclip.operators import complete_torchvision

_LEVELS = 5
_RATIOS = (0.5, 1.0, 2.0)
_BOX_CELLS, _MASK_CELLS, _SAMPLES = 7, 14, 2
"""The cells along a side of a box that is classified, or whose mask is drawn; and the points along a side of a cell."""


@dataclass(frozen=True)
class DetectorSizes:
    """The sizes of a detector; those with the same name are described in ``DenseCLIPInstancesConfig``."""

    widths: tuple[int, ...]
    """The numbers of channels of the four maps at strides 4 to 32."""
    class_count: int
    pyramid_channels: int
    box_channels: int
    mask_channels: int
    anchor_px: float
    proposals: int
    sampled_boxes: int
    least_score: float
    overlap: float
    max_objects: int


def build_mask_rcnn(sizes: DetectorSizes) -> Any:
    """Builds a Mask R-CNN (He et al., ICCV 2017) with random weights, whose ``backbone`` is an FPN of the four maps."""
    complete_torchvision()
    # torchvision is imported here, because clip.backbone must have made it importable, and few models need it.
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

    width, classes = sizes.pyramid_channels, sizes.class_count + 1  # the background is class 0
    pyramid = FeaturePyramidNetwork(list(sizes.widths), width, LastLevelMaxPool())
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


def build_retinanet(sizes: DetectorSizes) -> Any:
    """Builds a RetinaNet (Lin et al., ICCV 2017) with random weights.

    Its ``backbone`` is an FPN of the maps at strides 8 to 32, with two more levels made of the last map.
    """
    complete_torchvision()
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

    width = sizes.pyramid_channels
    pyramid = FeaturePyramidNetwork(list(sizes.widths[1:]), width, LastLevelP6P7(sizes.widths[-1], width))
    pyramid.out_channels = width
    steps = [2 ** (third / 3) for third in range(3)]
    return RetinaNet(
        pyramid,
        sizes.class_count,
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
