# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest

from clip_seg_ros.sim.oddments import ODD_BUILDERS, build_oddments
from clip_seg_ros.sim.shapes import SHAPE_BUILDERS, build_shapes
from clip_seg_ros.sim.workshop import WORKSHOP_BUILDERS, build_workshop


def build_all(seed, per_kind):
    return build_shapes(seed, per_kind) | build_workshop(seed, per_kind) | build_oddments(seed, per_kind)


def parts():
    for kind, shapes in build_all(3, 3).items():
        for index, shape in enumerate(shapes):
            for number, part in enumerate(shape.parts):
                yield pytest.param(part, id=f"{kind}{index}.{number}")


def volume_of(part):
    """Cubic metres inside a part's surface, which must be closed, its faces counter-clockwise seen from outside."""
    # Points at one place (the poles of a lathed surface) are one vertex.
    places, joined = np.unique(part.vertices.round(7), axis=0, return_inverse=True)
    faces = joined.reshape(-1)[part.faces]
    faces = [face for face in faces.tolist() if len(set(face)) == 3]
    edges = Counter(edge for a, b, c in faces for edge in ((a, b), (b, c), (c, a)))
    for (a, b), count in edges.items():
        assert edges[(b, a)] == count, "an edge without its counterpart is a hole or a flipped face"
    return sum(np.dot(places[a], np.cross(places[b], places[c])) for a, b, c in faces) / 6


@pytest.mark.parametrize("part", list(parts()))
def test_a_part_is_a_closed_surface_seen_from_outside(part):
    assert volume_of(part) > 0


@pytest.mark.parametrize("kind", [*SHAPE_BUILDERS, *WORKSHOP_BUILDERS, *ODD_BUILDERS])
def test_a_shape_stands_on_the_table_within_its_footprint(kind):
    for shape in build_all(11, 3)[kind]:
        points = np.concatenate([part.vertices for part in shape.parts])
        assert points[:, 2].min() == pytest.approx(0.0, abs=1e-3)
        assert points[:, 2].max() == pytest.approx(shape.height, abs=1e-2)
        assert np.hypot(points[:, 0], points[:, 1]).max() <= shape.footprint_radius + 0.011
        assert 0.01 < shape.height < 0.3


def test_the_same_seed_gives_the_same_shapes_and_another_does_not():
    first, again, other = build_all(5, 2), build_all(5, 2), build_all(6, 2)
    assert all(a.height == b.height for kind in first for a, b in zip(first[kind], again[kind], strict=True))
    assert first["cup"][0].height != other["cup"][0].height
    assert first["spool"][0].height != other["spool"][0].height
    assert first["turned"][0].height != other["turned"][0].height


@pytest.mark.parametrize("kind", SHAPE_BUILDERS)
def test_a_stretched_shape_is_as_much_wider_and_taller_as_was_asked(kind):
    plain = build_shapes(9, 1)[kind][0]
    kept = [part.vertices.copy() for part in plain.parts]
    shape = plain.stretched(1.2, 0.8)
    assert shape.footprint_radius == pytest.approx(1.2 * plain.footprint_radius)
    assert shape.height == pytest.approx(0.8 * plain.height)
    assert shape.lying_radius == pytest.approx(1.2 * plain.lying_radius)
    assert shape.rolls == plain.rolls
    for part, before, vertices in zip(shape.parts, plain.parts, kept, strict=True):
        assert (before.vertices == vertices).all(), "the shape itself stays as it was"
        np.testing.assert_allclose(part.vertices, vertices * [1.2, 1.2, 0.8])
        assert part.rgba == before.rgba
        assert (part.faces == before.faces).all()
        assert volume_of(part) == pytest.approx(1.2 * 1.2 * 0.8 * volume_of(before), rel=1e-4)
    points = np.concatenate([part.vertices for part in shape.parts])
    assert points[:, 2].min() == pytest.approx(0.0, abs=1e-3), "it still stands on the table"
    assert points[:, 2].max() == pytest.approx(shape.height, abs=1e-2)
    assert np.hypot(points[:, 0], points[:, 1]).max() <= shape.footprint_radius + 0.013
