# SPDX-License-Identifier: Apache-2.0
"""The embedded CRIS, DenseCLIP, pool and ViT: what learns, what stays, and that the files are the trained models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.data.expressions import expression_words
from clip_seg_ros.models.checkpoints import load_safetensors
from clip_seg_ros.models.denseclip.backbones import DenseResNet
from clip_seg_ros.models.layers import split_heads
from clip_seg_ros.sim.scene import KINDS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket.cris import CRISPocketSettings, cris_pocket
from clip_seg_ros.training.pocket.denseclip import DenseCLIPPocketSettings, denseclip_pocket
from clip_seg_ros.training.pocket.instances import InstancesPocketSettings, instances_pocket, scene_instances
from clip_seg_ros.training.pocket.pool import ATTENTIONS, PoolRecipe, PoolSettings, embed_places
from clip_seg_ros.training.pocket.vit import ViTRecipe, ViTSettings, position_waves
from clip_seg_ros.training.recipes.recipe import Recipe
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.embedded import build_maskclip_pocket
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near

CRIS_VALUES = {
    "scenes": 12,
    "train": {"steps": 2, "batch": 2, "first_steps": 2, "dice_weight": 0.5},
    "phrases": 2,
    "scene_px": [64, 64],
    "first_scene_px": [64, 64],
    "fpn_out": [16, 32, 32],
    "feed_forward": 32,
    "input_px": 64,
}
DENSECLIP_VALUES = {
    "scenes": 12,
    "train": {"steps": 3, "batch": 2, "learning_rate": 1e-3},
    "scene_px": [64, 64],
    "input_px": 64,
}
INSTANCES_VALUES = {
    "scenes": 12,
    "train": {"steps": 3, "batch": 2, "learning_rate": 1e-3, "milestones": [], "warmup": {"steps": 0}},
    "scene_px": [64, 64],
    "input_px": 64,
}
POOL_VALUES = {"scenes": 12, "steps": 6, "windows": 4, "batch": 2, "crops": 4, "scene_px": [64, 64]}
VIT_VALUES = {
    "scenes": 12,
    "steps": 3,
    "batch": 2,
    "crops": 4,
    "width": 32,
    "layers": 2,
    "head_width": 16,
    "patch": 8,
    "scene_px": 64,
    "crop_px": 32,
}


def make(name: str, scenes, folder: Path, **changes) -> Recipe:
    clip = folder / "clip_pocket.safetensors"
    if name == "cris-pocket":
        return cris_pocket(CRISPocketSettings.from_mapping({**CRIS_VALUES, **changes}), scenes, clip)
    if name == "denseclip-pocket":
        return denseclip_pocket(DenseCLIPPocketSettings.from_mapping({**DENSECLIP_VALUES, **changes}), scenes, clip)
    if name == "denseclip-instances-pocket":
        return instances_pocket(InstancesPocketSettings.from_mapping({**INSTANCES_VALUES, **changes}), scenes, clip)
    if name == "clip-pool-pocket":
        return PoolRecipe(PoolSettings.from_mapping({**POOL_VALUES, **changes}), scenes, clip)
    return ViTRecipe(ViTSettings.from_mapping({**VIT_VALUES, **changes}), scenes, clip)


def train(recipe: Recipe, folder: Path) -> set[str]:
    """Trains, and returns the names of the parameters that did not change."""
    before = {name: value.detach().clone() for name, value in recipe.module.named_parameters()}
    runner = Runner(recipe.module, folder / "state.pt", 0)
    for stage in recipe.stages():
        runner.run(stage)
    return {name for name, value in recipe.module.named_parameters() if torch.equal(value, before[name])}


def answers(model, prompts: list[str]) -> torch.Tensor:
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval().decode(model.encode_image(pixels), model.encode_text(prompts))


def test_cris_learns_in_all_its_parts(few_scenes, pocket_folder, tmp_path: Path) -> None:
    recipe = make("cris-pocket", few_scenes, pocket_folder)
    assert [stage.name for stage in recipe.stages()] == ["first", "end to end"]
    # The temperature of CLIP's own training has no part in CRIS.
    assert train(recipe, tmp_path) == {"model.clip.logit_scale"}
    (path,) = recipe.save(tmp_path / "weights")
    assert path.name == "cris_pocket.safetensors"
    loaded = build_segmenter("cris-pocket", tmp_path / "weights")
    prompts = ["the largest cup", "the red ball left of the box"]
    assert torch.allclose(answers(loaded, prompts), answers(recipe.model, prompts), atol=0.02)
    assert not any(loaded.unknown_words(word) for word in expression_words())


def test_cris_begins_with_small_answers(few_scenes, pocket_folder) -> None:
    model = make("cris-pocket", few_scenes, pocket_folder).model
    assert answers(model, ["the cup"]).sigmoid().max() < 0.5


@pytest.mark.parametrize("options", [{}, {"context_aware": False}, {"score_map": False}], ids=str)
def test_denseclip_learns_all_but_its_texts(few_scenes, pocket_folder, tmp_path: Path, options: dict) -> None:
    recipe = make("denseclip-pocket", few_scenes, pocket_folder, **options)
    same = train(recipe, tmp_path)
    texts = {f"model.text_encoder.{name}" for name, _ in recipe.model.text_encoder.named_parameters()}
    # A bias ahead of a softmax over keys changes nothing.
    assert texts <= same
    assert {name for name in same - texts if not name.endswith("k_proj.bias")} == set()
    (path,) = recipe.save(tmp_path / "weights")
    loaded = build_segmenter("denseclip-pocket", tmp_path / "weights")
    names = list(loaded.class_names)
    assert path.name == "denseclip_pocket.safetensors"
    assert names[-2:] == ["table", "floor"]
    assert torch.allclose(answers(loaded, names), answers(recipe.model, names), atol=0.02)


def test_the_detector_learns_all_but_its_texts(few_scenes, pocket_folder, tmp_path: Path) -> None:
    recipe = make("denseclip-instances-pocket", few_scenes, pocket_folder)
    assert {name.split(".")[1] for name in train(recipe, tmp_path) if not name.endswith("k_proj.bias")} == {
        "text_encoder"
    }
    (path,) = recipe.save(tmp_path / "weights")
    assert path.name == "denseclip_instances_pocket.safetensors"
    loaded = build_segmenter("denseclip-instances-pocket", tmp_path / "weights")
    assert loaded.class_names == KINDS
    assert loaded.spec.finds_objects
    assert answers(loaded, list(KINDS)).isfinite().all()


def test_a_batch_of_scenes_lists_what_it_shows(few_scenes) -> None:
    batch = scene_instances(few_scenes, np.random.default_rng(0), 4, (64, 96))
    assert batch.pixels.shape == (4, 3, 64, 96)
    assert batch.sizes == ((64, 96),) * 4
    assert sum(len(target.labels) for target in batch.targets) > 0
    for target in batch.targets:
        inside = torch.stack([target.boxes[:, 0], target.boxes[:, 1]], dim=1) >= 0
        assert inside.all()
        assert (target.masks.sum(dim=(1, 2)) >= 0.001 * 64 * 96).all()
        for box, mask in zip(target.boxes.int().tolist(), target.masks, strict=True):
            left, top, right, bottom = box
            assert mask.sum() == mask[top:bottom, left:right].sum()
            assert mask[top].any()
            assert mask[:, right - 1].any()


def test_the_vit_learns_and_the_texts_stay(few_scenes, pocket_folder, tmp_path: Path) -> None:
    recipe = make("clip-vit-pocket", few_scenes, pocket_folder)
    same = train(recipe, tmp_path)
    assert same == {name for name, _ in recipe.named_parameters() if name.startswith("clip.") and "visual." not in name}
    (path,) = recipe.save(tmp_path / "weights")
    assert path.name == "clip_vit_pocket.safetensors"
    loaded = build_segmenter("maskclip-vit-pocket", tmp_path / "weights")
    assert answers(loaded, ["red cup", "table"]).isfinite().all()
    visual = loaded.state_dict()["visual.conv1.weight"]
    assert torch.allclose(visual, recipe.clip.visual.conv1.weight, atol=1e-3)


def test_positions_begin_as_waves_of_column_and_row() -> None:
    waves = position_waves((3, 5), 16).unflatten(0, (3, 5))
    assert waves.abs().max() <= 1
    # The first half tells columns apart and is the same in all rows; the second half tells rows apart.
    torch.testing.assert_close(waves[0, :, :8], waves[2, :, :8])
    torch.testing.assert_close(waves[:, 0, 8:], waves[:, 4, 8:])
    torch.testing.assert_close(waves[0, 3, 0], torch.tensor(3.0).sin())
    torch.testing.assert_close(waves[2, 0, 8], torch.tensor(2.0).sin())


def test_a_window_has_the_positions_of_its_place_in_an_image(few_scenes, pocket_folder) -> None:
    recipe = make("clip-vit-pocket", few_scenes, pocket_folder)
    visual, side = recipe.clip.visual, recipe.settings.scene_px // recipe.settings.patch
    with torch.no_grad():
        # Each position says where it is.
        table = visual.positional_embedding
        height, width = visual.grid_size
        rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        table[1:, 0], table[1:, 1] = rows.flatten(), columns.flatten()
        windows = [recipe._positions_of_window(np.random.default_rng(seed))[1:] for seed in range(8)]
    for window in windows:
        assert len(window) == side * side
        down = window[:, 0].unflatten(0, (side, side)).diff(dim=0)
        right = window[:, 1].unflatten(0, (side, side)).diff(dim=1)
        # No finer than in an image of the table's size, and hardly coarser than in one of three quarters.
        assert 0 <= down.min()
        assert down.mean() <= 1.5 / height
        assert right.mean() <= 1.5 / width
    assert len({round(float(window[0, 0]), 4) for window in windows}) > 1 or side >= height


def test_the_teacher_is_neither_saved_nor_trained(few_scenes, pocket_folder) -> None:
    recipe = make("clip-vit-pocket", few_scenes, pocket_folder)
    teacher = recipe._teacher[0].visual
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    own = {id(parameter) for parameter in recipe.parameters()}
    assert not any(id(parameter) in own for parameter in teacher.parameters())


def test_the_pool_learns_queries_and_keys_alone(few_scenes, pocket_folder, tmp_path: Path) -> None:
    recipe = make("clip-pool-pocket", few_scenes, pocket_folder)
    assert train(recipe, tmp_path) == {
        n for n, _ in recipe.named_parameters() if "q_proj" not in n and "k_proj" not in n
    }
    (path,) = recipe.save(tmp_path / "weights")
    assert path.name == "clip_pocket.safetensors"
    before, values = load_safetensors(pocket_folder / path.name)
    after, same_values = load_safetensors(path)
    assert after.keys() == before.keys()
    assert same_values == values
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    parts = ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")
    assert changed == {f"visual.attnpool.{part}" for part in parts}


def test_the_pool_draws_pooled_images_to_what_they_were(few_scenes, pocket_folder, rng) -> None:
    recipe = make("clip-pool-pocket", few_scenes, pocket_folder)
    assert recipe.terms(rng)["teacher"].item() > 1e-4, "new queries and keys pool otherwise"
    pool, before = recipe.clip.visual.attnpool, recipe._teacher[0].visual.attnpool
    pool.load_state_dict(before.state_dict())
    assert recipe.terms(rng)["teacher"].item() == pytest.approx(0, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in before.parameters())


@pytest.mark.parametrize("deviation", [0.5, 3.0])
def test_the_attention_of_the_pool_begins_soft(few_scenes, pocket_folder, rng, deviation: float) -> None:
    recipe = make("clip-pool-pocket", few_scenes, pocket_folder, deviation=deviation, batch=12)
    pool, pixels = recipe.clip.visual.attnpool, recipe._scene_batch(rng, 12).pixels
    tokens = recipe._layer4(pixels).flatten(2).transpose(1, 2)
    query, key = (split_heads(f(tokens), pool.num_heads) for f in (pool.q_proj, pool.k_proj))
    logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    assert logits.std().item() == pytest.approx(deviation, rel=0.5)


def test_places_are_embedded_as_models_embed_them(few_scenes, pocket_folder) -> None:
    recipe = make("clip-pool-pocket", few_scenes, pocket_folder)
    # This size has as many places as the pool has positions, which are therefore not interpolated.
    pixels = recipe.normalised(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    layer4 = recipe.taps.feature_maps(pixels, 4)[3]
    for attention in ATTENTIONS:
        found = embed_places(recipe.taps, layer4, attention)
        if attention == "whole":
            expected = DenseResNet(recipe.clip.visual)(pixels).dense
        else:
            model = build_maskclip_pocket(pocket_folder, variant=attention).eval()
            model.visual.attnpool.load_state_dict(recipe.clip.visual.attnpool.state_dict(), strict=False)
            expected, found = model.encode_image(pixels).dense, F.normalize(found, dim=-1)
        assert_near(found.transpose(1, 2), expected.flatten(2), message=attention)


EMBEDDED = ["cris-pocket", "denseclip-pocket", "denseclip-instances-pocket", "clip-pool-pocket", "clip-vit-pocket"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_only_the_first_process_writes(few_scenes, pocket_folder, tmp_path: Path, monkeypatch, name: str) -> None:
    recipe = make(name, few_scenes, pocket_folder)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert recipe.save(tmp_path / "weights") == []
    assert not (tmp_path / "weights").exists()
