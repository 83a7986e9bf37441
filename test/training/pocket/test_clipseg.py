# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket.clipseg import PocketRecipe, PocketSettings, mask_loss
from clip_seg_ros.training.pocket.phrases import Query
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.training.settings import SettingsError
from clip_seg_ros.zoo.factory import build_segmenter


@pytest.fixture
def recipe(few_scenes, pocket_settings):
    return PocketRecipe(pocket_settings, few_scenes)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_every_part_is_trained_and_saved_weights_are_the_trained_model(recipe, tmp_path):
    before = state_of(recipe)
    runner = Runner(recipe.module, tmp_path / "state.pt", 0)
    for stage in recipe.stages():
        runner.run(stage)
    assert [stage.name for stage in recipe.stages()] == ["crops", "scenes", "decoder"]
    assert [name for name, value in recipe.named_parameters() if torch.equal(value, before[name])] == []

    paths = recipe.save(tmp_path / "weights")
    assert [path.name for path in paths] == ["clip_pocket.safetensors", "clipseg_pocket.safetensors"]
    loaded = build_segmenter("clipseg-pocket", tmp_path / "weights")
    pixels = torch.rand(1, 3, 64, 96)
    prompts = ["red cup", "a photo of the violet mug."]
    with torch.inference_mode():
        expected, found = (
            model.decode(model.encode_image(pixels), model.encode_text(prompts)) for model in (recipe.model, loaded)
        )
    assert torch.allclose(expected, found, atol=0.05), "half precision on disk costs a little"
    assert loaded.input_spec == recipe.model.input_spec
    assert loaded.unknown_words("red giraffe") == ("giraffe",)


def test_the_decoder_stage_holds_the_towers_still(recipe):
    recipe._freeze_towers()
    sum(recipe._decoder_terms(np.random.default_rng(0)).values()).backward()
    assert all(p.grad is None for p in recipe.model.clip.parameters())
    assert all(p.grad is not None for p in recipe.model.decoder.parameters())
    assert not recipe.model.clip.training


def test_a_stage_without_steps_is_left_out(few_scenes, pocket_settings):
    settings = replace(pocket_settings, crops=replace(pocket_settings.crops, steps=0))
    assert [stage.name for stage in PocketRecipe(settings, few_scenes).stages()] == ["scenes", "decoder"]


def test_a_run_can_start_with_the_weights_of_an_earlier_one(few_scenes, pocket_settings, pocket_folder):
    earlier = build_segmenter("clipseg-pocket", pocket_folder)
    settings = replace(pocket_settings, seed=5, start=str(pocket_folder))
    started = PocketRecipe(settings, few_scenes).model
    for name, value in started.state_dict().items():
        assert torch.equal(value, earlier.state_dict()[name]), name
    with pytest.raises(ValueError, match="are of another shape than the recipe's"):
        PocketRecipe(replace(settings, width=16), few_scenes)


def test_examples_stand_in_for_pairs_that_a_scene_shows(recipe, few_scenes):
    """Half of the phrases that name colour and kind are mixed with an example; others stay as they are."""
    recipe._freeze_towers()
    absent = next((c, k) for c in COLORS for k in KINDS if (c, k) not in recipe._shown)
    shown = min(recipe._shown)
    queries = [Query("", *shown)] * 20 + [Query("", *absent)] * 10 + [Query("", shown[0], None)] * 10
    batch = replace(recipe._scene_batch(np.random.default_rng(0), recipe.settings.decoder), queries=(tuple(queries),))
    texts = torch.ones(40, 32)
    changed = (recipe._with_examples(np.random.default_rng(1), batch, texts) != texts).any(dim=1)
    assert 5 <= changed[:20].sum() <= 15
    assert not changed[20:].any()


def test_only_the_first_process_writes(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert recipe.save(tmp_path / "weights") == []
    assert not (tmp_path / "weights").exists()


def test_the_loss_of_masks_against_the_obvious_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    masks = (torch.rand(2, 3, 4, 5, generator=generator) > 0.6).float()
    masks[1, 2] = 0
    entropy, dices = [], []
    for b in range(2):
        for p in range(3):
            probability = 1 / (1 + np.exp(-logits[b, p].numpy().astype(float)))
            mask = masks[b, p].numpy()
            entropy += list(-(mask * np.log(probability) + (1 - mask) * np.log(1 - probability)).ravel())
            if mask.any():
                dices.append(1 - (2 * (probability * mask).sum() + 1) / (probability.sum() + mask.sum() + 1))
    terms = mask_loss(logits, masks)
    assert float(terms["bce"]) == pytest.approx(10 * np.mean(entropy), rel=1e-5)
    assert float(terms["dice"]) == pytest.approx(np.mean(dices), rel=1e-5)


def test_without_anything_to_find_only_the_entropy_counts():
    terms = mask_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert float(terms["dice"]) == 0
    assert float(terms["bce"]) > 0


def test_unknown_settings_are_refused(pocket_settings):
    stages = {name: {"steps": 1, "batch": 1, "learning_rate": 1.0} for name in ("crops", "joint", "decoder")}
    settings = PocketSettings.from_mapping({"scenes": 1, "layers": [1, 1, 1, 1], **stages})
    assert settings.layers == (1, 1, 1, 1)
    assert settings.crops.scene_px == (160, 160)
    with pytest.raises(SettingsError, match=r"widht.; did you mean width"):
        PocketSettings.from_mapping({"scenes": 1, "widht": 3, **stages})
    with pytest.raises(SettingsError, match=r"stpes.; did you mean steps"):
        PocketSettings.from_mapping({"scenes": 1, **stages, "joint": {"stpes": 3}})


def test_a_batch_in_which_nothing_has_a_colour_still_has_a_loss(recipe, monkeypatch):
    monkeypatch.setattr("clip_seg_ros.training.pocket.batches._RECOLORED_SHARE", 1.1)
    for terms in (recipe._crop_terms(np.random.default_rng(0)), recipe._joint_terms(np.random.default_rng(0))):
        assert all(torch.isfinite(value) for value in terms.values()), terms
