# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.backbone import TextConfig
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.models.talk2dino.dino import DinoConfig, smooth_cubic
from clip_seg_ros.models.talk2dino.model import TEMPLATES, Talk2DINO, Talk2DINOConfig, cleaned
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.eager import EagerEngine
from nearness import assert_near

WORDS = ("red", "blue", "cup", "bowl", "a", "photo", "of", "the", ".")
PROMPTS = ("cup", "red bowl", "blue cup")
CONFIG = Talk2DINOConfig(
    InputSpec(56, "short_side", 14, IMAGENET_MEAN, IMAGENET_STD),
    DinoConfig(layers=2, width=32, heads=4, image_size=42),
    TextConfig(12, CompactTokenizer(WORDS, 12).vocab_size, 16, 2, 2),
    embed_dim=20,
    templates=("a photo of a {}.", "the {}"),
)


def make(**changes) -> Talk2DINO:
    """Returns a small model with weights that make every part of it visible, in evaluation mode."""
    torch.manual_seed(0)
    tokenizer = {"kind": "compact", "known_words": WORDS, "context_length": 12}
    config = {"talk2dino": replace(CONFIG, **changes).to_dict(), "tokenizer": tokenizer}
    model = Talk2DINO.from_config("tiny", json.loads(json.dumps(config)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("gamma"):
                parameter.fill_(0.7)
            elif parameter.ndim == 1:
                parameter.add_(0.6 * torch.rand_like(parameter) - 0.3)
            else:
                parameter.mul_(3.0)
    return model.eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(1))


def test_templates_are_the_authors_seven() -> None:
    assert len(TEMPLATES) == 7
    assert TEMPLATES[0] == "itap of a {}."
    assert TEMPLATES[-1] == "a photo of the small {}."


def test_configuration_survives_json() -> None:
    assert make(background_cleaning=0.2).config == replace(CONFIG, background_cleaning=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ("a photo",)}, "templates must each hold"),
        ({"background_cleaning": 0.0}, "background_cleaning must be a positive weight"),
        ({"hidden_layers": -1}, "hidden_layers must be at least 0"),
    ],
)
def test_wrong_configurations(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        DinoConfig(layers=1, width=32, heads=3)


@pytest.mark.parametrize(("count", "given"), [(32, 37), (37, 37), (50, 37), (3, 37), (43, 5)])
def test_positions_are_resized_as_by_torch(count: int, given: int) -> None:
    lines = torch.randn(1, 1, given, 2, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(lines, size=(count, 2), mode="bicubic", antialias=True)
    assert_near(smooth_cubic(count, given) @ lines[0, 0].numpy(), expected[0, 0])


@pytest.mark.parametrize("size", [(42, 42), (56, 70)])
@torch.no_grad()
def test_tower_equals_that_of_timm(size: tuple[int, int]) -> None:
    model = make()
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    vit = model.dino.vit
    dense, _ = model.dino(pixels, with_attention=False)
    vit.set_input_size(img_size=size)  # timm's own way to another size
    expected = vit.forward_features(pixels)[:, 5:]
    assert_near(dense.flatten(2).transpose(1, 2), expected)


@torch.no_grad()
def test_attention_is_that_of_the_last_block(pixels: torch.Tensor) -> None:
    model = make()
    seen = []
    hook = model.dino.vit.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, output: seen.append(output))
    _, attention = model.dino(pixels, with_attention=True)
    hook.remove()
    query, key, _ = seen[0].unflatten(2, (3, 4, 8)).unbind(2)  # (B, N, heads, 8) each
    for head in range(4):
        expected = torch.einsum("bc,bnc->bn", query[:, 0, head] / 8, key[:, 5:, head])
        assert_near(attention[:, head].flatten(1), expected)


@pytest.mark.parametrize("cleaning", [None, 0.2])
@torch.no_grad()
def test_images_are_answered_alone(pixels: torch.Tensor, cleaning: float | None) -> None:
    model = make(background_cleaning=cleaning)
    text = model.encode_text(PROMPTS)
    both = model.decode(model.encode_image(pixels), text)
    assert both.shape == (2, 3, 4, 5)
    assert_near(both[1:], model.decode(model.encode_image(pixels[1:]), text))
    assert both.std() > 0.01


@torch.no_grad()
def test_prompts_are_answered_alone(pixels: torch.Tensor) -> None:
    model = make()
    image = model.encode_image(pixels)
    assert_near(
        model.decode(image, model.encode_text(PROMPTS))[:, 1:2], model.decode(image, model.encode_text(PROMPTS[1:2]))
    )


@torch.no_grad()
def test_pixels_are_padded_to_whole_patches(pixels: torch.Tensor) -> None:
    model, text = make(), make().encode_text(PROMPTS)
    cut = pixels[:, :, :50, :60]
    padded = F.pad(cut, (0, 10, 0, 6))
    assert_near(model.decode(model.encode_image(cut), text), model.decode(model.encode_image(padded), text))


@torch.no_grad()
def test_token_ids_are_encoded_as_phrases_are() -> None:
    model = make()
    ids = model.tokenizer([template.format(prompt) for prompt in PROMPTS for template in CONFIG.templates])
    assert_near(model.encode_token_ids(ids.unflatten(0, (3, 2))).pooled, model.encode_text(PROMPTS).pooled)


def test_words_that_are_unknown() -> None:
    assert make().unknown_words("green cup") == ("green",)


def test_cleaning_raises_what_a_fitting_head_looks_at() -> None:
    attention = torch.zeros(1, 2, 2, 3)
    attention[0, 0, 0, 0] = attention[0, 1, 1, 2] = 5.0
    heads = 9 * torch.eye(2)[None]  # longer than unit vectors, so that each phrase has one head alone
    flat = torch.full((1, 2, 2, 3), 0.5)
    flat[0, :, 0, 1] = 0.7  # otherwise there is no range of probabilities
    found = cleaned(flat, attention, heads, torch.eye(2), 0.2)
    raised = found - flat / 1.2
    assert raised[0, 0].argmax() == 0
    assert raised[0, 1].argmax() == 5
    assert float(found.max()) <= 0.7


@pytest.mark.parametrize("cleaning", [None, 0.2])
def test_serves_phrases_and_classes(cleaning: float | None) -> None:
    predictor = Predictor(EagerEngine(make(background_cleaning=cleaning), "cpu"))
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    encoded = predictor.encode(image)
    maps = predictor.ask(encoded, PROMPTS).values
    assert maps.shape == (3, 60, 90)
    assert 0.26 < maps.min() < maps.max() < 0.74
    labels = predictor.classify(encoded, PROMPTS).labels
    assert labels.shape == (60, 90)
    assert (labels == maps.argmax(axis=0)).mean() > 0.98


def test_text_features_have_unit_length() -> None:
    text: TextFeatures = make().encode_text(PROMPTS)
    assert_near(text.pooled.norm(dim=1), torch.ones(3))
