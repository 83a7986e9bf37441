import pytest

from clip_seg_ros.data import tabletop


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory):
    """Twelve rendered training scenes of 160x120."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "SHARD_SCENES", 12)
        list(tabletop.render_training_scenes(folder, 12, 160, 120, workers=1))
        return tabletop.load_training_scenes(folder, 12)
