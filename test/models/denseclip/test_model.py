# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP: what can be asked, both ways of prompting, every kind of backbone, and one step of training."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.denseclip.backbones import TimmBackbone
from clip_seg_ros.models.denseclip.model import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss
from clip_seg_ros.zoo.build import build_from_config
from nearness import assert_near

NAMES = ("126 5 127", "126 6 7 127", "126 8 0 9 127")
SHIFTED = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "strict_img_size": False}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 8},
    "vit": {"layers": 4, "width": 16, "image_size": 64, "patch_size": 16, "head_width": 8},
    "timm": {"timm_backbone": "test_convnext"},
    "timm, channels last": {"timm_backbone": "swin_tiny_patch4_window7_224", "timm_options": SHIFTED},
    "timm, one stride": {
        "timm_backbone": "test_vit",
        "timm_options": {"dynamic_img_size": True, "out_indices": [0, 2, 3, 5]},
    },
}


def make_config(backbone: str, prompting: str = "post") -> dict[str, Any]:
    values = BACKBONES[backbone]
    of_timm = "timm_backbone" in values
    own = DenseCLIPConfig(
        class_names=NAMES,
        input_spec=InputSpec(64, "short_side", 1, CLIP_MEAN, CLIP_STD),
        n_contexts=3,
        prompting=prompting,
        context_width=8,
        context_heads=2,
        context_layers=1,
        pyramid_channels=8,
        head_channels=8,
        blocks=(0, 1, 2, 3),
        **(values if of_timm else {}),
    )
    return {
        "kind": "denseclip",
        "embed_dim": 20,
        "quick_gelu": True,
        "text": {"context_length": 8, "vocab_size": 128, "width": 16, "heads": 2, "layers": 2},
        "denseclip": own.to_dict(),
        "tokenizer": {"kind": "ids", "vocab_size": 128, "context_length": 77},
        **({} if of_timm else {"vision": values}),
    }


def make_model(backbone: str, prompting: str = "post") -> DenseCLIP:
    """Returns a tiny model whose parts are all large enough to be seen in its output."""
    torch.manual_seed(0)
    model = DenseCLIP.from_config("tiny", make_config(backbone, prompting))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.ndim == 1 and value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["post", "pre"])
def prompting(request: pytest.FixtureRequest) -> str:
    return request.param


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(backbone: str, prompting: str) -> None:
    model = make_model(backbone, prompting)
    pixels, text = images(2, 3, 64, 96), model.encode_text(NAMES)
    together = model.decode(model.encode_image(pixels), text)
    assert together.shape == (2, 3, 16, 24)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    features = model.encode_image(pixels)
    for index in range(2):
        alone = model.encode_image(pixels[index : index + 1])
        assert_near(alone.pooled[0], features.pooled[index], relative=2e-5)
        assert_near(alone.dense[0], features.dense[index], relative=2e-5)
        assert_near(model.decode(alone, text)[0], together[index], relative=2e-5)
    row = model.decode(features.rows(1, 2), text)
    assert_near(row[0], together[1], relative=2e-5)


@torch.inference_mode()
def test_probabilities_compete(backbone: str) -> None:
    model = make_model(backbone)
    logits = model.decode(model.encode_image(images(1, 3, 64, 64)), model.encode_text(NAMES))
    assert_near(model.probabilities(logits).sum(dim=1), torch.ones(1, 16, 16))
    assert not model.open_vocabulary


@pytest.mark.parametrize("size", [(75, 102), (33, 130)])
@pytest.mark.parametrize("tower", ["resnet", "vit", "timm"])
@torch.inference_mode()
def test_any_size(tower: str, size: tuple[int, int]) -> None:
    model = make_model(tower)
    features = model.encode_image(images(1, 3, *size))
    logits, scores = model.decode_with_scores(features, model.encode_text(NAMES))
    assert logits.shape[2:] == features.maps[0].shape[2:]
    assert scores.shape[2:] == features.maps[model.backbone.score_stage].shape[2:] == features.dense.shape[2:]
    assert logits.isfinite().all()


@torch.inference_mode()
def test_maps_lie_as_the_image_does(backbone: str) -> None:
    # 96 pixels at stride 4 are 24 rows, as many as the Swin has channels.
    features = make_model(backbone).encode_image(images(1, 3, 96, 128))
    assert [tuple(tap.shape[2:]) for tap in features.maps] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    grid = (6, 8) if backbone in ("vit", "timm, one stride") else (3, 4)
    assert features.dense.shape[2:] == grid
    assert features.dense.shape == (1, 20, *grid)
    assert features.pooled.shape == (1, 20)


@torch.inference_mode()
def test_each_name_is_encoded_alone(prompting: str) -> None:
    model = make_model("resnet", prompting)
    together = model.encode_text(NAMES)
    for index, name in enumerate(NAMES):
        alone = model.encode_text([name])
        assert_near(alone.pooled[0], together.pooled[index])
        if prompting == "pre":
            assert_near(alone.tokens[0], together.tokens[index])


def test_all_classes_must_be_asked_together() -> None:
    model = make_model("resnet")
    features = model.encode_image(images(1, 3, 64, 64))
    with pytest.raises(ValueError, match="all 3 classes must be asked together, got 2"):
        model.decode(features, model.encode_text(NAMES[:2]))


def test_too_long_a_name_is_refused() -> None:
    model = make_model("resnet")
    model.encode_text(["126 1 2 3 127"])
    with pytest.raises(ValueError, match='"126 1 2 3 4 127" has more than 5 tokens'):
        model.encode_text([NAMES[0], "126 1 2 3 4 127"])


@torch.inference_mode()
def test_the_image_changes_the_texts(prompting: str) -> None:
    model = make_model("vit", prompting)
    text = model.encode_text(NAMES)
    texts = model.texts_in_context(model.encode_image(images(2, 3, 64, 64)), text)
    assert texts.shape == (2, 3, 20)
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)


@torch.inference_mode()
def test_post_model_prompting_adds_by_gamma() -> None:
    model = make_model("vit")
    text = model.encode_text(NAMES)
    model.gamma.zero_()
    texts = model.texts_in_context(model.encode_image(images(2, 3, 64, 64)), text)
    assert_near(texts, text.pooled.expand(2, -1, -1))
    fresh = DenseCLIP.from_config("fresh", make_config("vit"))
    assert_near(fresh.gamma, torch.full((20,), 1e-4))


@torch.inference_mode()
def test_pre_model_prompting_makes_the_contexts() -> None:
    """The slow way: for each image, its contexts, and behind them each name through the text tower."""
    model = make_model("vit", "pre")
    assert not hasattr(model, "gamma")
    tower, features = model.text_encoder, model.encode_image(images(2, 3, 64, 64))
    visual = torch.cat([features.pooled[:, None], features.dense.flatten(2).transpose(1, 2)], dim=1)
    texts = model.texts_in_context(features, model.encode_text(NAMES))
    for image in range(2):
        contexts = model.context_decoder(model.contexts, visual[image : image + 1])[0]
        for row, name in enumerate(NAMES):
            ids = torch.tensor([int(number) for number in name.split()])
            words = tower.token_embedding(ids)
            x = torch.cat([words[:1], contexts, words[1:]]) + tower.positional_embedding[: len(ids) + 3]
            x = tower.transformer(x[None], attn_mask=tower.attn_mask[: x.shape[0], : x.shape[0]])
            # Without padding, the end token is the last.
            expected = tower.ln_final(x)[0, -1] @ tower.text_projection
            assert_near(texts[image, row], expected, relative=2e-5)


@torch.inference_mode()
def test_half_precision_is_close(backbone: str, prompting: str) -> None:
    model = make_model(backbone, prompting)
    pixels = images(1, 3, 64, 64)
    exact = model.decode(model.encode_image(pixels), model.encode_text(NAMES))
    model = model.to(torch.bfloat16)
    half = model.decode(model.encode_image(pixels.bfloat16()), model.encode_text(NAMES))
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.1 * exact.std()


@torch.inference_mode()
def test_the_configuration_survives_json(backbone: str, prompting: str) -> None:
    model = make_model(backbone, prompting)
    config = make_config(backbone, prompting)
    again = build_from_config("again", json.loads(json.dumps(config)), model.state_dict(), "test").eval()
    assert again.config == DenseCLIPConfig.from_dict(config["denseclip"])
    assert not again.text_encoder.positional_embedding.requires_grad
    assert again.contexts.requires_grad
    pixels = images(1, 3, 64, 64)
    assert_near(
        again.decode(again.encode_image(pixels), again.encode_text(NAMES)),
        model.decode(model.encode_image(pixels), model.encode_text(NAMES)),
    )


def test_one_step_of_training_reaches_all_but_the_text_tower(backbone: str, prompting: str) -> None:
    model = make_model(backbone, prompting).train()
    pixels, labels = images(4, 3, 64, 64), torch.randint(0, 3, (4, 64, 64), generator=torch.Generator().manual_seed(3))
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {key: value.clone() for key, value in model.text_encoder.state_dict().items()}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    text: TextFeatures = model.encode_text(NAMES)
    logits, scores = model.decode_with_scores(model.encode_image(pixels), text)
    (dense_cross_entropy(logits, labels) + identity_loss(scores, labels, model.config.tau)).backward()
    for key, parameter in model.named_parameters():
        if key.startswith("text_encoder."):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
    before = {key: parameter.detach().clone() for key, parameter in trained.items()}
    optimizer.step()
    # Biases ahead of a norm or of a softmax over keys have gradients of rounding errors alone.
    assert all(not torch.equal(before[key], new) for key, new in trained.items() if not key.endswith("bias"))
    assert all(torch.equal(frozen[key], value) for key, value in model.text_encoder.state_dict().items())


def test_branches_are_dropped_in_training_only() -> None:
    model = make_model("vit")
    model.backbone.drop_rates = [0.0, 0.0, 0.0, 0.5]
    pixels = images(1, 3, 64, 64).expand(64, -1, -1, -1)
    block = model.backbone.visual.transformer.resblocks[3]
    block.requires_grad_(False)
    with torch.no_grad():
        assert model.backbone(pixels).dense.std(dim=0).max() < 1e-4
        kept = model.backbone.train()(pixels).dense
    # Two branches, each kept at double strength or left out: four kinds of images.
    kinds = torch.unique((kept.flatten(1) * 1e3).round(), dim=0)
    assert 2 <= len(kinds) <= 8


def test_contexts_start_as_a_cut_normal_distribution() -> None:
    config = make_config("vit")
    config["text"]["context_length"], config["denseclip"]["n_contexts"] = 505, 500
    torch.manual_seed(0)
    contexts = DenseCLIP.from_config("fresh", config).contexts
    assert contexts.abs().max() <= 2.0
    assert abs(contexts.mean()) < 0.05
    assert abs(contexts.std() - 0.88) < 0.02


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_model", {}, 'timm cannot give the maps of "no_such_model"'),
        ("test_convnext", {"colour": 1}, "colour"),
        ("test_vit", {}, r"maps at strides \(16, 16, 16\).*out_indices"),
        ("test_convnext", {"out_indices": [0, 1, 2]}, r"maps at strides \(4, 8, 16\)"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, 20, options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompting": "both"}, 'prompting must be "post" or "pre"'),
        ({"class_names": ["a", "a"]}, "each once"),
        ({"class_names": []}, "class names must be given"),
        ({"n_contexts": 4}, "a text tower of 8 tokens does not fit 4 contexts and names of 5 tokens"),
        ({"blocks": [0, 1, 2, 4]}, "ascend within 0..3"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    config = make_config("vit")
    config["denseclip"].update(change)
    with pytest.raises(ValueError, match=message):
        DenseCLIP.from_config("wrong", config)


def test_unknown_and_missing_settings_are_refused() -> None:
    config = make_config("vit")
    with pytest.raises(TypeError, match="colour"):
        DenseCLIPConfig.from_dict({**config["denseclip"], "colour": "red"})
    with pytest.raises(KeyError, match="class_names"):
        DenseCLIPConfig.from_dict({"input_spec": config["denseclip"]["input_spec"]})


def without(part: str) -> DenseCLIP:
    config = make_config("resnet")
    config["denseclip"][part] = False
    torch.manual_seed(0)
    return DenseCLIP.from_config("less", config).eval()


@torch.inference_mode()
def test_without_context_awareness_texts_are_the_same_for_every_image() -> None:
    model = without("context_aware")
    assert not hasattr(model, "gamma")
    assert not hasattr(model, "context_decoder")
    text = model.encode_text(NAMES)
    features = model.encode_image(images(2, 3, 64, 64))
    texts = model.texts_in_context(features, text)
    assert torch.equal(texts, text.pooled.expand(2, -1, -1))
    assert model.decode(features, text).shape == (2, 3, 16, 16)


@torch.inference_mode()
def test_without_the_score_map_no_text_reaches_the_answer() -> None:
    model = without("score_map")
    features, text = model.encode_image(images(1, 3, 64, 64)), model.encode_text(NAMES)
    other = TextFeatures(torch.randn_like(text.pooled))
    (logits, scores), (same, changed) = (model.decode_with_scores(features, each) for each in (text, other))
    assert_near(same, logits)
    assert not torch.allclose(scores, changed, atol=1e-2), "the scores are still judged in training"
    full = make_model("resnet")
    features = full.encode_image(images(1, 3, 64, 64))
    assert not torch.allclose(full.decode(features, full.encode_text(NAMES)), full.decode(features, other), atol=1e-3)


def test_pre_model_prompting_needs_context_awareness() -> None:
    config = make_config("resnet", "pre")
    config["denseclip"]["context_aware"] = False
    with pytest.raises(ValueError, match="cannot go without context_aware"):
        DenseCLIP.from_config("wrong", config)


def test_files_of_before_have_both_parts() -> None:
    values = make_config("resnet")["denseclip"]
    del values["context_aware"], values["score_map"]
    config = DenseCLIPConfig.from_dict(values)
    assert config.context_aware
    assert config.score_map
