# SPDX-License-Identifier: Apache-2.0
"""Recordings of the original implementations' metrics, and rendered scenes with models and rules to ask about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clip_seg_ros.data.samples import ReferringSample
from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import Scene, sample_scene
from clip_seg_ros.types import ProbabilityMaps
from nearness import assert_near

SceneView = tuple[Scene, RenderedView]
Rule = Callable[[Scene, RenderedView, str], np.ndarray]


class MetricRecording:
    """The inputs and outputs recorded of one original implementation's metrics (see test/data/golden)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays}
        # A folder may leave some recordings out, by name.
        left_out = folder / "left_out.json"
        self.left_out = set(json.loads(left_out.read_text()).get(name, [])) if left_out.is_file() else set()

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def check(self, actual: Mapping[str, object], prefixes: tuple[str, ...], relative: float) -> None:
        """Compares with the recordings; ``actual`` must have each one whose key starts with a prefix, and no other."""
        recorded = {key for key in self.arrays if key.startswith(prefixes)}
        left_out = {key for key in self.left_out if key.startswith(prefixes)}
        assert set(actual) == recorded | left_out
        for key in sorted(recorded):
            expected = self.arrays[key]
            value = np.asarray(actual[key])
            assert value.shape == expected.shape, f"{self.name} {key}"
            assert_near(value, expected, relative, message=f"{self.name} {key}")


@pytest.fixture(scope="session")
def recording(request: pytest.FixtureRequest) -> Callable[[str], MetricRecording]:
    """Opens a recording by name: ``recording("mmseg_metrics")``."""
    folder = request.config.getoption("--golden")

    def open_recording(name: str) -> MetricRecording:
        return MetricRecording(folder, name)

    return open_recording


@pytest.fixture(scope="session")
def clipseg() -> Predictor:
    """The embedded CLIPSeg on the CPU."""
    return Predictor.from_name("clipseg-pocket", "cpu", engine="eager")


@pytest.fixture(scope="session")
def scenes() -> list[ReferringSample]:
    """Rendered pictures of 160 x 120, each with two phrases for what is there and one for what is not."""
    samples = []
    with SceneRenderer(160, 120) as renderer:
        for seed in (10_000, 10_001):
            view = renderer.render(sample_scene(seed), depth=False)
            for item in view.objects[:2]:
                mask = view.mask_of(item.color, item.kind)
                samples.append(ReferringSample(view.rgb, item.name, mask, f"test/{seed}/{item.name}"))
            samples.append(ReferringSample(view.rgb, "giraffe", np.zeros((120, 160), bool), f"test/{seed}/giraffe"))
    return samples


class RulePredictor:
    """Answers by a rule that knows the scene: probability 0.9 where the rule says yes, 0.1 elsewhere."""

    spec = SimpleNamespace(calibration=NOTHING_CORRECTED)

    def __init__(self, scenes: Sequence[SceneView], rule: Rule) -> None:
        self._scenes, self._rule = scenes, rule
        self.asked: list[tuple[str, ...]] = []

    def predict(self, rgb: np.ndarray, prompts: Sequence[str]) -> ProbabilityMaps:
        self.asked.append(tuple(prompts))
        scene, view = next(each for each in self._scenes if each[1].rgb is rgb)
        inside = np.stack([self._rule(scene, view, prompt) for prompt in prompts])
        return ProbabilityMaps(tuple(prompts), np.where(inside, 0.9, 0.1).astype(np.float32))


@pytest.fixture(scope="session")
def held_out() -> list[SceneView]:
    """Two of the usual held-out scenes and two of the unseen ones, as pictures of 160 x 120."""
    with SceneRenderer(160, 120) as renderer:
        scenes = [held_out_scene(seed) for seed in (10_003, 10_004, 10_025, 10_026)]
        return [(scene, renderer.render(scene, depth=False)) for scene in scenes]


@pytest.fixture
def by_rule(held_out: list[SceneView]) -> Callable[[Rule], RulePredictor]:
    """Makes a predictor for the ``held_out`` scenes out of a rule, (scene, view, prompt) to (H, W) bool."""
    return lambda rule: RulePredictor(held_out, rule)
