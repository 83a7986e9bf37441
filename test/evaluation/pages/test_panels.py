# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from clip_seg_ros.evaluation.pages import panels

BLACK = (0, 0, 0)


def half_and_half() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey 200 x 100 picture; the left half is true, the upper half was answered."""
    rgb = np.full((100, 200, 3), 120, np.uint8)
    true = np.zeros((100, 200), bool)
    true[:, :100] = True
    probabilities = np.zeros((100, 200), np.float32)
    probabilities[:50] = 0.9
    return rgb, true, probabilities


def nearest_color(pixel: np.ndarray, colors: tuple) -> int:
    return int(np.argmin([np.abs(pixel.astype(int) - color).sum() for color in np.array(colors, int)]))


def test_errors_are_right_missed_and_false_in_their_places() -> None:
    pictures = panels.phrase_panels(*half_and_half(), "cup", 0.5)
    errors = pictures["errors"]
    assert {picture.shape for picture in pictures.values()} == {(200, 400, 3)}
    colors = (panels.HIT, panels.FALSE, panels.MISSED)
    assert nearest_color(errors[20, 20], colors) == 0
    assert nearest_color(errors[20, 380], colors) == 1
    assert nearest_color(errors[180, 20], colors) == 2
    assert len(set(errors[180, 380].tolist())) == 1, "what is rightly left out stays grey"


def test_ignored_pixels_are_black_where_errors_are_shown() -> None:
    rgb, true, probabilities = half_and_half()
    ignored = np.zeros_like(true)
    ignored[:, 90:110] = True
    plain = panels.phrase_panels(rgb, true, probabilities, "cup", 0.5)
    pictures = panels.phrase_panels(rgb, true, probabilities, "cup", 0.5, ignored)
    assert not pictures["errors"][:, 182:218].any()
    assert (pictures["errors"][:, :178] == plain["errors"][:, :178]).all()
    assert all((pictures[name] == plain[name]).all() for name in ("truth", "answer", "probability"))


def test_the_true_outline_and_the_answer_are_drawn() -> None:
    rgb, true, probabilities = half_and_half()
    pictures = panels.phrase_panels(rgb, true, probabilities, "cup", 0.5)
    assert (pictures["truth"][100, 198:201].max(axis=0) > 230).all()
    assert (pictures["answer"] != pictures["truth"]).any()
    heat = pictures["probability"].astype(int).sum(axis=2)
    assert heat[20, 100] > 2 * heat[180, 300]
    assert (rgb == 120).all(), "the sample's own picture is left alone"


def test_a_picture_without_truth_or_answer_is_drawn_too() -> None:
    rgb, true, probabilities = half_and_half()
    pictures = panels.phrase_panels(rgb, np.zeros_like(true), np.zeros_like(probabilities), "cup", 0.5)
    assert (pictures["truth"] == 120).all()
    # The caption says so.
    assert (pictures["answer"][-10:] != 120).any()


def test_labels_have_their_classes_colors_and_wrong_ones_are_marked() -> None:
    rgb = np.full((300, 600, 3), 120, np.uint8)
    true = np.zeros((300, 600), np.uint8)
    true[:, 300:], true[:50] = 1, 255
    predicted = np.ones_like(true)
    colors = panels.class_colors(("wall", "cup"))
    pictures = panels.label_panels(rgb, true, predicted, colors)
    assert {picture.shape for picture in pictures.values()} == {(200, 400, 3)}
    assert tuple(pictures["truth"][10, 10]) == BLACK == tuple(pictures["errors"][10, 10])
    assert tuple(pictures["truth"][100, 10]) == tuple(colors[0])
    assert (pictures["answer"] == colors[1]).all()
    assert nearest_color(pictures["errors"][100, 10], (panels.FALSE, (120, 120, 120))) == 0
    assert len(set(pictures["errors"][100, 390].tolist())) == 1


def test_classes_have_different_colors_and_the_background_a_quiet_one() -> None:
    for count in (3, 20, 150):
        colors = panels.class_colors(tuple(f"class {index}" for index in range(count)))
        assert len({tuple(color) for color in colors[:count].tolist()}) == count
        assert (colors[count:] == 0).all()
    quiet = panels.class_colors(("background", "cup"))[0].astype(int)
    assert np.ptp(quiet) < 20
