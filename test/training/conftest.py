# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.data import tabletop
from clip_seg_ros.training.pocket import clipseg as pocket
from clip_seg_ros.training.pocket.clipseg import PocketRecipe, PocketSettings, StageSettings


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory):
    """Twelve rendered training scenes of 160x120."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "SHARD_SCENES", 12)
        list(tabletop.render_training_scenes(folder, 12, 160, 120, workers=1))
        return tabletop.load_training_scenes(folder, 12)


@pytest.fixture(scope="session")
def pocket_settings():
    """The recipe of a tiny embedded CLIPSeg: two steps a stage."""
    return PocketSettings(
        scenes=12,
        crops=StageSettings(2, 8, 1e-3),
        joint=StageSettings(2, 2, 1e-3, phrases=2, crops=4, scene_px=(64, 64)),
        decoder=StageSettings(2, 2, 1e-3, phrases=2, scene_px=(64, 64)),
        width=8,
        layers=(1, 1, 1, 1),
        embed_dim=32,
        text_width=32,
        text_layers=1,
        reduce_dim=16,
        feed_forward=32,
        input_px=64,
    )


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    """Measures BatchNorm's statistics on two batches instead of sixty."""
    monkeypatch.setattr(pocket, "_STATISTICS_BATCHES", 2)


@pytest.fixture(scope="session")
def pocket_folder(few_scenes, pocket_settings, tmp_path_factory):
    """Weight files of the tiny embedded CLIP and its CLIPSeg, as drawn, but for norms that let every branch through."""
    folder = tmp_path_factory.mktemp("pocket")
    recipe = PocketRecipe(pocket_settings, few_scenes)
    for name, parameter in recipe.model.clip.visual.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.fill_(0.5)
    recipe.save(folder)
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)
