# SPDX-License-Identifier: Apache-2.0
"""Meshes of the tabletop objects: closed surfaces in metres that stand on z = 0 with their axis along z.

Each kind has the features by which people recognise it: a cup has a handle, a bowl is deep and a plate is flat, a
bottle has a neck and a cap, a can has metal ends, a book has pages. Sizes and proportions are drawn from a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

SEGMENTS = 36
Rgba = tuple[float, float, float, float]
METAL_RGBA = (0.72, 0.72, 0.74, 1.0)
PAPER_RGBA = (0.93, 0.91, 0.84, 1.0)
TAPE_RGBA = (0.80, 0.70, 0.52, 1.0)


@dataclass(frozen=True)
class Part:
    """One closed triangle mesh of an object."""

    vertices: np.ndarray
    """The vertices, (V, 3) float metres."""
    faces: np.ndarray
    """The vertex indices of the triangles, (F, 3) int, counter-clockwise seen from outside."""
    rgba: Rgba | None = None
    """A fixed colour, or ``None`` for the colour in the object's name."""


@dataclass(frozen=True)
class Shape:
    """The parts of one object and the space that it takes."""

    parts: tuple[Part, ...]
    footprint_radius: float
    """The radius of a vertical cylinder around the standing object, metres."""
    height: float
    """The height of the standing object, metres."""
    rolls: bool = False
    """Whether the object can also lie on its side, with a horizontal axis."""
    lying_radius: float = 0.0
    """The height of the axis of the lying object above the table, metres."""

    def stretched(self, across: float, up: float) -> Shape:
        """Returns the shape with its width multiplied by ``across`` and its height by ``up``."""
        scale = np.array([across, across, up])
        parts = tuple(replace(part, vertices=part.vertices * scale) for part in self.parts)
        return replace(
            self,
            parts=parts,
            footprint_radius=self.footprint_radius * across,
            height=self.height * up,
            lying_radius=self.lying_radius * across,
        )


def lathe(profile: list[tuple[float, float]], rgba: Rgba | None = None) -> Part:
    """Revolves a profile of (radius, z) points around the z axis.

    The profile runs from the axis at the bottom outwards, up the outer wall, and back to the axis (on the inside of a
    vessel).
    """
    points = np.array(profile, dtype=float)
    angles = np.linspace(0.0, 2.0 * np.pi, SEGMENTS, endpoint=False)
    rings = np.stack(
        [
            points[:, None, 0] * np.cos(angles),
            points[:, None, 0] * np.sin(angles),
            np.repeat(points[:, 1:2], SEGMENTS, axis=1),
        ],
        axis=-1,
    )
    return Part(rings.reshape(-1, 3), grid_faces(len(points), SEGMENTS), rgba)


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Returns two triangles for each cell of a (rows, columns) grid whose columns form a ring, (F, 3) int."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    beside = (column + 1) % columns
    a, b = row * columns + column, row * columns + beside
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def cuboid(size: tuple[float, float, float], centre: tuple[float, float, float], rgba: Rgba | None = None) -> Part:
    """Makes a cuboid with sides of ``size`` (x, y, z) metres around ``centre``."""
    corners = np.array([(x, y, z) for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
    faces = [
        (0, 2, 1),
        (1, 2, 3),
        (4, 5, 6),
        (5, 7, 6),
        (0, 1, 4),
        (1, 5, 4),
        (2, 6, 3),
        (3, 6, 7),
        (0, 4, 2),
        (2, 4, 6),
        (1, 3, 5),
        (3, 7, 5),
    ]
    return Part(corners * np.array(size) + np.array(centre), np.array(faces), rgba)


def _handle(radius: float, z_low: float, z_high: float, reach: float, thickness: float) -> Part:
    """Makes a tube from the wall at ``z_low`` outwards by ``reach`` and back to the wall at ``z_high``."""
    steps, sides = 14, 10
    angle = np.linspace(-np.pi / 2, np.pi / 2, steps)
    half = (z_high - z_low) / 2
    # The ends lie a little inside the wall, so that no gap shows.
    centre = np.stack([radius - thickness + reach * np.cos(angle), (z_low + z_high) / 2 + half * np.sin(angle)], -1)
    normal = np.stack([np.cos(angle), np.sin(angle)], -1)
    around = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    ring = centre[:, None, :] + thickness * np.cos(around)[None, :, None] * normal[:, None, :]
    y = np.repeat(thickness * np.sin(around)[None, :], steps, axis=0)
    tube = np.stack([ring[..., 0], y, ring[..., 1]], -1)
    ends = np.stack([np.array([centre[i, 0], 0.0, centre[i, 1]]) for i in (0, -1)])
    last = (steps - 1) * sides
    near, far = steps * sides, steps * sides + 1
    caps = [(near, (j + 1) % sides, j) for j in range(sides)]
    caps += [(far, last + j, last + (j + 1) % sides) for j in range(sides)]
    return Part(np.concatenate([tube.reshape(-1, 3), ends]), np.concatenate([grid_faces(steps, sides), caps]))


def _cup(rng: np.random.Generator) -> Shape:
    radius, height = rng.uniform(0.036, 0.047), rng.uniform(0.080, 0.110)
    taper, wall = rng.uniform(0.78, 1.0), 0.004
    base = radius * taper
    profile = [
        (0, 0),
        (base * 0.9, 0),
        (base, 0.006),
        (radius, height),
        (radius - wall, height),
        (base - wall, 0.012),
        (0, 0.008),
    ]
    reach = rng.uniform(0.026, 0.036)
    handle = _handle((base + radius) / 2, 0.22 * height, 0.86 * height, reach, rng.uniform(0.0050, 0.0075))
    return Shape((lathe(profile), handle), radius + reach, height)


def _bowl(rng: np.random.Generator) -> Shape:
    radius, height = rng.uniform(0.065, 0.092), rng.uniform(0.048, 0.068)
    wall, foot = 0.005, rng.uniform(0.38, 0.5)
    bend = np.linspace(0.0, np.pi / 2, 8)
    outer = [(radius * (foot + (1 - foot) * np.sin(a)), height * (1 - np.cos(a)) + 0.004) for a in bend]
    inner = [(r - wall, z + 0.003 * (i < 4)) for i, (r, z) in enumerate(outer)][::-1]
    return Shape((lathe([(0, 0), (radius * foot, 0), *outer, *inner, (0, 0.008)]),), radius, height)


def _bottle(rng: np.random.Generator) -> Shape:
    radius, height = rng.uniform(0.028, 0.040), rng.uniform(0.190, 0.270)
    neck, shoulder = radius * rng.uniform(0.32, 0.45), rng.uniform(0.55, 0.68) * height
    slope = [
        (neck + (radius - neck) * (1 + np.cos(t)) / 2, shoulder + (0.17 * height) * t / np.pi)
        for t in np.linspace(0, np.pi, 7)
    ]
    body = lathe([(0, 0), (radius * 0.92, 0), (radius, 0.006), *slope, (neck, height * 0.93), (0, height * 0.93)])
    cap_rgba = [None, (0.12, 0.12, 0.13, 1.0), (0.9, 0.9, 0.9, 1.0)][rng.integers(3)]
    top, bottom = height, height * 0.905
    cap = lathe([(0, bottom), (neck * 1.25, bottom), (neck * 1.25, top), (0, top)], cap_rgba)
    return Shape((body, cap), radius, height, rolls=True, lying_radius=radius)


def _box(rng: np.random.Generator) -> Shape:
    size = tuple(rng.uniform(0.075, 0.135, size=3))
    parts = [cuboid(size, (0, 0, size[2] / 2))]
    if rng.random() < 0.5:  # packing tape along the top and two sides
        parts.append(cuboid((size[0] * 0.22, size[1] + 0.001, size[2] + 0.001), (0, 0, size[2] / 2), TAPE_RGBA))
    return Shape(tuple(parts), float(np.hypot(size[0], size[1])) / 2, size[2])


def _ball(rng: np.random.Generator) -> Shape:
    radius = rng.uniform(0.032, 0.058)
    arc = np.linspace(-np.pi / 2, np.pi / 2, 19)
    return Shape((lathe([(radius * np.cos(a), radius * (1 + np.sin(a))) for a in arc]),), radius, 2 * radius)


def _can(rng: np.random.Generator) -> Shape:
    radius, height = rng.uniform(0.031, 0.043), rng.uniform(0.095, 0.135)
    rim = 0.007
    side = lathe([(0, rim), (radius, rim), (radius, height - rim), (0, height - rim)])
    foot = lathe([(0, 0), (radius * 0.86, 0), (radius, rim), (0, rim)], METAL_RGBA)
    lid = lathe(
        [
            (0, height - rim),
            (radius, height - rim),
            (radius * 0.88, height),
            (radius * 0.80, height),
            (radius * 0.78, height - 0.004),
            (0, height - 0.004),
        ],
        METAL_RGBA,
    )
    return Shape((side, foot, lid), radius, height, rolls=True, lying_radius=radius)


def _plate(rng: np.random.Generator) -> Shape:
    radius, height = rng.uniform(0.090, 0.125), rng.uniform(0.012, 0.020)
    well = radius * rng.uniform(0.58, 0.70)
    profile = [
        (0, 0),
        (well, 0),
        (radius, height - 0.004),
        (radius, height),
        (well, 0.006),
        (well * 0.95, 0.005),
        (0, 0.005),
    ]
    return Shape((lathe(profile),), radius, height)


def _book(rng: np.random.Generator) -> Shape:
    width, depth, height = rng.uniform(0.11, 0.16), rng.uniform(0.16, 0.22), rng.uniform(0.016, 0.045)
    cover = 0.003
    parts = (
        cuboid((width, depth, cover), (0, 0, cover / 2)),
        cuboid((width, depth, cover), (0, 0, height - cover / 2)),
        cuboid((cover, depth, height), (-width / 2 + cover / 2, 0, height / 2)),  # the spine
        cuboid((width - 0.008, depth - 0.010, height - 2 * cover), (-0.001, 0, height / 2), PAPER_RGBA),
    )
    return Shape(parts, float(np.hypot(width, depth)) / 2, height)


SHAPE_BUILDERS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "cup": _cup,
    "bowl": _bowl,
    "bottle": _bottle,
    "box": _box,
    "ball": _ball,
    "can": _can,
    "plate": _plate,
    "book": _book,
}


def build_shapes(seed: int, per_kind: int) -> dict[str, tuple[Shape, ...]]:
    """Draws ``per_kind`` shapes of every kind; the same seed gives the same shapes."""
    rng = np.random.default_rng([seed, 1])
    return {kind: tuple(build(rng) for _ in range(per_kind)) for kind, build in SHAPE_BUILDERS.items()}
