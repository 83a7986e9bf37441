# SPDX-License-Identifier: Apache-2.0
"""The models that are timed are those that were published, but for their numbers."""

from __future__ import annotations

import pytest

from clip_seg_ros.tools.published_sizes import LAYOUTS, random_model
from clip_seg_ros.zoo.build import MODEL_KINDS
from clip_seg_ros.zoo.formats import convert
from published_layouts import published

FILES = {
    "clipseg-rd64-refined": "clipseg_hf_rd64_refined",
    "cris-r50": "cris_r50",
    "denseclip-rn50": "denseclip_rn50_fpn_ade20k",
    "maskclip-vit-b16": "openai_clip_vit_b16",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_published_model(layout: str) -> None:
    converted = convert(published(FILES[layout], empty=True), layout)
    model = random_model(layout)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}

    assert shapes == {key: tuple(value.shape) for key, value in converted.tensors.items()}
    named = MODEL_KINDS[converted.config["kind"]](layout, converted.config)
    assert model.input_spec == named.input_spec
    assert (model.class_names, model.background_prompts) == (named.class_names, named.background_prompts)
    assert model.tokenizer.context_length == named.tokenizer.context_length
