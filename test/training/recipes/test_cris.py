# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.cris.convert import published_name
from clip_seg_ros.models.cris.model import CRIS, CRISConfig
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.losses import dice_loss, shrink_mask, text_to_pixel_loss
from clip_seg_ros.training.optimizer import make_adamw
from clip_seg_ros.training.recipes.batch import ExpressionBatch
from clip_seg_ros.training.recipes.cris import CRISRecipe, CRISSettings
from clip_seg_ros.training.recipes.dataset_batches import LetterboxBatches
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.training.settings import SettingsError
from nearness import assert_near, assert_same_training

WORDS = ("left", "right", "square")


def model_config() -> dict:
    tokenizer = CompactTokenizer(WORDS, 8)
    spec = InputSpec(64, "letterbox", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    text = TextConfig(8, tokenizer.vocab_size, 16, 2, 1)
    clip = ClipConfig(24, VisionConfig((1, 1, 1, 1), 8, 64, head_width=32), text)
    own = CRISConfig((12, 16, 24), spec, n_layers=1, n_heads=2, feed_forward=32)
    words = {"kind": "compact", "known_words": list(WORDS), "context_length": 8}
    return {"kind": "cris", "clip": clip.to_dict(), "cris": own.to_dict(), "tokenizer": words}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six samples: three pictures with a square at the left and one at the right."""
    root, rows = tmp_path / "data", ["image,mask,phrase"]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(3):
        picture = np.full((40, 72, 3), 30 * number, np.uint8)
        for side, left in (("left", 8), ("right", 44)):
            mask = np.zeros((40, 72), np.uint8)
            mask[8:28, left : left + 20] = 255
            picture[mask > 0] = 220
            cv2.imwrite(str(root / "masks" / f"{number}_{side}.png"), mask)
            rows.append(f"images/{number}.jpg,masks/{number}_{side}.png,{side} square")
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), picture)
    (root / "phrases.csv").write_text("\n".join(rows))
    return root


def make(folder: Path, **settings) -> CRISRecipe:
    torch.manual_seed(0)
    own = CRISSettings.from_mapping({"steps": 6, "batch": 4, "learning_rate": 1e-3, "precision": "float32", **settings})
    batches = LetterboxBatches(PhraseFolder(folder), own.batch, 64, 0, threads=2)
    config = model_config()
    return CRISRecipe(own, CRIS.from_config("tiny", config), config, batches, load=batches.load)


def run(recipe: CRISRecipe, state: Path, die_at: int | None = None) -> CRISRecipe:
    draw, count = recipe._draw, 0

    def dying(rng: np.random.Generator) -> ExpressionBatch:
        nonlocal count
        if count == die_at:
            raise KeyboardInterrupt
        count += 1
        return draw(rng)

    recipe._draw = dying
    runner = Runner(recipe.module, state, 0)
    for stage in recipe.stages():
        runner.run(stage)
    return recipe


def test_a_run_that_was_stopped_ends_with_the_same_weights(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("clip_seg_ros.training.runner._SAVE_EVERY_S", -1.0)
    whole = run(make(folder), tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(make(folder), tmp_path / "broken.pt", die_at=3)
    assert torch.load(tmp_path / "broken.pt", weights_only=True)["step"] == 3
    resumed = run(make(folder), tmp_path / "broken.pt")
    assert_same_training(whole.state_dict(), resumed.state_dict(), make(folder).state_dict())


def test_the_loss_is_the_papers_and_dice_beside_it(folder: Path) -> None:
    recipe = make(folder, dice_weight=0.5, contrast_weight=2.0)
    recipe._load(0)
    batch = recipe._draw(np.random.default_rng(0))
    with torch.no_grad():
        torch.manual_seed(1)
        terms = recipe.terms(np.random.default_rng(0))
        torch.manual_seed(1)  # dropout
        pixels = recipe.normalised(batch.pixels)
        logits = recipe.model(pixels, recipe.model.tokenizer([texts[0] for texts in batch.texts]))
    masks = batch.masks[:, 0]
    assert_near(terms["contrast"], 2 * text_to_pixel_loss(logits, masks), relative=2e-5)
    assert_near(terms["dice"], 0.5 * dice_loss(logits, shrink_mask(masks, (16, 16))), relative=2e-5)
    paper = make(folder)
    paper._load(0)
    assert paper.terms(np.random.default_rng(0)).keys() == {"contrast"}


def test_ignored_pixels_are_not_learnt_from(folder: Path) -> None:
    recipe = make(folder, dice_weight=0.5)
    recipe._load(0)
    batch = recipe._draw(np.random.default_rng(0))
    ignored = torch.rand(batch.masks.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    flipped = torch.where(ignored, 1 - batch.masks, batch.masks)

    def terms(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
        recipe._draw = lambda rng: replace(batch, **changed)
        torch.manual_seed(1)  # dropout
        with torch.no_grad():
            return recipe.terms(np.random.default_rng(0))

    given, other = terms(ignored=ignored), terms(ignored=ignored, masks=flipped)
    all_count, all_flipped = terms(), terms(masks=flipped)
    for name in ("contrast", "dice"):
        assert_near(other[name], given[name], relative=1e-4, message=name)
        assert abs(all_flipped[name] - all_count[name]) > 1e-3 * all_count[name], f"{name} sees what is not ignored"


def test_stages_follow_from_the_settings(folder: Path) -> None:
    (only,) = make(folder, milestones=[4]).stages()
    assert (only.schedule.kind, only.schedule.milestones) == ("milestones", (4,))
    first, second = make(folder, first_steps=3, milestones=[], clip_factor_from=2).stages()
    assert (first.name, first.steps, first.schedule.kind, first.factors_from) == ("first", 3, "constant", 0)
    assert (second.steps, second.schedule.kind, second.factors_from) == (6, "cosine", 2)
    (scaled,) = make(folder, steps=100).stages()
    assert (scaled.schedule.milestones, scaled.factors_from) == ((70,), 2), "35 and 1 of 50 epochs"
    with pytest.raises(SettingsError, match=r"stpes.; did you mean steps"):
        CRISSettings.from_mapping({"stpes": 3})


def test_the_towers_learn_at_a_tenth_but_for_their_positions(folder: Path) -> None:
    recipe = make(folder)
    (stage,) = recipe.stages()
    optimizer = make_adamw(stage.trained, 0.0, stage.rate_factors)
    factors = {id(p): group["rate_factor"] for group in optimizer.param_groups for p in group["params"]}
    slow = {name for name, p in recipe.model.named_parameters() if factors[id(p)] == pytest.approx(0.1)}
    expected = {
        name
        for name, _ in recipe.model.named_parameters()
        if published_name(name).startswith("backbone") and "positional_embedding" not in name
    }
    assert slow == expected, "the authors' rule, under their names"
    assert {"connect.0.weight", "clip.text_projection"} <= slow
    assert {
        "clip.positional_embedding",
        "clip.visual.attnpool.positional_embedding",
        "neck.f1_v_proj.0.weight",
    } & slow == set()
