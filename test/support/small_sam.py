# SPDX-License-Identifier: Apache-2.0
"""Writes a SAM 2 of a few thousand random weights, in the layout of the published ones."""

from __future__ import annotations

from pathlib import Path

import torch

from clip_seg_ros.models.clip import backbone  # noqa: F401 -- makes torchvision importable where it does not fit torch

from transformers import (  # isort: skip
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VisionConfig,
)

SIDE_PX = 64


def write_small_sam(folder: Path) -> Path:
    """Writes model and processor into a folder, and returns it."""
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
    vision = Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE_PX, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    torch.manual_seed(0)
    model = Sam2Model(config).eval()
    for parameter in model.parameters():
        # As they are initialised, a mistake would hardly show.
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    side = {"height": SIDE_PX, "width": SIDE_PX}
    quarter = {"height": SIDE_PX // 4, "width": SIDE_PX // 4}
    Sam2Processor(Sam2ImageProcessor(size=side, mask_size=quarter)).save_pretrained(folder)
    return folder
