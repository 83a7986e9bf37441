# SPDX-License-Identifier: Apache-2.0
"""Files that are not whole are refused with every fault named, in the file's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.zoo.formats import convert

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
CLIPSEG = {"extract_layers": (1, 2, 4), "vision_head_width": 12, "text_head_width": 8}
# recording -> (options, three keys of it)
CASES = {
    "clipseg_simple": (CLIPSEG, "film_mul.bias", "clip_model.visual.ln_pre.weight", "blocks.1.linear2.weight"),
    "cris_rn": (
        {"n_heads": 4, "text_head_width": 8},
        "proj.txt.bias",
        "backbone.visual.attnpool.connect.1.weight",
        "neck.aggr.0.weight",
    ),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple:
    """(tensors, options, a key to remove, one to rename, one to make mis-shaped)"""
    return load_file(GOLDEN / f"{request.param}.safetensors"), *CASES[request.param]


def test_a_whole_file_converts(case: tuple) -> None:
    tensors, options, *_ = case
    assert convert(tensors, "file", options).tensors


def test_every_fault_is_named(case: tuple) -> None:
    tensors, options, removed, renamed, misshaped = case
    damaged = dict(tensors)
    del damaged[removed]
    damaged[f"{renamed}_old"] = damaged.pop(renamed)
    damaged[misshaped] = damaged[misshaped][:-1]
    with pytest.raises(WeightsError) as caught:
        convert(damaged, "file.pth", options)
    message = str(caught.value)
    assert message.startswith("file.pth (")
    assert "is not whole" in message
    assert f"{removed} is missing" in message
    assert f"{renamed} is missing" in message
    assert f"{renamed}_old is unexpected" in message
    right, wrong = tuple(tensors[misshaped].shape), tuple(damaged[misshaped].shape)
    assert f"{misshaped} is {wrong} and should be {right}" in message


def test_an_unknown_option_is_refused(case: tuple) -> None:
    tensors, options, *_ = case
    with pytest.raises(ValueError, match=r"takes no colour; it takes .*text_head_width"):
        convert(tensors, "file", {**options, "colour": "red"})


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(
        WeightsError, match=r"layout that is not known. Its first keys: a, b. Known layouts:\n  Hugging"
    ):
        convert({"a": torch.zeros(1), "b": torch.zeros(1)}, "file")


def test_a_decoder_alone_asks_for_its_clip() -> None:
    tensors = load_file(GOLDEN / "clipseg_simple.safetensors")
    decoder = {key: value for key, value in tensors.items() if not key.startswith("clip_model.")}
    with pytest.raises(WeightsError, match=r"needs the CLIP it was trained on.*--clip FILE"):
        convert(decoder, "rd64-uni.pth", CLIPSEG)
    clip = {key.removeprefix("clip_model."): tensors[key] for key in tensors if key.startswith("clip_model.")}
    together, whole = convert(decoder, "a", {**CLIPSEG, "clip": clip}), convert(tensors, "b", CLIPSEG)
    assert together.config == whole.config
    assert all(torch.equal(together.tensors[key], whole.tensors[key]) for key in whole.tensors)
