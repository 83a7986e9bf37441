# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig
from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances, InstanceTargets
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.recipes.box_targets import box_score_loss, box_score_targets
from clip_seg_ros.training.recipes.denseclip_instances import DenseCLIPInstancesRecipe, DenseCLIPInstancesSettings
from clip_seg_ros.training.recipes.instance_batch import InstanceBatch
from clip_seg_ros.training.settings import SettingsError
from nearness import assert_near

NAMES = ("5", "6 7", "8")


def draw(rng: np.random.Generator) -> InstanceBatch:
    """Two images, the second without an object."""
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 4:30, 8:40], masks[1, 30:60, 20:60] = 1, 1
    boxes, labels = torch.tensor([[8.0, 4, 40, 30], [20, 30, 60, 60]]), torch.tensor([0, 2])
    nothing = InstanceTargets(boxes[:0], labels[:0], masks[:0])
    pixels = torch.from_numpy(rng.random((2, 3, 64, 64), np.float32))
    return InstanceBatch(pixels, ((64, 64), (50, 64)), (InstanceTargets(boxes, labels, masks), nothing))


def make(head: str = "mask_rcnn", **settings) -> DenseCLIPInstancesRecipe:
    own = DenseCLIPInstancesConfig(
        NAMES,
        InputSpec(64, "short_side", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        n_contexts=3,
        context_width=8,
        context_heads=2,
        context_layers=1,
        dropout=0.0,
        head=head,
        pyramid_channels=8,
        box_channels=16,
        mask_channels=8,
        anchor_px=16.0,
        proposals=20,
        sampled_boxes=16,
    )
    config = {
        "kind": "denseclip_instances",
        "embed_dim": 20,
        "quick_gelu": True,
        "denseclip": own.to_dict(),
        "vision": {"layers": (1, 1, 1, 1), "width": 8, "image_size": 64, "head_width": 8},
        "text": {"context_length": 8, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1},
        "tokenizer": {"kind": "ids", "vocab_size": 30, "context_length": 8},
    }
    torch.manual_seed(0)
    model = DenseCLIPInstances.from_config("tiny", config)
    return DenseCLIPInstancesRecipe(DenseCLIPInstancesSettings(steps=10, **settings), model, config, draw)


def test_the_loss_is_the_detectors_and_that_of_the_score_map() -> None:
    recipe = make(score_weight=0.5)
    with torch.no_grad():
        torch.manual_seed(1)
        terms = recipe.terms(np.random.default_rng(3))
        torch.manual_seed(1)
        batch, model = draw(np.random.default_rng(3)), recipe.model
        features = model.encode_image(recipe.normalised(batch.pixels))
        expected, scores = model.losses(features, model.encode_text(NAMES), batch.sizes, list(batch.targets))
        drawn = [box_score_targets(t.boxes, t.labels, (64, 64), (16, 16), 3) for t in batch.targets]
    assert terms.keys() == {*expected, "score_map"}
    for name, value in expected.items():
        assert_near(terms[name], value, relative=1e-4)
    assert_near(terms["score_map"], 0.5 * box_score_loss(scores, torch.stack(drawn)), relative=1e-4)
    assert "score_map" not in make(score_weight=0.0).terms(np.random.default_rng(3))


@pytest.mark.parametrize("head", ["mask_rcnn", "retinanet"])
def test_a_step_changes_everything_but_the_text_tower(head: str) -> None:
    recipe = make(head)
    sum(recipe.terms(np.random.default_rng(0)).values()).backward()
    moved = {name for name, p in recipe.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"backbone", "contexts", "gamma", "context_decoder", "detector"}


def test_the_schedule_and_the_rates_are_the_authors() -> None:
    (stage,) = make().stages()
    assert stage.rate_factors == (("model.backbone.", 0.1),)
    assert (stage.learning_rate, stage.weight_decay, stage.clip_norm) == (2e-4, 1e-4, 0.1)
    assert stage.betas == (0.9, 0.999)
    assert stage.decay == "without_norms"
    assert [stage.warmup.share(step) for step in (0, 500)] == pytest.approx([1e-3, 1])
    settings = DenseCLIPInstancesSettings()
    assert settings.steps == 12 * 7330, "passes of the authors' framework over COCO in batches of 16"
    assert [stage.schedule.share(step, settings.steps) for step in (0, 8 * 7330, 11 * 7330)] == pytest.approx(
        [1, 0.1, 0.01]
    )
    (stage,) = make(milestones=()).stages()
    assert stage.schedule.share(10, 10) == pytest.approx(0.02), "without milestones it falls along a cosine"


def test_settings_are_read_with_their_views() -> None:
    settings = DenseCLIPInstancesSettings.from_mapping({"steps": 5, "views": {"size_px": 320, "scales": [0.5, 2]}})
    assert settings.views.size_px == 320
    assert settings.views.scales == (0.5, 2.0)
    with pytest.raises(SettingsError, match=r"recipe.views has no setting 'sizes_px'; did you mean size_px"):
        DenseCLIPInstancesSettings.from_mapping({"views": {"sizes_px": 3}})


def test_the_weights_are_found_again(tmp_path) -> None:
    recipe = make()
    (path,) = recipe.save(tmp_path)
    assert path.name == "tiny.safetensors"
