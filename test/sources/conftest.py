# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene


@pytest.fixture(scope="session")
def views() -> list[RenderedView]:
    """Four small images of different tables."""
    with SceneRenderer(160, 120) as renderer:
        return [renderer.render(sample_scene(seed)) for seed in range(4)]
