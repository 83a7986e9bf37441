# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.pipeline.stream.remembered import LOOKS_BINS, VIEW_PX, BestView, RememberedObject, best_view
from clip_seg_ros.types import ObjectRegion

CUP = RememberedObject(
    id=1,
    phrase="red cup",
    position_m=(1.0, 2.0, 0.0),
    box_m=None,
    first_ns=0,
    last_ns=10**9,
    sightings=3,
    whole=3,
    missed=0,
    score=0.9,
    surface_m=np.empty((0, 3), np.float32),
    looks=np.zeros(LOOKS_BINS, np.float32),
    view=BestView(b"", b"", 0.0),
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.5, "just now"),
        (14, "14 s ago"),
        (119, "119 s ago"),
        (600, "10 min ago"),
        (3 * 3600, "3 h ago"),
        (3 * 86400, "3 days ago"),
        (-5, "just now"),
    ],
)
def test_a_sentence_says_when_it_was_seen(seconds, said):
    sentence = CUP.sentence(CUP.last_ns + int(seconds * 1e9))
    assert sentence == f"red cup: at (1.00, 2.00, 0.00) m, last seen {said}"


@pytest.mark.parametrize(("viewer", "said"), [((1.0, 0.0, 0.0), "2.0 m away"), ((1.0, 1.6, 0.0), "40 cm away")])
def test_a_sentence_says_how_far_it_is(viewer, said):
    assert CUP.sentence(15 * 10**9, viewer) == f"red cup: {said}, last seen 14 s ago"


@pytest.mark.parametrize(
    ("missed", "whole", "doubtful"), [(0, 0, False), (1, 1, True), (1, 2, True), (1, 3, False), (1, 0, True)]
)
def test_one_miss_outweighs_two_whole_sightings(missed, whole, doubtful):
    assert replace(CUP, missed=missed, whole=whole).is_doubtful == doubtful


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 0},
        {"phrase": ""},
        {"sightings": 0, "whole": 0},
        {"whole": 4},
        {"score": float("nan")},
        {"surface_m": np.zeros((3, 2), np.float32)},
        {"looks": np.zeros(3, np.float32)},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="object"):
        replace(CUP, **wrong)


def test_a_view_is_small_and_shows_the_object():
    mask = np.zeros((600, 800), bool)
    mask[100:500, 200:700] = True
    rgb = np.where(mask[..., None], np.uint8([200, 30, 30]), np.uint8(120))
    view = best_view(ObjectRegion.of_mask("cup", 1, 0.5, mask), rgb)
    assert max(view.rgb().shape) == VIEW_PX
    assert view.mask().mean() == pytest.approx(400 * 500 / (550 * 600), abs=0.1)
    assert view.worth == pytest.approx(0.5 * 400 * 500 / (600 * 800))


def test_a_view_at_the_border_of_the_image_is_cut_there():
    mask = np.zeros((60, 80), bool)
    mask[:20, :20] = True
    view = best_view(ObjectRegion.of_mask("cup", 1, 0.5, mask), np.zeros((60, 80, 3), np.uint8))
    assert view.rgb().shape[:2] == view.mask().shape == (23, 23)
    assert view.mask()[:20, :20].all()


def test_bytes_that_are_no_picture_are_refused():
    for content in (b"", b"no picture"):
        with pytest.raises(ValueError, match="no picture"):
            BestView(content, content, 0.0).rgb()
