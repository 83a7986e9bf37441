# SPDX-License-Identifier: Apache-2.0
"""Writes a SAM 2 or an EdgeTAM with few random weights, in the layout of the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from clip_seg_ros.models.clip import backbone  # noqa: F401 -- makes torchvision importable where it does not fit torch

from transformers import (  # isort: skip
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVisionConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VisionConfig,
    TimmWrapperConfig,
)

SIDE_PX = 64


def write_small_sam(folder: Path, kind: Literal["sam2", "edgetam"] = "sam2") -> Path:
    """Writes model and processor into a folder, and returns it; an EdgeTAM has the smallest RepViT of timm."""
    torch.manual_seed(0)
    side = SIDE_PX if kind == "sam2" else 2 * SIDE_PX  # the trunk of an EdgeTAM has one stride more
    parts = {
        "prompt_encoder_config": {"hidden_size": 32, "image_size": side, "patch_size": 16},
        "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    }
    if kind == "sam2":
        model = Sam2Model(Sam2Config(vision_config=_sam2_vision(), **parts))
    else:
        model = EdgeTamModel(EdgeTamConfig(vision_config=_edgetam_vision(), **parts))
    model.eval()
    for parameter in model.parameters():
        # As they are initialised, a mistake would hardly show.
        parameter.data += 0.1 * torch.randn(parameter.shape) if kind == "sam2" else 0.02 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    size, mask_size = ({"height": px, "width": px} for px in (side, side // 4))
    Sam2Processor(Sam2ImageProcessor(size=size, mask_size=mask_size)).save_pretrained(folder)
    return folder


def _sam2_vision() -> Sam2VisionConfig:
    trunk = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE_PX, SIDE_PX],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    return Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )


def _edgetam_vision() -> EdgeTamVisionConfig:
    chosen = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    return EdgeTamVisionConfig(
        backbone_config=TimmWrapperConfig(architecture="repvit_m0_9", model_args=chosen),
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
