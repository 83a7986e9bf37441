# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.sim.surfaces import BEYOND, SURFACES, surface_map


@pytest.mark.parametrize("seed", [1, 2, 5, 40])
def test_the_surfaces_are_those_that_the_renderer_draws(seed):
    scene = sample_scene(seed)
    with SceneRenderer(160, 120) as renderer:
        view = renderer.render(scene)
    # Height of every pixel's point in the world: the table's top is 0, its underside -0.04, the floor -0.72.
    rows, columns = np.mgrid[:120, :160]
    lens = view.intrinsics
    points = np.stack([(columns - lens.cx) / lens.fx, (rows - lens.cy) / lens.fy, np.ones_like(rows)], -1)
    heights = (points * view.depth_m[..., None]) @ view.camera_to_world[2, :3] + view.camera_to_world[2, 3]
    bare = view.labels == 0
    found = surface_map(scene.camera, 160, 120)
    expected = np.where(np.isnan(heights), BEYOND, np.where(heights > -0.1, SURFACES.index("table"), 1))
    assert (found == expected)[bare].mean() > 0.995, "all but pixels on an edge"
    assert (found[bare] == 0).any()
