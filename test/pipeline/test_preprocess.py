# SPDX-License-Identifier: Apache-2.0
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.pipeline.preprocess import Geometry, Preprocessor, send
from nearness import assert_near

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SHORT_SIDE = InputSpec(size=192, resize="short_side", multiple=32, mean=MEAN, std=STD)
SQUASH = InputSpec(size=352, resize="squash", multiple=16, mean=MEAN, std=STD)
SMALL = InputSpec(size=8, resize="short_side", multiple=4, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("spec", "source_size", "model_size"),
    [
        (SHORT_SIDE, (480, 640), (192, 256)),
        (SHORT_SIDE, (640, 480), (256, 192)),
        (SHORT_SIDE, (720, 1280), (192, 352)),
        (SHORT_SIDE, (1, 1), (192, 192)),
        (SHORT_SIDE, (10, 80), (192, 1536)),
        (SQUASH, (480, 640), (352, 352)),
        (SQUASH, (1, 10000), (352, 352)),
        (InputSpec(20, "short_side", 32, MEAN, STD), (480, 640), (32, 32)),
        (InputSpec(10, "short_side", 32, MEAN, STD), (480, 640), (32, 32)),
    ],
)
def test_the_size_follows_the_spec(spec, source_size, model_size):
    assert Geometry.fit(source_size, spec) == Geometry(source_size, model_size)


@pytest.mark.parametrize("source_size", [(1, 9), (10000, 1), (90, 721)])
def test_a_narrow_image_is_refused_where_the_aspect_ratio_is_kept(source_size):
    with pytest.raises(ValueError, match=f"a {source_size[1]}x{source_size[0]} image is too narrow"):
        Geometry.fit(source_size, SHORT_SIDE)


def linear_weights(source, target, antialias=True):
    """(target, source) weights of linear interpolation with or without anti-aliasing, by its definition."""
    scale = source / target
    support = max(scale, 1.0) if antialias else 1.0
    weights = np.zeros((target, source))
    for i in range(target):
        center = (i + 0.5) * scale
        if not antialias:
            center = min(max(center, 0.5), source - 0.5)
        for j in range(source):
            distance = abs(j + 0.5 - center) / support
            weights[i, j] = max(0.0, 1.0 - distance)
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(40, 57), (5, 7), (8, 8), (1, 1), (31, 6)])
def test_pixels_are_the_resized_and_normalised_image(size, antialias):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    prepared = Preprocessor(replace(SMALL, antialias=antialias), torch.device("cpu"))(rgb)
    height, width = prepared.geometry.model_size
    rows, columns = (linear_weights(*sides, antialias) for sides in zip(size, (height, width)))
    resized = np.einsum("ih,jw,hwc->cij", rows, columns, rgb.astype(np.float64))
    assert prepared.pixels.shape == (1, 3, height, width)
    assert prepared.pixels.dtype == torch.float32
    grey_levels = (prepared.pixels[0].numpy() * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))) * 255
    assert np.abs(grey_levels - resized).max() < 1.6  # torch rounds to grey levels after each axis


def test_read_only_and_strided_images_are_taken_and_left_alone():
    rgb = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    preprocess = Preprocessor(SMALL, torch.device("cpu"))
    expected = preprocess(rgb).pixels
    read_only = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    reversed_channels = np.ascontiguousarray(rgb[..., ::-1])[..., ::-1]
    before = rgb.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_near(preprocess(read_only).pixels, expected)
        assert_near(preprocess(reversed_channels).pixels, expected)
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        [[[0, 0, 0]]],
        None,
    ],
    ids=["grey", "rgba", "float", "list", "none"],
)
def test_what_is_no_rgb_image_is_refused(rgb):
    with pytest.raises(ValueError, match=r"rgb must be a \(H, W, 3\) uint8 array, got "):
        Preprocessor(SQUASH, torch.device("cpu"))(rgb)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_image_is_refused(size):
    with pytest.raises(ValueError, match="at least one pixel"):
        Preprocessor(SQUASH, torch.device("cpu"))(np.zeros((*size, 3), np.uint8))


def bilinear_loop(source, height, width):
    """Edge-to-edge bilinear interpolation, a pixel at a time."""
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = np.clip((i + 0.5) * source.shape[0] / height - 0.5, 0, source.shape[0] - 1)
            x = np.clip((j + 0.5) * source.shape[1] / width - 0.5, 0, source.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, source.shape[0] - 1), min(left + 1, source.shape[1] - 1)
            upper = source[top, left] * (left + 1 - x) + source[top, right] * (x - left)
            lower = source[bottom, left] * (left + 1 - x) + source[bottom, right] * (x - left)
            result[i, j] = upper * (top + 1 - y) + lower * (y - top)
    return result


@pytest.mark.parametrize("source_size", [(13, 29), (1, 1), (4, 3), (1, 20)])
def test_restore_is_bilinear_at_the_size_of_the_image(source_size):
    maps = np.random.default_rng(0).random((3, 4, 6), dtype=np.float32)
    restored = Geometry(source_size, (16, 24)).restore(maps)
    assert restored.shape == (3, *source_size)
    assert restored.dtype == np.float32
    for values, result in zip(maps, restored):
        assert_near(result, bilinear_loop(values, *source_size), relative=2e-5)


def test_restore_stays_within_the_range():
    for size in ((480, 640), (471, 637)):
        restored = Geometry(size, (192, 256)).restore(np.ones((1, 48, 64), np.float32))
        assert (restored == 1.0).all()


@pytest.mark.parametrize("spec", [SHORT_SIDE, SQUASH])
def test_a_point_comes_back_to_where_it_was(spec):
    """Forth and back, a bright spot keeps its centre: half a pixel of a wrong alignment would show."""
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[100:140, 400:460] = 255
    prepared = Preprocessor(spec, torch.device("cpu"))(rgb)
    bright = prepared.pixels[:, 0] - prepared.pixels.min()
    restored = prepared.geometry.restore(bright.numpy())[0]
    rows, columns = np.mgrid[:480, :640]
    assert abs((restored * rows).sum() / restored.sum() - 119.5) < 0.1
    assert abs((restored * columns).sum() / restored.sum() - 429.5) < 0.1


def test_other_devices_get_the_bytes_of_the_image():
    # The device "meta" has no memory, and so shows which tensors are made on it.
    rgb = np.zeros((480, 640, 3), np.uint8)[::-1]
    prepared = Preprocessor(SMALL, torch.device("meta"))(rgb)
    assert prepared.pixels.device.type == "meta"
    assert prepared.pixels.shape[2:] == prepared.geometry.model_size
    assert send(rgb, torch.device("meta")).dtype == torch.uint8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_image_may_change_once_it_was_sent():
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    rgb = image[::-1].copy()
    sent = send(rgb[::-1], torch.device("cuda"))
    rgb[:] = 0
    assert np.array_equal(sent.cpu().numpy(), image)
