# SPDX-License-Identifier: Apache-2.0
"""Each published layout is taken for what it is."""

from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.zoo.formats import FORMATS, recognise
from published_layouts import published

TITLES = {
    "clipseg_hf_rd64": "Hugging Face CLIPSeg",
    "clipseg_rd16": "CLIPSeg of its authors",
    "cris_r101": "CRIS",
    "denseclip_rn50_fpn_ade20k": "DenseCLIP",
    "denseclip_vit_b_fpn_ade20k": "DenseCLIP",
    "maskclip_vit16_clip_weights": "MaskCLIP of its authors",
    "maskclip_rn50_clip_backbone": "MaskCLIP of its authors",
    "maskclip_rn50_segmentor_context59": "MaskCLIP of its authors",
    "sam3_hub": "SAM 3 of the Hugging Face hub",
    "talk2dino_vitb": "Talk2DINO",
    "talk2dino_vitb_projection": "projection of Talk2DINO",
    "openai_clip_rn50": "CLIP of OpenAI or open_clip",
    "open_clip_vit_b16": "CLIP of OpenAI or open_clip",
}


@pytest.mark.parametrize("name", TITLES)
def test_exactly_one_layout_fits(name: str) -> None:
    tensors = published(name, empty=True)
    assert [format.title for format in FORMATS if format.matches(tensors)] == [TITLES[name]]
    assert recognise(tensors, name).title == TITLES[name]


def test_every_layout_is_tried() -> None:
    assert {format.title for format in FORMATS} == set(TITLES.values())


def test_no_layout_fits() -> None:
    with pytest.raises(WeightsError, match=r"resnet\.pth has a layout that is not known.*conv1\.weight"):
        recognise({"conv1.weight": torch.ones(1)}, "resnet.pth")
