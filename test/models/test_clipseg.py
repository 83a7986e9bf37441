from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clipseg import CLIPSeg, CLIPSegConfig, CLIPSegDecoder

PROMPTS = ("a red cup", "the blue bowl", "a photo of a cup.")


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
        torch.testing.assert_close(together[:, index : index + 1], alone, atol=1e-5, rtol=1e-4)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_images_of_a_batch_do_not_mix(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    text = clipseg.encode_text(PROMPTS)
    together = clipseg.decode(clipseg.encode_image(pixels), text)
    alone = clipseg.decode(clipseg.encode_image(pixels[1:]), text)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cond_layer", [0, 1, 2])
@torch.no_grad()
def test_conditioning_at_any_stage(clipseg: CLIPSeg, pixels: torch.Tensor, cond_layer: int) -> None:
    decoder = CLIPSegDecoder(replace(clipseg.decoder.config, cond_layer=cond_layer)).eval()
    features = clipseg.encode_image(pixels)
    conditionals = clipseg.encode_text(PROMPTS).pooled.expand(2, -1, -1)
    together = decoder.decode_prompts(features.taps, features.grid_size, conditionals)
    for index in range(len(PROMPTS)):
        alone = decoder(features.taps, features.grid_size, conditionals[:, index])
        torch.testing.assert_close(together[:, index], alone, atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_parameter_of_the_decoder(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        features = clipseg.encode_image(pixels)
        conditional = clipseg.encode_text(PROMPTS[:2]).pooled
    logits = clipseg.decoder.train()(features.taps, features.grid_size, conditional)
    assert logits.shape == (2, 64, 96)
    logits.square().mean().backward()
    for name, parameter in clipseg.decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@torch.no_grad()
def test_image_prompts(clipseg: CLIPSeg, pixels: torch.Tensor) -> None:
    text = clipseg.encode_text(PROMPTS[:2]).pooled
    image = clipseg.encode_image_prompt(pixels)
    assert image.shape == text.shape
    torch.testing.assert_close(clipseg.mix_prompts(text, image, 0.25), 0.25 * text + 0.75 * image)
    logits = clipseg.decode(clipseg.encode_image(pixels), TextFeatures(pooled=image))
    assert logits.shape == (2, 2, 64, 96)


def test_weights_are_registered_once(clipseg: CLIPSeg) -> None:
    parts = {key.split(".")[0] for key in clipseg.state_dict()}
    assert parts == {"clip", "decoder"}


def test_knows_what_it_does_not_know(clipseg: CLIPSeg) -> None:
    assert clipseg.unknown_words("the red zebra") == ("zebra",)


def test_config_survives_json(clipseg: CLIPSeg) -> None:
    config = clipseg.decoder.config
    assert CLIPSegConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tap_widths": (1, 2)}, "3 layers are tapped but 2 widths"),
        ({"cond_layer": 3}, r"cond_layer must lie in 0\.\.2, got 3"),
        ({"complex_trans_conv": True}, "needs stride 16, got 8"),
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
