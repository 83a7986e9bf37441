# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig, build_open_clip


@pytest.mark.parametrize(
    "vision",
    [
        VisionConfig(layers=5, width=24, image_size=32, patch_size=8, head_width=12),
        VisionConfig(layers=(1, 2, 1, 1), width=8, image_size=64, output_stride=16),
    ],
)
def test_config_survives_json(vision: VisionConfig) -> None:
    config = ClipConfig(20, vision, TextConfig(12, 30, 16, 2, 2), quick_gelu=True)
    assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_refuses_unknown_names() -> None:
    values = ClipConfig(20, VisionConfig(5, 24, 32), TextConfig(12, 30, 16, 2, 2)).to_dict()
    values["vision"]["depth"] = 5
    with pytest.raises(TypeError, match="depth"):
        ClipConfig.from_dict(values)


def test_builds_what_open_clip_knows() -> None:
    clip = build_open_clip("RN50-quickgelu")
    assert clip.visual.output_dim == 1024
    assert clip.context_length == 77


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-Z-99", 'knows no architecture "ViT-Z-99"; it knows .*ViT-B-16'),
        ("ViT-B-16-SigLIP", "is a CustomTextCLIP with a TimmModel"),
    ],
)
def test_refuses_what_cannot_be_looked_into(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_open_clip(name)
