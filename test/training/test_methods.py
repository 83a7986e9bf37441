# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from clip_seg_ros import resources
from clip_seg_ros.training.methods import DATA_METHODS, POCKET_METHODS, TrainConfig, build_recipe
from clip_seg_ros.training.recipes.clipseg import CLIPSegSettings
from clip_seg_ros.training.settings import SettingsError

RECIPES = sorted(resources.config_dir().glob("train_*.yaml"))


def read(name: str) -> TrainConfig:
    return TrainConfig.from_mapping(yaml.safe_load((resources.config_dir() / name).read_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_comes_with_the_package_is_one(path: Path) -> None:
    config = TrainConfig.from_mapping(yaml.safe_load(path.read_text()))
    config.check()
    assert config.seed == 0


def test_there_is_a_recipe_for_every_method() -> None:
    assert {read(path.name).method for path in RECIPES} == {*POCKET_METHODS, *DATA_METHODS}


def test_a_recipe_lies_on_its_device(few_scenes, pocket_folder: Path) -> None:
    """Buffers too: what normalises pictures is one."""
    settings = {"train": {"steps": 1, "batch": 2}, "scene_px": [64, 64], "input_px": 64}
    config = TrainConfig("denseclip-pocket", settings, scenes=12, start=str(pocket_folder))
    recipe = build_recipe(config, few_scenes, torch.device("meta"))
    tensors = (*recipe.module.parameters(), *recipe.module.buffers())
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_what_is_missing_is_said() -> None:
    with pytest.raises(SettingsError, match=r"^recipe lacks train$"):
        TrainConfig("cris-pocket", scenes=1).check()
    with pytest.raises(
        ValueError, match=r"no method 'cris_pocket'; the methods are clipseg-pocket, .*mean cris-pocket"
    ):
        TrainConfig("cris_pocket")
    with pytest.raises(ValueError, match="say how many with scenes"):
        TrainConfig("cris-pocket")
    with pytest.raises(ValueError, match="names a method"):
        TrainConfig.from_mapping("cris")


OWN = {"method": "clipseg", "model": "clipseg-pocket", "name": "mine", "data": {"kind": "folder", "root": "mine"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**OWN, "recpie": {}}, "the file has no setting 'recpie'; did you mean recipe?"),
        ({**OWN, "steps": 5}, "steps is in the wrong place: write it below recipe"),
        ({**OWN, "recipe": {"seed": 5}}, "seed is in the wrong place: write it beside recipe, not below it"),
        ({**OWN, "recipe": {"stpes": 5}}, "recipe has no setting 'stpes'; did you mean steps?"),
        ({**OWN, "recipe": {"zoom": 5}}, "recipe has no setting 'zoom'; it knows steps, batch, "),
        ({**OWN, "recipe": {"steps": "many"}}, "recipe.steps must be a whole number, not 'many'"),
        ({**OWN, "recipe": {"steps": True}}, "recipe.steps must be a whole number, not True"),
        ({**OWN, "recipe": {"steps": None}}, "recipe.steps must be a whole number, not empty"),
        ({**OWN, "recipe": {"precision": "flaot32"}}, "recipe.precision must be .*; did you mean float32?"),
        ({**OWN, "recipe": {"text_weight": 1}}, "recipe.text_weight must be a list, such as [1, 2], not 1"),
        ({**OWN, "recipe": {"text_weight": [1]}}, "recipe.text_weight must be a list of 2 values, not of 1"),
        ({**OWN, "recipe": {"text_weight": [0, "x"]}}, "recipe.text_weight[1] must be a number, not 'x'"),
        ({**OWN, "recipe": {"text_weight": [0, 2]}}, "recipe: text_weight must be a range within 0..1"),
        ({**OWN, "recipe": {"learning_rate": 0}}, "recipe: learning_rate must be more than 0, got 0"),
        ({**OWN, "method": "cris", "recipe": {"steps": 0}}, "recipe: steps must be at least 1, got 0"),
        ({**OWN, "recipe": {"betas": [0.9, 1]}}, "recipe: betas must lie in 0..1 and be less than 1, got [0.9, 1.0]"),
        ({**OWN, "recipe": {"clip_norm": 0}}, "recipe: clip_norm must be more than 0, or empty for no clipping, got 0"),
        ({**OWN, "recipe": {"decay": "norms"}}, "recipe.decay must be all or without_norms or matrices, not 'norms'"),
        ({**OWN, "recipe": {"warmup": 5}}, "recipe.warmup must hold names and values, such as `steps: 2000`, not 5"),
        ({**OWN, "recipe": {"warmup": {"steps": -1}}}, "recipe.warmup: a warm-up takes 0 steps or more"),
        ({**OWN, "architecture": {"reduce": 5}}, "architecture has no setting 'reduce'; did you mean reduce_dim?"),
        ({**OWN, "architecture": {"word_length": 22}}, "architecture has no setting 'word_length'"),
        ({**OWN, "validation": {"every": 5}}, "validation lacks data"),
        ({**OWN, "validation": {"data": {}, "every": 0}}, "validation: every and limit must be at least 1, got 0"),
        (
            {"method": "cris-pocket", "scenes": 1, "architecture": {"word_length": 5}},
            "cris-pocket learns from rendered scenes and knows no architecture",
        ),
        ({**OWN, "recipe": [1]}, "recipe must hold names and values, not [1]"),
        ({**OWN, "data": "mine"}, "data must hold names and values, not 'mine'"),
        (
            {"method": "cris-pocket", "scenes": 1, "recipe": {"train": {"btach": 1}}},
            "recipe.train has no setting 'btach'",
        ),
    ],
)
def test_a_slip_is_named_with_its_place(values: dict, message: str) -> None:
    with pytest.raises(SettingsError) as failure:
        TrainConfig.from_mapping(values).check()
    assert all(part in str(failure.value) for part in message.split(".*"))


def test_numbers_as_yaml_gives_them_are_taken() -> None:
    """YAML takes 1e-4 for a text, because it has no point."""
    values = yaml.safe_load("{steps: 5, batch: 2, learning_rate: 1e-4, weight_decay: 0, text_weight: [0, 1]}")
    settings = CLIPSegSettings.from_mapping(values)
    assert (settings.learning_rate, settings.weight_decay, settings.text_weight) == (1e-4, 0.0, (0.0, 1.0))
    assert CLIPSegSettings.from_mapping({"size_px": None}).size_px is None
