# SPDX-License-Identifier: Apache-2.0
"""The network of a small SAM 3 with random weights, for tests that skip themselves where transformers is missing."""

from __future__ import annotations

from typing import Any

import torch

from clip_seg_ros.models.sam3.network import require_transformers

_TRANSFORMER = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.0}
_TOWER = {
    "model_type": "sam3_vit_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "window_size": 4,
    "global_attn_indexes": [1],
    "pretrain_image_size": 56,
}
_TEXT = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "hidden_act": "gelu",
}


def small_network() -> Any:
    """Returns transformers' network with weights that make every part of it visible in its answers.

    Raises:
        WeightsError: transformers is missing or too old.
    """
    transformers = require_transformers()
    config = transformers.Sam3Config(
        vision_config={"backbone_config": _TOWER, "fpn_hidden_size": 32},
        text_config=_TEXT,
        geometry_encoder_config=_TRANSFORMER,
        detr_encoder_config=_TRANSFORMER,
        detr_decoder_config={**_TRANSFORMER, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    torch.manual_seed(0)
    network = transformers.Sam3Model(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.6 * torch.rand_like(parameter) - 0.3)
            elif "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.3 / parameter[0].numel() ** 0.5)
            else:
                parameter.mul_(20.0)
    return network
