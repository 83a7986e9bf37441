# SPDX-License-Identifier: Apache-2.0
"""Budgets of the models at their public sizes, and that nothing in them waits for the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import VisionConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec
from clip_seg_ros.models.student.model import StudentConfig
from clip_seg_ros.zoo.formats import convert
from costs import META, gflops, launches, no_waiting, on_meta, pixels_on_meta, text_on_meta
from published_layouts import published


@functools.cache
def config(layout: str) -> dict[str, Any]:
    return dict(convert(published(layout, empty=True), layout, {}).config)


def changed(layout: str, part: str, **options: Any) -> dict[str, Any]:
    """The configuration of a layout with other options in one of its parts."""
    values = config(layout)
    return {**values, part: {**values[part], **options}}


# Layout, shape of the pixels, and for each number of prompts the largest number of kernels and of GFLOP, for encoding
# and decoding together. Both are what the models need now, with one percent to spare.
BUDGETS = {
    "clipseg": ("clipseg_hf_rd64_refined", (1, 3, 352, 352), 512, None, {1: (155, 78.5), 13: (155, 91.4)}),
    "cris": ("cris_r50", (1, 3, 416, 416), 1024, (17, 512), {1: (275, 103.6), 13: (280, 662)}),
    "maskclip": ("openai_clip_vit_b16", (1, 3, 512, 683), 512, None, {21: (135, 300.5)}),
    "denseclip": ("denseclip_rn50_fpn_ade20k", (2, 3, 512, 512), 1024, None, {150: (265, 255)}),
    "denseclip vit": ("denseclip_vit_b_fpn_ade20k", (1, 3, 640, 640), 512, None, {150: (277, 526)}),
}


@pytest.mark.parametrize("name", BUDGETS)
@torch.no_grad()
def test_kernels_and_operations_stay_within_their_budgets(name: str) -> None:
    layout, shape, width, tokens, budgets = BUDGETS[name]
    model, pixels = on_meta(config(layout)), pixels_on_meta(*shape)
    for prompts, (kernels, operations) in budgets.items():
        text = text_on_meta(width, prompts, tokens)
        run = functools.partial(answer, model, pixels, text)
        started = launches(run)
        assert started.total() <= kernels, f"{prompts} prompts: {started.most_common()}"
        assert gflops(run) <= operations, f"{prompts} prompts"


@pytest.mark.parametrize(
    ("variant", "kernels", "operations"), [("naclip", 126, 296.5), ("scclip", 207, 323.3), ("resclip", 153, 333.2)]
)
@torch.no_grad()
def test_what_successors_of_maskclip_cost(variant: str, kernels: int, operations: float) -> None:
    """For encoding; MaskCLIP itself needs 297.4 GFLOP."""
    model = on_meta(changed("openai_clip_vit_b16", "maskclip", variant=variant))
    run = functools.partial(model.encode_image, pixels_on_meta(1, 3, 512, 683))
    assert launches(run).total() <= kernels
    assert 0.98 * operations <= gflops(run) <= operations


def answer(model: PromptableSegmenter, pixels: torch.Tensor, text: TextFeatures) -> torch.Tensor:
    return model.decode(model.encode_image(pixels), text)


REFINED = {"key_smoothing": 1.0, "prompt_denoising": 0.5, "pamr_iterations": 2}
STUDENT = {
    "kind": "student",
    "student": StudentConfig(
        "clip", ("cup", "bowl"), InputSpec(64, "squash", 32, CLIP_MEAN, CLIP_STD), VisionConfig((1, 1, 1, 1), 8, 64)
    ).to_dict(),
}
# (configuration, width of the text, (length, width) of its tokens, number of prompts)
DEVICE_CASES: dict[str, Callable[[], tuple[dict[str, Any], int, tuple[int, int] | None, int]]] = {
    "clipseg": lambda: (config("clipseg_hf_rd64_refined"), 512, None, 3),
    "cris": lambda: (config("cris_r50"), 1024, (17, 512), 3),
    "cris with detail": lambda: (changed("cris_r50", "cris", detail_channels=16), 1024, (17, 512), 3),
    "denseclip": lambda: (config("denseclip_rn50_fpn_ade20k"), 1024, None, 150),
    "denseclip pre": lambda: (changed("denseclip_rn50_fpn_ade20k", "denseclip", prompting="pre"), 1024, (5, 512), 150),
    "denseclip vit": lambda: (config("denseclip_vit_b_fpn_ade20k"), 512, None, 150),
    "maskclip": lambda: (config("openai_clip_vit_b16"), 512, None, 3),
    "maskclip resnet": lambda: (config("openai_clip_rn50"), 1024, None, 3),
    "maskclip refined": lambda: (changed("openai_clip_vit_b16", "maskclip", **REFINED), 512, None, 3),
    "sclip": lambda: (changed("openai_clip_vit_b16", "maskclip", variant="sclip"), 512, None, 3),
    "clearclip": lambda: (changed("openai_clip_vit_b16", "maskclip", variant="clearclip"), 512, None, 3),
    "naclip": lambda: (changed("openai_clip_vit_b16", "maskclip", variant="naclip"), 512, None, 3),
    "scclip": lambda: (changed("openai_clip_vit_b16", "maskclip", variant="scclip"), 512, None, 3),
    "resclip": lambda: (changed("openai_clip_vit_b16", "maskclip", variant="resclip"), 512, None, 3),
    "student": lambda: (STUDENT, 2, None, 2),
}


@pytest.mark.parametrize("name", DEVICE_CASES)
def test_nothing_waits_for_the_host(name: str) -> None:
    values, width, tokens, prompts = DEVICE_CASES[name]()
    model, text = on_meta(values), text_on_meta(width, prompts, tokens)
    pixels = pixels_on_meta(2, 3, 64, 96)
    with no_waiting():
        logits = answer(model, pixels, text)
    assert logits.shape[:2] == (2, prompts)
    assert logits.device == META


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x[[0, 1]],
        lambda x: x.new_tensor(-100.0),
        lambda x: torch.where(x > 0, x.new_tensor(-100.0), x),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.arange(2).to(x.device),
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.masked_select(x > 0),
    ],
    ids=["indices", "number", "where", "numbers", "sent numbers", "item", "cpu", "mask", "nonzero", "selection"],
)
def test_waiting_is_noticed(step: Callable[[torch.Tensor], object]) -> None:
    x = torch.empty(3, 4, device=META)
    with pytest.raises(AssertionError, match=r"host|waits"), no_waiting():
        step(x)


def test_numbers_as_arguments_do_not_wait() -> None:
    x = torch.empty(3, 4, device=META)
    with no_waiting():
        (2 * x).masked_fill(x > 0, -100.0).clamp(min=0.5)
