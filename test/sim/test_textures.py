# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.sim.scene import TABLE_TEXTURES, UNSEEN_TABLE_TEXTURES
from clip_seg_ros.sim.textures import SIZE, table_texture


@pytest.mark.parametrize("name", [*TABLE_TEXTURES, *UNSEEN_TABLE_TEXTURES])
def test_a_texture_is_grey_bright_and_drawn_from_its_generator(name):
    image = table_texture(name, np.random.default_rng(1))
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert (image[..., 0] == image[..., 1]).all()
    assert image.mean() > 100
    assert (image == table_texture(name, np.random.default_rng(1))).all()
    assert image.shape[:2] == (SIZE, SIZE)
    assert image.flags.c_contiguous


def test_no_unseen_texture_is_one_of_the_usual_ones():
    assert not set(UNSEEN_TABLE_TEXTURES) & set(TABLE_TEXTURES)


@pytest.mark.parametrize("seed", range(4))
def test_tiles_are_bright_squares_between_dark_joints(seed):
    grey = table_texture("tiles", np.random.default_rng(seed))[..., 0]
    assert (grey[:5] < 160).all()
    assert (grey[:, :5] < 160).all()
    assert (grey[5:40, 5:40] > 200).all()
    assert 0.05 < (grey < 160).mean() < 0.35


@pytest.mark.parametrize("seed", range(4))
def test_dots_are_round_and_darker_than_what_is_between_them(seed):
    grey = table_texture("dots", np.random.default_rng(seed))[..., 0]
    assert sorted(np.unique(grey))[1:] == [255]
    assert grey.min() < 0.7 * 255
    # A disc of radius 0.28 of a cell covers a quarter of it.
    assert (grey < 255).mean() == pytest.approx(np.pi * 0.28**2, abs=0.03)
    assert (grey == grey.T).all()


@pytest.mark.parametrize("seed", range(4))
def test_waves_go_on_over_the_edge(seed):
    grey = table_texture("waves", np.random.default_rng(seed))[..., 0].astype(int)
    assert np.ptp(grey) > 100
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        seam = np.abs(np.take(grey, 0, axis) - np.take(grey, -1, axis))
        assert seam.max() <= steps.max() + 1


def test_an_unknown_texture_is_refused():
    with pytest.raises(ValueError, match="unknown table texture 'lava'"):
        table_texture("lava", np.random.default_rng(0))
