# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.models.clip.backbone import TextConfig, VisionConfig
from clip_seg_ros.models.denseclip.model import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss
from clip_seg_ros.training.recipes.batch import ClassBatch
from clip_seg_ros.training.recipes.denseclip import DenseCLIPRecipe, DenseCLIPSettings
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


def test_the_schedule_and_the_rates_are_the_papers() -> None:
    (stage,) = make().stages()
    assert stage.rate_factors == (("model.backbone.", 0.1),)
    assert (stage.learning_rate, stage.weight_decay) == (1e-4, 1e-4)
    assert stage.schedule.kind == "poly"
    assert stage.learning_rate * stage.schedule.share(10, 10) == pytest.approx(1e-6), "the lowest rate"
    with pytest.raises(SettingsError, match=r"stpes.; did you mean steps"):
        DenseCLIPSettings.from_mapping({"stpes": 3})
