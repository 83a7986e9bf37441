# SPDX-License-Identifier: Apache-2.0
"""Things at a point and in a box, by models of every kind on a rendered table."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.suites.clicks import box_of
from clip_seg_ros.models.spec import SlidingWindow
from clip_seg_ros.pipeline.pointing import guesses_at, likeness, thing_at, thing_in
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from color_segmenter import ColorFeatures, ColorSegmenter, halves
from small_models import small_model


@pytest.fixture(scope="module")
def view() -> RenderedView:
    """A table with one red cup."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(2, required=[("red", "cup")], forbidden=[("blue", None)]), depth=False)


@pytest.fixture(scope="module")
def cup(view) -> np.ndarray:
    return view.mask_of("red", "cup")


@pytest.fixture(scope="module")
def point(cup) -> tuple[int, int]:
    """The pixel of the cup that is nearest to its middle."""
    rows, columns = np.nonzero(cup)
    middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    return int(columns[middle]), int(rows[middle])


@pytest.fixture(scope="module")
def clipseg() -> Predictor:
    return Predictor.from_name("clipseg-pocket", "cpu", engine="eager")


class PlacedColors(ColorSegmenter):
    """Its features of places are the colours themselves."""

    def encode_image(self, pixels):
        return PlacedFeatures(super().encode_image(pixels).rgb)


class PlacedFeatures(ColorFeatures):
    def places(self):
        return self.rgb


def test_a_point_gives_the_thing_there(clipseg, view, cup, point):
    region = thing_at(clipseg, clipseg.encode(view.rgb), view.rgb, point, "it")
    assert mask_iou(region.mask, cup) > 0.8
    assert (region.prompt, region.id) == ("it", 1)
    assert 0.5 < region.score <= 1.0


def test_a_careless_box_gives_the_thing_in_it(clipseg, view, cup):
    left, top, right, bottom = box_of(cup)
    region = thing_in(clipseg, clipseg.encode(view.rgb), view.rgb, (left - 4, top + 3, right + 4, bottom - 2))
    assert mask_iou(region.mask, cup) > 0.8


@pytest.mark.parametrize("name", ["maskclip-pocket", "denseclip-pocket", "cris-pocket", "maskclip-plus-pocket"])
def test_every_kind_of_model_knows_places(name, view, cup, point):
    predictor = Predictor.from_name(name, "cpu", engine="eager")
    encoded = predictor.encode(view.rgb)
    alike = likeness(encoded, point)
    assert alike.shape == cup.shape
    assert alike[cup].mean() > alike[~cup].mean() + 0.3
    assert alike[point[1], point[0]] > 0.7
    assert mask_iou(thing_in(predictor, encoded, view.rgb, box_of(cup)).mask, cup) > 0.7


def test_the_layout_of_published_clipseg_knows_places_and_judges(view, point):
    predictor = Predictor.from_model(small_model("clipseg-vit"), "cpu")
    encoded = predictor.encode(view.rgb)
    rows, columns = encoded.features.grid_size
    tokens = encoded.features.taps[-1][0, 1:]  # without the class token
    np.testing.assert_array_equal(encoded.features.places()[0, :, 1, 2], tokens[columns + 2])
    assert encoded.features.places().shape[2:] == (rows, columns)
    guesses = guesses_at(predictor, encoded, view.rgb, point)
    assert guesses.answer is not None
    assert thing_at(predictor, encoded, view.rgb, point).mask[point[1], point[0]]


def test_the_answer_to_an_example_decides_among_several_masks(clipseg, view, cup, point):
    guesses = guesses_at(clipseg, clipseg.encode(view.rgb), view.rgb, point)
    fits = [mask_iou(guesses.answer > 0.5, cut) for cut in guesses.cuts]
    assert mask_iou(guesses.answer > 0.5, guesses.best) >= max(fits) - 0.05


@pytest.mark.parametrize(
    ("resize", "window"),
    [
        ("short_side", None),
        ("squash", None),
        ("letterbox", None),  # no model has windows as well
        ("short_side", SlidingWindow(48, 32)),
        ("squash", SlidingWindow(48, 32)),
    ],
)
def test_places_lie_where_they_are_in_the_image(resize, window):
    predictor = Predictor.from_model(PlacedColors(resize=resize, window=window), "cpu")
    rgb = halves("red", "green", (60, 100))
    encoded = predictor.encode(rgb)
    left, right = np.s_[5:55, 5:45], np.s_[5:55, 55:95]
    for point, like, unlike in (((20, 50), left, right), ((95, 2), right, left)):
        alike = likeness(encoded, point)
        assert alike[like].min() > 0.9
        assert alike[unlike].max() < 0.0


def test_a_thing_at_the_border_of_the_image_is_found():
    predictor = Predictor.from_model(PlacedColors(), "cpu")
    rgb = halves("red", "green", (60, 100))
    rgb[:10, :20] = (0, 0, 255)
    truth = np.zeros((60, 100), np.bool_)
    truth[:10, :20] = True
    assert mask_iou(thing_at(predictor, predictor.encode(rgb), rgb, (0, 0)).mask, truth) > 0.7


def test_a_model_without_features_of_places_says_so_for_points_and_takes_boxes():
    predictor = Predictor.from_model(ColorSegmenter(), "cpu")
    rgb = halves("red", "red", (60, 100))
    rgb[20:40, 30:60] = (0, 0, 255)
    encoded = predictor.encode(rgb)
    with pytest.raises(ValueError, match="keeps no features of single places: use a CLIPSeg"):
        thing_at(predictor, encoded, rgb, (40, 30))
    assert thing_in(predictor, encoded, rgb, (28, 19, 61, 42)).area_px == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("point", [(-1, 5), (640, 5), (5, 480), (5, -3), (float("nan"), 5)])
def test_a_point_outside_of_the_image_is_refused(clipseg, view, point):
    with pytest.raises(ValueError, match="is outside of the picture of 640x480"):
        thing_at(clipseg, clipseg.encode(view.rgb), view.rgb, point)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((5, 5, 5, 9), "the box is empty: 0x4"),
        ((9, 5, 5, 9), "the box is empty"),
        ((600, 5, 700, 90), "reaches out of the picture of 640x480"),
        ((0, 0, 640, 480), "nothing stands out in the box"),
    ],
)
def test_a_box_that_cannot_hold_a_thing_is_refused(clipseg, view, box, words):
    with pytest.raises(ValueError, match=words):
        thing_in(clipseg, clipseg.encode(view.rgb), view.rgb, box)
