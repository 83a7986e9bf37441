# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import IdTokenizer
from clip_seg_ros.models.cris.model import CRIS, CRISConfig
from clip_seg_ros.models.cris.parts import Projector, VisionLanguageDecoder
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec
from nearness import assert_near

WORDS = 9
PROMPTS = ["28 5 29", "28 5 6 7 8 29", "28 1 2 29"]
CONFIG = CRISConfig(
    fpn_out=(12, 16, 24),
    input_spec=InputSpec(96, "letterbox", 32, CLIP_MEAN, CLIP_STD),
    n_layers=2,
    n_heads=4,
    feed_forward=32,
)


def clip_config(**vision) -> ClipConfig:
    tower = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 64, "head_width": 32, **vision}
    return ClipConfig(20, VisionConfig(**tower), TextConfig(12, 30, 16, 2, 2), quick_gelu=True)


@pytest.fixture
def cris() -> CRIS:
    torch.manual_seed(0)
    return CRIS("tiny", build_clip(clip_config()), CONFIG, IdTokenizer(30, WORDS)).eval()


@torch.no_grad()
def test_asking_together_equals_asking_one_by_one(cris: CRIS, pixels: torch.Tensor) -> None:
    features = cris.encode_image(pixels)
    together = cris.decode(features, cris.encode_text(PROMPTS))
    assert together.shape == (2, 3, 16, 24)
    for index, prompt in enumerate(PROMPTS):
        alone = cris.decode(features, cris.encode_text([prompt]))
        assert_near(together[:, index : index + 1], alone, relative=2e-5)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_images_of_a_batch_do_not_mix(cris: CRIS, pixels: torch.Tensor) -> None:
    text = cris.encode_text(PROMPTS)
    together = cris.decode(cris.encode_image(pixels), text)
    alone = cris.decode(cris.encode_image(pixels[1:]), text)
    assert_near(together[1:], alone, relative=2e-5)


@torch.no_grad()
def test_padding_is_not_read(cris: CRIS, pixels: torch.Tensor) -> None:
    features, text = cris.encode_image(pixels), cris.encode_text(PROMPTS)
    assert text.tokens.shape == (3, WORDS, 16)
    expected = cris.decode(features, text)
    noise = torch.where(text.padding_mask[..., None], torch.randn_like(text.tokens), text.tokens)
    assert_near(cris.decode(features, replace(text, tokens=noise)), expected)


@torch.no_grad()
def test_half_precision_is_close(cris: CRIS, pixels: torch.Tensor) -> None:
    expected = cris.decode(cris.encode_image(pixels), cris.encode_text(PROMPTS))
    cris.to(torch.bfloat16)
    logits = cris.decode(cris.encode_image(pixels.bfloat16()), cris.encode_text(PROMPTS))
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.1 * expected.std()


def test_gradient_reaches_every_parameter(cris: CRIS, pixels: torch.Tensor) -> None:
    cris.train()
    for norm in cris.clip.visual.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            # open_clip starts residual branches at zero, where no gradient passes.
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    cris(pixels, cris.tokenizer(PROMPTS[:2])).square().mean().backward()
    # The temperature of CLIP's own training is the only weight that CRIS does not use.
    unused = {name for name, p in cris.named_parameters() if p.grad is None or not p.grad.any()}
    assert unused <= {"clip.logit_scale", "clip.visual.attnpool.k_proj.bias"}, unused


def test_config_survives_json() -> None:
    assert CRISConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_parts_must_fit() -> None:
    clip = build_clip(clip_config())
    with pytest.raises(ValueError, match="width must be that of the words, 16, got 8"):
        CRIS("wrong", clip, replace(CONFIG, fpn_out=(8, 8, 8)), IdTokenizer(30, WORDS))
    with pytest.raises(ValueError, match="width 16 must divide by 4 and by its 3 heads"):
        CRIS("wrong", clip, replace(CONFIG, n_heads=3), IdTokenizer(30, WORDS))
    with pytest.raises(ValueError, match="31 pieces and 9 words does not fit a text tower of 30 and 12"):
        CRIS("wrong", clip, CONFIG, IdTokenizer(31, WORDS))
    vit = build_clip(clip_config(layers=2, patch_size=16, head_width=4))
    with pytest.raises(ValueError, match="needs a ResNet as its image tower, got a VisionTransformer"):
        CRIS("wrong", vit, CONFIG, IdTokenizer(30, WORDS))


def test_too_large_an_image_is_refused() -> None:
    decoder = VisionLanguageDecoder(8, 1, 2, 8, 0.1, 5)
    with pytest.raises(ValueError, match="at most 4096 pixels a side"):
        decoder.grid_position(4, 257)


@torch.no_grad()
@pytest.mark.parametrize("sentences", [1, 3])
def test_several_sentences_an_image_equal_asking_one_by_one(cris: CRIS, pixels: torch.Tensor, sentences: int) -> None:
    asked = [PROMPTS[:sentences], PROMPTS[::-1][:sentences]]  # another order for the second image
    together = cris(pixels, cris.tokenizer([prompt for prompts in asked for prompt in prompts]))
    assert together.shape == (2 * sentences, 16, 24)
    for image, prompts in enumerate(asked):
        for row, prompt in enumerate(prompts):
            alone = cris.decode(cris.encode_image(pixels[image : image + 1]), cris.encode_text([prompt]))[0, 0]
            assert_near(together[image * sentences + row], alone, relative=2e-5)


def test_detail_corrects_nothing_before_it_is_trained(cris: CRIS, pixels: torch.Tensor) -> None:
    detailed = CRIS("detailed", build_clip(clip_config()), replace(CONFIG, detail_channels=4), IdTokenizer(30, WORDS))
    missing = detailed.load_state_dict(cris.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"detail", "proj"}
    with torch.no_grad():
        expected = cris.decode(cris.encode_image(pixels), cris.encode_text(PROMPTS))
        detailed.eval()
        found = detailed.decode(detailed.encode_image(pixels), detailed.encode_text(PROMPTS))
    assert_near(found, expected)


def test_detail_moves_what_lies_in_a_place(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = CRIS(
        "detailed", build_clip(clip_config()), replace(CONFIG, detail_channels=4), IdTokenizer(30, WORDS)
    ).eval()
    torch.nn.init.normal_(model.proj.sharpen[-1].weight)
    text = model.encode_text(PROMPTS)
    with torch.no_grad():
        features = model.encode_image(pixels)
        assert features.detail.shape == (2, 4, 16, 24)
        logits = model.decode(features, text)
        # Another detail at one place reaches two convolutions of 3x3 far and no further.
        other = features.detail.clone()
        other[0, :, 8, 12] += 1.0
        moved = (model.decode(replace(features, detail=other), text) - logits).abs() > 1e-3 * logits.abs().max()
    assert moved[0].any()
    assert not moved[1].any()
    rows, columns = moved[0].any(dim=0).nonzero().T
    assert rows.min() >= 6
    assert rows.max() <= 10
    assert columns.min() >= 10
    assert columns.max() <= 14


def test_inference_equals_the_equations_with_gradients(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    for detail_channels in (0, 4):
        config = replace(CONFIG, detail_channels=detail_channels)
        model = CRIS("tiny", build_clip(clip_config()), config, IdTokenizer(30, WORDS)).eval()
        if detail_channels:
            torch.nn.init.normal_(model.proj.sharpen[-1].weight)
            torch.nn.init.normal_(model.proj.sharpen[-1].bias)
        text = model.encode_text(PROMPTS)
        expected = model.decode(model.encode_image(pixels), text)
        assert expected.requires_grad
        with torch.inference_mode():
            assert_near(model.decode(model.encode_image(pixels), text), expected, relative=2e-5)


@pytest.mark.parametrize("detail_channels", [0, 4])
@torch.no_grad()
def test_the_projector_is_a_kernel_on_all_its_convolutions(detail_channels: int) -> None:
    torch.manual_seed(0)
    projector = Projector(20, 16, detail_channels).eval()
    x, state, detail = torch.randn(3, 16, 4, 5), torch.randn(3, 20), torch.randn(1, 4, 16, 20)
    pixels = projector.vis[4](projector.vis[3](projector.vis[1](x)))
    if detail_channels:
        block, correction = projector.sharpen
        torch.nn.init.normal_(correction.weight)
        torch.nn.init.normal_(correction.bias)
        convolution, norm, relu = block
        joined = torch.cat([pixels, detail.expand(3, -1, -1, -1)], dim=1)
        pixels = pixels + correction(relu(norm(convolution(joined))))
    kernel = projector.txt(state)
    expected = torch.cat(
        [
            torch.nn.functional.conv2d(one[None], weight[:-1].view(1, 8, 3, 3), weight[-1:], padding=1)[0]
            for one, weight in zip(pixels, kernel, strict=True)
        ]
    )
    assert_near(projector(x, state, *([detail, 3] if detail_channels else [])), expected)
