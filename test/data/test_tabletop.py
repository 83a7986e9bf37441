# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.data import tabletop
from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import HELD_OUT_PAIRS, KINDS, SCENES_PER_SHAPE_SET, UNSEEN_SHAPE_SETS, sample_scene
from clip_seg_ros.sim.stacking import stacked_scene


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(tabletop, "SHARD_SCENES", 3)


def test_scenes_come_back_as_rendered(tmp_path, small_shards):
    assert list(tabletop.render_training_scenes(tmp_path, 4, 64, 48, workers=1)) == [*range(7)]
    scenes = tabletop.load_training_scenes(tmp_path, 4)
    assert scenes.rgb.shape == (6, 48, 64, 3)
    assert len(scenes.objects) == len(scenes) == 6
    scene = sample_scene(tabletop.FIRST_TRAIN_SEED + 4, forbidden=HELD_OUT_PAIRS)
    with SceneRenderer(64, 48) as renderer:
        view = renderer.render(scene)
    assert (scenes.rgb[4] == view.rgb).all()
    assert (scenes.labels[4] == view.labels).all()
    assert scenes.objects[4] == tuple((item.color, item.kind) for item in scene.objects)


RENDERING = """
import sys
from pathlib import Path
from clip_seg_ros.data import tabletop

try:
    for ready in tabletop.render_training_scenes(Path(sys.argv[1]), 500, 64, 48, workers=2):
        print(ready, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("at_least", [0, 1], ids=["while the workers start", "while they draw"])
def test_ctrl_c_ends_a_rendering_quietly(tmp_path, at_least):
    """A terminal sends Ctrl-C to all processes of the program, the workers too."""
    program = subprocess.Popen(
        [sys.executable, "-c", RENDERING, str(tmp_path / "scenes")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while int(program.stdout.readline()) < at_least:
            pass
        os.killpg(program.pid, signal.SIGINT)
        said, faults = program.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    assert faults == ""
    assert program.returncode == 0
    assert said.splitlines()[-1] == "interrupted"
    assert not list((tmp_path / "scenes").glob("*")), "no shard was whole, and nothing else is left"


def test_held_out_pairs_are_never_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(tabletop, "SHARD_SCENES", 60)
    list(tabletop.render_training_scenes(tmp_path, 60, 16, 16, workers=1))
    seen = {pair for scene in tabletop.load_training_scenes(tmp_path, 60).objects for pair in scene}
    assert len(seen) > 50
    assert not seen & set(HELD_OUT_PAIRS)


def test_only_what_is_missing_is_rendered(tmp_path, small_shards):
    list(tabletop.render_training_scenes(tmp_path, 6, 32, 24, workers=1))
    kept = (tmp_path / "tabletop_00000.npz").stat().st_mtime_ns
    (tmp_path / "tabletop_00001.npz").unlink()
    (tmp_path / "stopped.part").write_bytes(b"half")
    assert list(tabletop.render_training_scenes(tmp_path, 6, 32, 24, workers=1)) == [3, 4, 5, 6]
    assert (tmp_path / "tabletop_00000.npz").stat().st_mtime_ns == kept
    assert not list(tmp_path.glob("*.part"))


def test_missing_and_mixed_shards_are_said_in_words(tmp_path, small_shards):
    with pytest.raises(FileNotFoundError, match=r"tabletop_00000.npz is missing: render the training scenes"):
        tabletop.load_training_scenes(tmp_path, 3)
    list(tabletop.render_training_scenes(tmp_path, 3, 32, 24, workers=1))
    list(tabletop.render_training_scenes(tmp_path, 6, 16, 16, workers=1))
    with pytest.raises(ValueError, match="different sizes"):
        tabletop.load_training_scenes(tmp_path, 6)


def test_training_and_test_scenes_share_neither_seeds_nor_shapes():
    assert tabletop.TEST_SEEDS.stop <= tabletop.FIRST_TRAIN_SEED
    assert tabletop.FIRST_TRAIN_SEED % SCENES_PER_SHAPE_SET == 0
    assert tabletop.TEST_SEEDS[-1] // SCENES_PER_SHAPE_SET < tabletop.FIRST_TRAIN_SEED // SCENES_PER_SHAPE_SET


def test_present_pairs_adds_up_objects_of_one_name():
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :3], labels[1, :3], labels[2, :4] = 1, 2, 3
    objects = [("red", "cup"), ("red", "cup"), ("blue", "box"), ("green", "can")]
    assert tabletop.present_pairs(objects, labels, 0.05) == {("red", "cup")}
    assert tabletop.present_pairs(objects, labels, 0.04) == {("red", "cup"), ("blue", "box")}


@pytest.mark.parametrize("count", [2, 3, 20, 48, 500, 999, 1000])
def test_held_out_seeds_are_spread_over_usual_and_unseen_scenes_alike(count):
    seeds = tabletop.held_out_seeds(count)
    assert len(set(seeds)) == len(seeds) == count
    assert seeds == sorted(seeds)
    assert set(seeds) <= set(tabletop.TEST_SEEDS)
    unseen = [seed for seed in seeds if tabletop.is_unseen(seed)]
    usual = [seed for seed in seeds if not tabletop.is_unseen(seed)]
    assert 0 <= len(usual) - len(unseen) <= 1
    for half in (usual, unseen):
        # As many in each tenth of the range as in any other, give or take two.
        tenths = np.bincount([(seed - tabletop.TEST_SEEDS.start) // 100 for seed in half], minlength=10)
        assert np.ptp(tenths) <= 2


def test_one_held_out_scene_is_a_usual_one():
    assert tabletop.held_out_seeds(1) == [tabletop.TEST_SEEDS[0]]
    assert not tabletop.is_unseen(tabletop.TEST_SEEDS[0])


def test_every_second_group_of_test_scenes_is_unseen():
    expected = np.tile(np.repeat([False, True], SCENES_PER_SHAPE_SET), 20)
    assert [tabletop.is_unseen(seed) for seed in tabletop.TEST_SEEDS] == expected.tolist()
    for seed in (10_024, 10_025):
        scene = tabletop.held_out_scene(seed)
        assert scene == sample_scene(seed, unseen=seed == 10_025)
        assert (scene.shape_seed >= UNSEEN_SHAPE_SETS) == tabletop.is_unseen(seed)


def test_a_loaded_scene_is_drawn_again_from_its_seed(tmp_path, small_shards):
    list(tabletop.render_training_scenes(tmp_path, 3, 64, 48, workers=1))
    scenes = tabletop.load_training_scenes(tmp_path, 3)
    for index in range(3):
        scene = scenes.scene(index)
        assert scene.seed == tabletop.FIRST_TRAIN_SEED + index
        assert scenes.objects[index] == tuple((item.color, item.kind) for item in scene.objects)


@pytest.mark.parametrize("seed", [10_002, 10_027])
def test_every_pixel_is_a_kind_of_object_the_table_or_the_floor(seed):
    scene = tabletop.held_out_scene(seed)
    with SceneRenderer(160, 120) as renderer:
        view = renderer.render(scene)
    classes = tabletop.class_map(scene, view.labels)
    assert classes.dtype == np.uint8
    assert tabletop.SEMANTIC_CLASSES == (*KINDS, "table", "floor")
    # How high every pixel's point lies, by the depth image: the table's top at 0 m, its underside at -0.04, the floor
    # at -0.72.
    rows, columns = np.mgrid[:120, :160]
    lens = view.intrinsics
    rays = np.stack([(columns - lens.cx) / lens.fx, (rows - lens.cy) / lens.fy, np.ones((120, 160))], -1)
    heights = (rays * view.depth_m[..., None]) @ view.camera_to_world[2, :3] + view.camera_to_world[2, 3]
    agrees = []
    for y in range(120):
        for x in range(160):
            if view.labels[y, x]:
                assert tabletop.SEMANTIC_CLASSES[classes[y, x]] == view.objects[view.labels[y, x] - 1].kind
            elif np.isnan(heights[y, x]):
                agrees.append(classes[y, x] == IGNORED)
            else:
                surface = "table" if heights[y, x] > -0.1 else "floor"
                agrees.append(tabletop.SEMANTIC_CLASSES[classes[y, x]] == surface)
    assert np.mean(agrees) > 0.995, "all but pixels on an edge"


def test_pixels_that_look_over_the_floors_end_have_no_class():
    scene = tabletop.held_out_scene(10_000)
    level = replace(scene.camera, target=(scene.camera.target[0], scene.camera.target[1], scene.camera.eye[2]))
    classes = tabletop.class_map(replace(scene, camera=level), np.zeros((40, 60), np.uint8))
    assert (classes[:18] == IGNORED).all(), "above the horizon"
    assert (classes[-1] != IGNORED).all()


def test_shards_have_their_arrangements_in_turns(tmp_path, small_shards):
    list(tabletop.render_training_scenes(tmp_path, 9, 64, 48, workers=1, arrangements=tabletop.CROWDED))
    scenes = tabletop.load_training_scenes(tmp_path, 9, tabletop.CROWDED)
    for index in range(9):
        seed = tabletop.FIRST_TRAIN_SEED + index
        expected = sample_scene(seed, forbidden=HELD_OUT_PAIRS, alike=3 <= index < 6)
        if index >= 6:
            expected, _ = stacked_scene(expected)
        assert scenes.objects[index] == tuple((item.color, item.kind) for item in expected.objects)
        assert scenes.scene(index) == expected
    with pytest.raises(FileNotFoundError):
        tabletop.load_training_scenes(tmp_path, 6)
