# SPDX-License-Identifier: Apache-2.0
"""CLIPSeg equals the implementation that most people know, on random weights."""

from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert
from nearness import assert_near

# After the models, which make torchvision importable where it does not fit torch.
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation  # isort: skip

VOCAB, END = 99, 98


@pytest.fixture(scope="module", params=[False, True], ids=["simple", "refined"])
def pair(request: pytest.FixtureRequest) -> tuple[CLIPSegForImageSegmentation, CLIPSeg]:
    """(theirs, ours), with the same random weights."""
    config = CLIPSegConfig(
        text_config={
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 20,
            "eos_token_id": END,
            "projection_dim": 24,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 192,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=24,
        reduce_dim=16,
        extract_layers=[0, 2, 3],
        decoder_intermediate_size=64,
        use_complex_transposed_convolution=request.param,
    )
    torch.manual_seed(0)
    theirs = CLIPSegForImageSegmentation(config).eval()
    for name, parameter in theirs.named_parameters():
        # Their initialisation is so small that a mistake would pass; the last layers set the scale of the logits.
        if "transposed_convolution" not in name:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    options = {"extract_layers": (0, 2, 3), "vision_head_width": 12, "text_head_width": 8}
    converted = convert(theirs.state_dict(), "transformers", options)
    return theirs.double(), build_from_config(
        "ours", converted.config, converted.tensors, "transformers"
    ).double().eval()


@pytest.mark.parametrize("size", [64, 96, 352])
@torch.no_grad()
def test_logits_are_equal_in_double_precision(pair: tuple[CLIPSegForImageSegmentation, CLIPSeg], size: int) -> None:
    theirs, ours = pair
    prompts = ["97 3 14 98", "97 98", "97 50 60 70 80 90 11 98"]
    ids = torch.full((3, 20), END)
    for row, prompt in zip(ids, prompts, strict=True):
        numbers = [int(number) for number in prompt.split()]
        row[: len(numbers)] = torch.tensor(numbers)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size)).double()
    expected = theirs(input_ids=ids, pixel_values=pixels.expand(3, -1, -1, -1), interpolate_pos_encoding=True).logits
    logits = ours.decode(ours.encode_image(pixels), ours.encode_text(prompts))[0]
    assert (expected[0] - expected[1]).abs().max() > 0.01
    assert_near(logits, expected, relative=1e-9)
