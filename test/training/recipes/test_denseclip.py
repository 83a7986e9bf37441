# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.models.clip.backbone import TextConfig, VisionConfig
from clip_seg_ros.models.denseclip.model import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss
from clip_seg_ros.training.optimizer import make_adamw
from clip_seg_ros.training.recipes.batch import ClassBatch
from clip_seg_ros.training.recipes.denseclip import DenseCLIPRecipe, DenseCLIPSettings, initialise
from clip_seg_ros.training.settings import SettingsError
from nearness import assert_near

NAMES = ("5", "6 7", "8")


def draw(rng: np.random.Generator) -> ClassBatch:
    labels = torch.from_numpy(rng.integers(0, 3, (2, 64, 64)))
    labels[:, :4] = 255
    return ClassBatch(torch.from_numpy(rng.random((2, 3, 64, 64), np.float32)), labels)


def make(**settings) -> DenseCLIPRecipe:
    spec = InputSpec(64, "short_side", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    own = DenseCLIPConfig(
        NAMES,
        spec,
        n_contexts=3,
        context_width=8,
        context_heads=2,
        context_layers=1,
        pyramid_channels=8,
        head_channels=8,
        dropout=0.0,
    )
    config = {
        "kind": "denseclip",
        "embed_dim": 20,
        "quick_gelu": True,
        "denseclip": own.to_dict(),
        "vision": vars(VisionConfig((1, 1, 1, 1), 8, 64, head_width=8)),
        "text": vars(TextConfig(8, 30, 16, 2, 1)),
        "tokenizer": {"kind": "ids", "vocab_size": 30, "context_length": 8},
    }
    torch.manual_seed(0)
    return DenseCLIPRecipe(DenseCLIPSettings(steps=10, **settings), DenseCLIP.from_config("tiny", config), config, draw)


def test_the_loss_is_the_papers() -> None:
    recipe = make()
    with torch.no_grad():
        terms = recipe.terms(np.random.default_rng(3))
        batch, model = draw(np.random.default_rng(3)), recipe.model
        features = model.encode_image(recipe.normalised(batch.pixels))
        logits, scores = model.decode_with_scores(features, model.encode_text(NAMES))
    assert_near(terms["decode"], dense_cross_entropy(logits, batch.labels), relative=2e-5)
    assert_near(terms["identity"], identity_loss(scores, batch.labels), relative=2e-5)
    assert make(identity_weight=0.0).terms(np.random.default_rng(3)).keys() == {"decode"}


def test_a_slip_is_named() -> None:
    with pytest.raises(SettingsError, match=r"stpes.; did you mean steps"):
        DenseCLIPSettings.from_mapping({"stpes": 3})


def test_first_weights_are_the_authors() -> None:
    model = make().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    initialise(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"context_decoder", "neck", "decode_head"}
    assert not any(name.startswith("decode_head.conv_seg") for name in changed)
    linear = [m.weight for m in model.context_decoder.modules() if isinstance(m, nn.Linear)]
    assert torch.cat([weight.flatten() for weight in linear]).std().item() == pytest.approx(0.02, rel=0.1)
    for name, value in model.named_parameters():
        if name.startswith(("context_decoder.", "neck.")) and name.endswith(".bias"):
            assert not value.any(), name
    kernel = model.neck.fpn_convs[0].conv.weight  # 8 channels out, 3 x 3
    assert kernel.std().item() == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.15)


def test_only_norms_by_name_do_not_decay() -> None:
    recipe = make()
    (stage,) = recipe.stages()
    optimizer = make_adamw(stage.trained, stage.weight_decay, stage.rate_factors, stage.betas, stage.decay)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    plain = {name for name, p in recipe.model.named_parameters() if decays.get(id(p)) == 0}
    assert plain == {name for name, _ in recipe.model.named_parameters() if "norm" in name}
    assert "context_decoder.decoder.0.norm1.weight" in plain
