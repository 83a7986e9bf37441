import numpy as np
import pytest

from clip_seg_ros.data import tabletop
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import HELD_OUT_PAIRS, SCENES_PER_SHAPE_SET, sample_scene


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(tabletop, "SHARD_SCENES", 3)


def test_scenes_come_back_as_rendered(tmp_path, small_shards):
    assert list(tabletop.render_training_scenes(tmp_path, 4, 64, 48, workers=1)) == [0, 3, 6]
    scenes = tabletop.load_training_scenes(tmp_path, 4)
    assert scenes.rgb.shape == (6, 48, 64, 3) and len(scenes.objects) == len(scenes) == 6
    scene = sample_scene(tabletop.FIRST_TRAIN_SEED + 4, forbidden=HELD_OUT_PAIRS)
    with SceneRenderer(64, 48) as renderer:
        view = renderer.render(scene)
    assert (scenes.rgb[4] == view.rgb).all() and (scenes.labels[4] == view.labels).all()
    assert scenes.objects[4] == tuple((item.color, item.kind) for item in scene.objects)


def test_held_out_pairs_are_never_rendered(tmp_path, small_shards):
    list(tabletop.render_training_scenes(tmp_path, 60, 16, 16, workers=1))
    seen = {pair for scene in tabletop.load_training_scenes(tmp_path, 60).objects for pair in scene}
    assert len(seen) > 50 and not seen & set(HELD_OUT_PAIRS)


def test_only_what_is_missing_is_rendered(tmp_path, small_shards):
    list(tabletop.render_training_scenes(tmp_path, 6, 32, 24, workers=1))
    kept = (tmp_path / "tabletop_00000.npz").stat().st_mtime_ns
    (tmp_path / "tabletop_00001.npz").unlink()
    (tmp_path / "stopped.part").write_bytes(b"half")
    assert list(tabletop.render_training_scenes(tmp_path, 6, 32, 24, workers=1)) == [3, 6]
    assert (tmp_path / "tabletop_00000.npz").stat().st_mtime_ns == kept
    assert not list(tmp_path.glob("*.part"))


def test_missing_and_mixed_shards_are_said_in_words(tmp_path, small_shards):
    with pytest.raises(FileNotFoundError, match="tabletop_00000.npz is missing: render the training scenes"):
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
