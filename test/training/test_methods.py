from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from clip_seg_ros import resources
from clip_seg_ros.training.clipseg_recipe import CLIPSegSettings
from clip_seg_ros.training.cris_recipe import CRISSettings
from clip_seg_ros.training.denseclip_recipe import DenseCLIPSettings
from clip_seg_ros.training.methods import DATA_METHODS, POCKET_METHODS, TrainConfig, build_recipe

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


def test_recipes_for_data_sets_have_the_papers_values() -> None:
    clipseg = CLIPSegSettings.from_mapping(read("train_clipseg_phrasecut.yaml").recipe)
    assert clipseg == CLIPSegSettings(), "its defaults are the paper's"
    assert (clipseg.steps, clipseg.batch, clipseg.precision) == (20_000, 64, "float16")
    cris = CRISSettings.from_mapping(read("train_cris_refcoco.yaml").recipe)
    assert (cris.batch, cris.learning_rate, cris.clip_factor) == (64, 1e-4, 0.1)
    assert cris.milestones == (cris.steps * 35 // 50,) and cris.steps == 50 * -(-120_624 // 64)
    denseclip = DenseCLIPSettings.from_mapping(read("train_denseclip_ade20k.yaml").recipe)
    assert denseclip == DenseCLIPSettings(), "its defaults are the paper's"
    assert (denseclip.steps, denseclip.batch, denseclip.learning_rate) == (80_000, 32, 1e-4)


def test_a_recipe_lies_on_its_device(few_scenes, pocket_folder: Path) -> None:
    """Buffers too: what normalises pictures is one."""
    settings = {"train": {"steps": 1, "batch": 2}, "scene_px": [64, 64], "input_px": 64}
    config = TrainConfig("denseclip-pocket", settings, scenes=12, start=str(pocket_folder))
    recipe = build_recipe(config, few_scenes, torch.device("meta"))
    tensors = (*recipe.module.parameters(), *recipe.module.buffers())
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="the recipe of cris-pocket lacks train"):
        TrainConfig("cris-pocket", scenes=1).check()
    with pytest.raises(ValueError, match="there is no method 'cris_pocket'; the methods are clipseg-pocket, "):
        TrainConfig("cris_pocket")
    with pytest.raises(ValueError, match="say how many with scenes"):
        TrainConfig("cris-pocket")
    with pytest.raises(ValueError, match="a mapping that names a method"):
        TrainConfig.from_mapping("cris")
