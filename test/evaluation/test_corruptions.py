# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from clip_seg_ros.data.samples import ReferringSample, SemanticSample
from clip_seg_ros.evaluation.corruptions import CORRUPTIONS, LEVELS, CorruptedImages, Corruption, parse_corruptions


def flat(value=128, side=160):
    return np.full((side, side, 3), value, np.uint8)


def picture():
    small = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    return cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_seed_gives_one_result_and_the_image_stays(name, level):
    rgb = picture()
    before = rgb.copy()
    found = Corruption(name, level)(rgb, seed=3)
    assert found.shape == rgb.shape
    assert found.dtype == np.uint8
    assert np.array_equal(found, Corruption(name, level)(rgb, seed=3))
    assert np.array_equal(rgb, before)
    assert not np.array_equal(found, rgb)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "spatter"])
def test_a_higher_level_changes_more(name):
    rgb = picture().astype(int)
    changes = [np.abs(Corruption(name, level)(picture(), seed=1) - rgb).mean() for level in LEVELS]
    assert changes == sorted(changes)
    assert changes[-1] > 1.3 * changes[0]


@pytest.mark.parametrize(("level", "deviation"), [(1, 0.08), (3, 0.18)])
def test_gaussian_noise_has_its_deviation(level, deviation):
    noise = Corruption("gaussian_noise", level)(flat(), seed=0) / 255 - 128 / 255
    assert noise.std() == pytest.approx(deviation, rel=0.02)
    assert abs(noise.mean()) < 0.003


def test_speckle_noise_goes_with_the_brightness():
    deviations = [(Corruption("speckle_noise", 2)(flat(value), seed=0) / 255).std() for value in (40, 120)]
    assert deviations[0] == pytest.approx(0.2 * 40 / 255, rel=0.03)
    assert deviations[1] == pytest.approx(0.2 * 120 / 255, rel=0.03)
    assert (Corruption("speckle_noise", 5)(flat(0), seed=0) == 0).all()


def test_shot_noise_counts_photons():
    # A mean of n photons has the deviation sqrt(n).
    found = Corruption("shot_noise", 1)(flat(102), seed=0) / 255
    assert found.mean() == pytest.approx(0.4, abs=0.003)
    assert found.std() == pytest.approx(np.sqrt(0.4 * 60) / 60, rel=0.03)


def test_impulse_noise_replaces_its_share():
    found = Corruption("impulse_noise", 5)(flat(), seed=0)
    assert np.mean(found != 128) == pytest.approx(0.27, abs=0.01)
    assert np.mean(found == 255) == pytest.approx(0.135, abs=0.01)
    assert set(np.unique(found).tolist()) == {0, 128, 255}


def test_gaussian_blur_is_a_convolution_with_its_deviation():
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    reach = np.arange(-30, 31)
    bell = np.exp(-(reach**2) / 2)
    bell /= bell.sum()
    found = Corruption("gaussian_blur", 1)(point, seed=0)
    assert np.abs(found[..., 0] - 255 * np.outer(bell, bell)).max() <= 1
    assert (Corruption("gaussian_blur", 5)(flat(), seed=0) == 128).all()


@pytest.mark.parametrize(("level", "radius"), [(1, 3), (3, 6), (5, 10)])
def test_defocus_spreads_a_point_over_a_disk(level, radius):
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    found = Corruption("defocus_blur", level)(point, seed=0)[..., 0].astype(int)
    inside = np.hypot(*np.mgrid[-30:31, -30:31]) <= radius
    expected = 255 / inside.sum()
    far = np.hypot(*np.mgrid[-30:31, -30:31])
    assert np.abs(found[far < radius - 2] - expected).max() <= 1
    assert (found[far > radius + 2.5] == 0).all()
    # The published disk is cut off at the border of its kernel and does not quite sum to 1.
    assert np.abs(Corruption("defocus_blur", level)(flat(), seed=0).astype(int) - 128).max() <= 1


def test_jpeg_is_a_file_of_its_quality():
    rgb = picture()
    content = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 18])[1]
    assert np.array_equal(Corruption("jpeg_compression", 2)(rgb, seed=0), cv2.imdecode(content, 1)[..., ::-1])


def test_water_brightens_and_mud_covers():
    wet = Corruption("spatter", 1)(flat(60), seed=0).astype(int)
    assert (wet >= 60).all()
    assert 0.01 < np.mean(wet > 61) < 0.5
    # Pale turquoise has less red than green and blue, in the same proportion everywhere.
    drops = wet[wet[..., 1] > 90]
    assert len(drops)
    assert np.allclose((drops[:, 0] - 60) / (drops[:, 1] - 60), 175 / 238, atol=0.05)
    muddy = Corruption("spatter", 5)(flat(200), seed=0)
    clean = (muddy == 200).all(axis=2)
    assert 0.5 < clean.mean() < 0.95
    # Where there is mud, it covers at least four fifths.
    assert (np.abs(muddy[~clean].astype(int) - (63, 42, 20)) <= 0.2 * 180 + 1).all()


def test_a_data_set_keeps_its_truth_and_all_else():
    class Labelled:
        class_names = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return SemanticSample(flat(), np.full((160, 160), index, np.uint8), f"image {index}")

    data = CorruptedImages(Labelled(), Corruption("gaussian_noise", 1))
    assert (len(data), data.class_names) == (2, ("a", "b"))
    assert data[1].name == "image 1"
    assert (data[1].labels == 1).all()
    assert np.array_equal(data[1].rgb, Corruption("gaussian_noise", 1)(flat(), seed=1))
    assert not np.array_equal(data[0].rgb, data[1].rgb)
    assert not hasattr(data, "phrases")
    phrases = CorruptedImages(
        [ReferringSample(flat(), "cup", np.ones((160, 160), bool), "x")], Corruption("spatter", 5)
    )
    assert phrases[0].phrase == "cup"


def test_corruptions_are_written_by_name_and_level():
    assert parse_corruptions(["spatter:2", "spatter:2"]) == (Corruption("spatter", 2),)
    assert parse_corruptions(["shot_noise"]) == tuple(Corruption("shot_noise", level) for level in LEVELS)
    assert len(parse_corruptions(["all", "spatter:2"])) == 8 * 5
    assert [one.name for one in parse_corruptions(["all:1"])] == list(CORRUPTIONS)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("gausian_noise:1", "did you mean gaussian_noise"),
        ("spatter:6", r"the level of spatter must lie in 1\.\.5, got 6"),
        ("spatter:high", 'is written NAME:LEVEL, such as gaussian_noise:3, and not "spatter:high"'),
    ],
)
def test_corruptions_that_there_are_not(text, fault):
    with pytest.raises(ValueError, match=fault):
        parse_corruptions([text])
