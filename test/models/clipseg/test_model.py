# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.clip.vision_taps import embed_patches
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig, CLIPSegDecoder
from clip_seg_ros.models.spec import ExampleStyle, InputSpec
from clip_seg_ros.runtime.graphs import templates_of, tokenised
from nearness import assert_near

PROMPTS = ("a red cup", "the blue bowl", "a photo of a cup.")


@pytest.mark.parametrize("clipseg", ["resnet"], indirect=True)
@torch.no_grad()
def test_coarse_tokens_are_those_of_the_fine_grid(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    features, text = clipseg.encode_image(pixels), clipseg.encode_text(PROMPTS)
    maps = clipseg.taps.feature_maps(pixels, 4)
    fine = clipseg.taps.to_tokens(maps, features.grid_size)
    assert {tap.shape[1] for tap in fine} == {features.grid_size[0] * features.grid_size[1]}
    assert features.taps[-1].shape[1] < fine[-1].shape[1]
    expected = clipseg.decoder.decode_prompts(fine, features.grid_size, text.pooled.expand(len(pixels), -1, -1))
    assert_near(clipseg.decode(features, text), expected)


@torch.no_grad()
def test_logits_have_the_size_of_the_input(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    logits = clipseg.decode(clipseg.encode_image(pixels), clipseg.encode_text(PROMPTS))
    assert logits.shape == (2, 3, 64, 96)


@torch.no_grad()
def test_asking_together_equals_asking_one_by_one(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    features = clipseg.encode_image(pixels)
    together = clipseg.decode(features, clipseg.encode_text(PROMPTS))
    for index, prompt in enumerate(PROMPTS):
        alone = clipseg.decode(features, clipseg.encode_text([prompt]))
        assert_near(together[:, index : index + 1], alone, relative=2e-5)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_images_of_a_batch_do_not_mix(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    text = clipseg.encode_text(PROMPTS)
    together = clipseg.decode(clipseg.encode_image(pixels), text)
    alone = clipseg.decode(clipseg.encode_image(pixels[1:]), text)
    assert_near(together[1:], alone, relative=2e-5)


@pytest.mark.parametrize("cond_layer", [0, 1, 2])
@torch.no_grad()
def test_conditioning_at_any_stage(clipseg: CLIPSeg, pixels: torch.Tensor, cond_layer: int) -> None:
    decoder = CLIPSegDecoder(replace(clipseg.decoder.config, cond_layer=cond_layer)).eval()
    features = clipseg.encode_image(pixels)
    conditionals = clipseg.encode_text(PROMPTS).pooled.expand(2, -1, -1)
    together = decoder.decode_prompts(features.taps, features.grid_size, conditionals)
    for index in range(len(PROMPTS)):
        alone = decoder(features.taps, features.grid_size, conditionals[:, index])
        assert_near(together[:, index], alone, relative=2e-5)


def test_gradient_reaches_every_parameter_of_the_decoder(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        features = clipseg.encode_image(pixels)
        conditional = clipseg.encode_text(PROMPTS[:2]).pooled
    logits = clipseg.decoder.train()(features.taps, features.grid_size, conditional)
    assert logits.shape == (2, 64, 96)
    logits.square().mean().backward()
    for name, parameter in clipseg.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_image_prompts(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    text = clipseg.encode_text(PROMPTS[:2]).pooled
    image = clipseg.encode_image_prompt(pixels)
    assert image.shape == text.shape
    assert_near(clipseg.mix_prompts(text, image, 0.25), 0.25 * text + 0.75 * image)
    logits = clipseg.decode(clipseg.encode_image(pixels), TextFeatures(pooled=image))
    assert logits.shape == (2, 2, 64, 96)


@torch.no_grad()
def test_each_prompt_has_a_weight_of_its_own(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    text = clipseg.encode_text(PROMPTS[:2]).pooled
    image = clipseg.encode_image_prompt(pixels)
    mixed = clipseg.mix_prompts(text, image, torch.tensor([1.0, 0.25]))
    assert_near(mixed[0], text[0])
    assert_near(mixed[1], 0.25 * text[1] + 0.75 * image[1])


# Masks inside attention are for the tower that is a ViT: five blocks, patches of 8 pixels.
on_a_vit = pytest.mark.parametrize("clipseg", ["vit"], indirect=True)


@pytest.fixture
def masks() -> torch.Tensor:
    """(2, 64, 96): an object of 2 x 3 patches, and one of a single pixel."""
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 16:32, 24:48] = True
    masks[1, 63, 95] = True
    return masks


def embedded_by_hand(
    clipseg: CLIPSeg, pixels: torch.Tensor, seen: torch.Tensor, layers: tuple[int, ...], queries: str
) -> torch.Tensor:
    """One image's embedding (D,), head by head; ``seen`` (h * w,) is 1 for patches of the object and 0 for others."""
    visual = clipseg.clip.visual
    tokens = embed_patches(visual, pixels[None], clipseg.taps._positions((8, 12), torch.float32))
    x = visual.ln_pre(tokens)[0]
    for index, block in enumerate(visual.transformer.resblocks):
        attention = block.attn
        width = attention.head_dim
        query, key, value = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        heads = []
        for start in range(0, query.shape[1], width):
            part = slice(start, start + width)
            scores = query[:, part] @ key[:, part].T * width**-0.5
            if index in layers:
                rows = slice(0, 1) if queries == "class" else slice(1, None)
                scores[rows, 1:] = scores[rows, 1:] * seen
            heads.append(scores.softmax(dim=1) @ value[:, part])
        x = x + block.ls_1(attention.out_proj(torch.cat(heads, dim=1)))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return visual.ln_post(x[0]) @ visual.proj


@on_a_vit
@pytest.mark.parametrize(("layers", "queries"), [(None, "class"), ((4,), "class"), ((1, 3), "class"), ((2,), "all")])
@torch.no_grad()
def test_scores_of_other_patches_are_multiplied_by_zero(
    clipseg: CLIPSeg, pixels: torch.Tensor, masks: torch.Tensor, layers: tuple[int, ...] | None, queries: str
) -> None:
    found = clipseg.encode_image_prompt(pixels, masks, layers, queries)
    first = torch.tensor([2 <= row < 4 and 3 <= column < 6 for row in range(8) for column in range(12)])
    # The object of a single pixel lies at the end of the last patch, where no first pixel of a patch is.
    second = torch.arange(96) == 95
    for row, seen in enumerate((first, second)):
        expected = embedded_by_hand(clipseg, pixels[row], seen.float(), layers or tuple(range(5)), queries)
        assert_near(found[row], expected, relative=2e-5)


@on_a_vit
@torch.no_grad()
def test_a_patch_belongs_to_the_object_by_its_first_pixel(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    """As the authors' nearest resizing has it: an edge that reaches into a patch does not count."""
    exact = torch.zeros(2, 64, 96, dtype=torch.bool)
    exact[:, 16:32, 24:48] = True
    wider = exact.clone()
    wider[:, 9:40, 17:56] = True
    shrunk = clipseg.encode_image_prompt(pixels, exact)
    grown = torch.zeros_like(exact)
    grown[:, 16:40, 24:56] = True
    assert_near(clipseg.encode_image_prompt(pixels, wider), clipseg.encode_image_prompt(pixels, grown))
    assert (clipseg.encode_image_prompt(pixels, wider) - shrunk).abs().amax(1).min() > 1e-3


@on_a_vit
@torch.no_grad()
def test_masking_is_a_matter_of_degree(clipseg: CLIPSeg, pixels: torch.Tensor, masks: torch.Tensor) -> None:
    whole = clipseg.encode_image_prompt(pixels)
    everything = clipseg.encode_image_prompt(pixels, torch.ones_like(masks), masked_queries="all")
    assert_near(everything, whole, relative=2e-5)
    assert_near(clipseg.encode_image_prompt(pixels, masks, ()), whole, relative=2e-5)
    variants = [(None, "class"), ((4,), "class"), (None, "all"), ((4,), "all")]
    embeddings = [clipseg.encode_image_prompt(pixels, masks, *variant) for variant in variants]
    # Of the last block, nothing but the class token is read, and "all" leaves its scores alone.
    assert_near(embeddings.pop(), whole, relative=2e-5)
    for first, second in combinations([whole, *embeddings], 2):
        assert (first - second).abs().amax(1).min() > 1e-3
    alone = clipseg.encode_image_prompt(pixels[1:], masks[1:])
    assert_near(alone, embeddings[0][1:], relative=2e-5)


def test_masks_are_checked(clipseg: CLIPSeg, pixels: torch.Tensor, masks: torch.Tensor) -> None:
    if clipseg.name != "tiny-vit":
        with pytest.raises(ValueError, match="need a ViT"):
            clipseg.encode_image_prompt(pixels, masks)
        return
    with pytest.raises(ValueError, match="empty"):
        clipseg.encode_image_prompt(pixels, masks & (torch.arange(2) < 1)[:, None, None])
    with pytest.raises(ValueError, match=r"block numbers must lie in 0\.\.4, got \(5,\)"):
        clipseg.encode_image_prompt(pixels, masks, (5,))
    with pytest.raises(ValueError, match="do not fit the images"):
        clipseg.encode_image_prompt(pixels, masks[:1])


@torch.no_grad()
def test_half_precision_is_close(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    logits = clipseg.decode(clipseg.encode_image(pixels), clipseg.encode_text(PROMPTS))
    clipseg.to(torch.bfloat16)
    half = clipseg.decode(clipseg.encode_image(pixels.bfloat16()), clipseg.encode_text(PROMPTS))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), logits, atol=0.1 * logits.std().item(), rtol=0.1)


@torch.no_grad()
def test_patches_of_32_pixels() -> None:
    vision = VisionConfig(layers=3, width=24, image_size=64, patch_size=32, head_width=12)
    text = TextConfig(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    config = {
        "kind": "clipseg",
        "clip": ClipConfig(embed_dim=20, vision=vision, text=text).to_dict(),
        "clipseg": CLIPSegConfig(
            embed_dim=20,
            extract_layers=(0, 1),
            tap_widths=(24, 24),
            stride=32,
            prefix_tokens=1,
            input_spec=InputSpec(64, "squash", 32, (0.5,) * 3, (0.5,) * 3),
            reduce_dim=8,
            n_heads=2,
            feed_forward=16,
        ).to_dict(),
        "tokenizer": tokenizer_config(20, 8),
    }
    model = CLIPSeg.from_config("b32", json.loads(json.dumps(config))).eval()
    pixels = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    assert model.decode(model.encode_image(pixels), model.encode_text(["18 3 19"])).shape == (1, 1, 96, 160)
    with pytest.raises(ValueError, match="refined upsampling multiplies by 4 x 4 and needs stride 16, got 32"):
        replace(model.decoder.config, complex_trans_conv=True)


def test_weights_are_registered_once(clipseg: CLIPSeg) -> None:
    parts = {key.split(".")[0] for key in clipseg.state_dict()}
    assert parts == {"clip", "decoder"}


def test_knows_what_it_does_not_know(clipseg: CLIPSeg) -> None:
    assert clipseg.unknown_words("the red zebra") == ("zebra",)


@torch.no_grad()
def test_the_embeddings_of_templates_are_averaged(clipseg: CLIPSeg) -> None:
    templates = ("a photo of a {}.", "{}")
    config = replace(clipseg.decoder.config, templates=templates)
    model = CLIPSeg("averaged", clipseg.clip, config, clipseg.tokenizer).eval()
    cups, bowls = (
        clipseg.encode_text([f"a photo of a {phrase}.", phrase]).pooled.mean(dim=0) for phrase in ("red cup", "bowl")
    )
    expected = torch.stack([cups, bowls])
    assert_near(model.encode_text(["red cup", "bowl"]).pooled, expected)
    assert templates_of(model) == templates
    token_ids = tokenised(model, ["red cup", "bowl"])
    assert token_ids.shape == (2, 2, clipseg.tokenizer.context_length)
    assert_near(model.encode_token_ids(token_ids).pooled, expected)
    assert (expected - clipseg.encode_text(["red cup", "bowl"]).pooled).abs().max() > 0.01 * expected.abs().max()


def test_config_survives_json(clipseg: CLIPSeg) -> None:
    changes = {"block": "linear", "example_style": ExampleStyle(1.0, 0.5, None), "templates": ("a {}.", "{}")}
    config = replace(clipseg.decoder.config, **changes)
    values = json.loads(json.dumps(config.to_dict()))
    assert CLIPSegConfig.from_dict(values) == config
    for name in changes:
        del values[name]
    assert CLIPSegConfig.from_dict(values) == clipseg.decoder.config, "older files lack them"


def test_the_style_of_examples_is_a_property_of_the_weights(clipseg: CLIPSeg) -> None:
    config = replace(clipseg.decoder.config, example_style=ExampleStyle(1.0, 0.5, None))
    model = CLIPSeg("styled", clipseg.clip, config, clipseg.tokenizer)
    assert model.spec.example_style == ExampleStyle(1.0, 0.5, None)


@on_a_vit
@torch.no_grad()
def test_linear_layers_treat_each_place_by_itself(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    """CLIP-Deconv: one tap, FiLM, two linear layers, and the transposed convolution, whose steps are its kernels."""
    own = clipseg.decoder.config
    config = replace(own, extract_layers=own.extract_layers[-1:], tap_widths=own.tap_widths[-1:], block="linear")
    model = CLIPSeg("deconv", clipseg.clip, config, clipseg.tokenizer).eval()
    features, text = model.encode_image(pixels[:1]), model.encode_text(PROMPTS[:1]).pooled
    decoder = model.decoder
    x = decoder.reduces[0](features.taps[0])
    x = decoder.film_mul(text) * x + decoder.film_add(text)
    first, _, second = decoder.blocks[0]
    x = second(first(x).relu())[0, config.prefix_tokens :]
    kernel, bias = decoder.trans_conv.weight[:, 0], decoder.trans_conv.bias
    h, w = features.grid_size
    stride = config.stride
    expected = torch.einsum("nc,cyx->nyx", x, kernel).view(h, w, stride, stride).transpose(1, 2).reshape(h * stride, -1)
    found = decoder(features.taps, features.grid_size, text)[0]
    assert_near(found, expected + bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tap_widths": (1, 2)}, "3 layers are tapped but 2 widths"),
        ({"cond_layer": 3}, r"cond_layer must lie in 0\.\.2, got 3"),
        ({"complex_trans_conv": True}, "needs stride 16, got 8"),
        ({"templates": ("a photo of a",)}, 'templates must each hold "{}" where the phrase goes'),
    ],
)
def test_config_is_checked(clipseg: CLIPSeg, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(clipseg.decoder.config, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tap_widths": (1, 2, 3)}, "tap widths"),
        ({"embed_dim": 21}, "embedding width of CLIP and of CLIPSeg differ: 20 and 21"),
        ({"prefix_tokens": 2}, "prefix tokens"),
    ],
)
def test_parts_must_fit(clipseg: CLIPSeg, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPSeg("wrong", clipseg.clip, replace(clipseg.decoder.config, **changes), clipseg.tokenizer)
