# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import numpy as np
import pytest

from clip_seg_ros.sim.renderer import SceneRenderer, camera_to_world
from clip_seg_ros.sim.scene import sample_scene, shape_set


@pytest.fixture(scope="module")
def renderer():
    with SceneRenderer(320, 240) as opened:
        yield opened


def rays(view):
    """Directions (H, W, 3) in the optical frame with z = 1."""
    rows, columns = np.mgrid[0 : view.labels.shape[0], 0 : view.labels.shape[1]]
    k = view.intrinsics
    return np.stack([(columns - k.cx) / k.fx, (rows - k.cy) / k.fy, np.ones_like(rows, float)], -1)


def world_points(view):
    points = rays(view) * view.depth_m[..., None]
    pose = view.camera_to_world
    return points @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize("seed", [0, 30, 61])
def test_depth_and_camera_agree_with_the_table(renderer, seed):
    view = renderer.render(sample_scene(seed))
    points = world_points(view)
    on_table = (view.labels == 0) & (np.abs(points[..., 2]) < 0.02) & (np.abs(points[..., :2]).max(-1) < 0.5)
    assert on_table.sum() > 2000
    assert np.abs(points[on_table][:, 2]).max() < 0.002


@pytest.mark.parametrize("seed", [0, 30, 61])
def test_each_object_is_seen_where_it_stands(renderer, seed):
    scene = sample_scene(seed)
    view = renderer.render(scene)
    points = world_points(view)
    for index, item in enumerate(scene.objects):
        mask = view.labels == index + 1
        if mask.sum() < 50:
            continue
        shape = shape_set(scene.shape_seed)[item.kind][item.slot]
        reach = max(shape.footprint_radius, shape.height) + 0.01
        seen = points[mask]
        assert np.linalg.norm(seen[:, :2] - np.array(item.position[:2]), axis=1).max() < reach
        assert seen[:, 2].min() > -0.003
        assert seen[:, 2].max() < max(shape.height, 2 * shape.lying_radius) + 0.005


def test_colours_on_the_picture_are_the_objects(renderer):
    view = renderer.render(sample_scene(3, required=[("red", "ball"), ("blue", "ball")]))
    red, green, blue = view.rgb[view.mask_of("red", "ball")].mean(0)
    assert red > 2 * green
    assert red > 2 * blue
    red, green, blue = view.rgb[view.mask_of("blue", "ball")].mean(0)
    assert blue > 2 * red


def test_images_have_the_types_that_they_promise(renderer):
    view = renderer.render(sample_scene(3))
    assert (view.rgb.dtype, view.depth_m.dtype, view.labels.dtype) == (np.uint8, np.float32, np.uint8)
    assert np.isnan(renderer.render(sample_scene(3), depth=False).depth_m).all()


def test_mask_of_takes_any_for_what_is_not_named(renderer):
    view = renderer.render(sample_scene(3, required=[("red", "ball")]))
    assert (view.mask_of() == (view.labels > 0)).all()
    assert (view.mask_of("red", "ball") <= view.mask_of("red")).all()
    assert (view.mask_of("red", "ball") <= view.mask_of(kind="ball")).all()


def test_the_same_scene_gives_the_same_picture_after_others_were_drawn(renderer):
    first = renderer.render(sample_scene(12))
    renderer.render(sample_scene(13))
    renderer.render(sample_scene(200))
    again = renderer.render(sample_scene(12))
    assert (first.rgb == again.rgb).all()
    assert (first.labels == again.labels).all()


def test_required_objects_are_visible(renderer):
    for seed in range(12):
        view = renderer.render(sample_scene(seed, required=[("red", "cup"), ("blue", "box")]), depth=False)
        for color, kind in (("red", "cup"), ("blue", "box")):
            assert view.mask_of(color, kind).mean() > 0.002, (seed, color, kind)


def test_the_optical_frame_is_right_handed_and_looks_at_the_target():
    camera = sample_scene(0).camera
    pose = camera_to_world(camera)
    assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    target = np.linalg.inv(pose) @ [*camera.target, 1.0]
    assert np.allclose(target[:2], 0)
    assert target[2] > 0
    assert (pose[:3, 1])[2] < 0, "y points down"


def test_an_image_without_size_is_refused():
    with pytest.raises(ValueError, match="image size must be positive"):
        SceneRenderer(0, 480)


def test_no_way_to_draw_is_said_in_words():
    code = (
        "from clip_seg_ros.sim.renderer import SceneRenderer, RendererUnavailable\n"
        "try:\n    SceneRenderer()\n"
        "except RendererUnavailable as error:\n    print(error)"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "MUJOCO_GL": "glfw", "DISPLAY": "", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "apt-get install" in done.stdout, done.stdout + done.stderr


def test_without_mujoco_it_is_told_what_to_install():
    # In a process of its own, where MuJoCo was never imported; "None" hides it.
    program = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'mujoco' else found(name, *more)\n"
        "from clip_seg_ros.sim.renderer import SceneRenderer\n"
        "SceneRenderer()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert "RendererUnavailable" in last
    assert "MuJoCo, which is not installed" in last
    assert "clip_seg_ros[sim]" in last
