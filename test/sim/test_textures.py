import numpy as np
import pytest

from clip_seg_ros.sim.scene import TABLE_TEXTURES
from clip_seg_ros.sim.textures import table_texture


@pytest.mark.parametrize("name", TABLE_TEXTURES)
def test_a_texture_is_grey_bright_and_drawn_from_its_generator(name):
    image = table_texture(name, np.random.default_rng(1))
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert (image[..., 0] == image[..., 1]).all() and image.mean() > 100
    assert (image == table_texture(name, np.random.default_rng(1))).all()


def test_an_unknown_texture_is_refused():
    with pytest.raises(ValueError, match="unknown table texture 'lava'"):
        table_texture("lava", np.random.default_rng(0))
