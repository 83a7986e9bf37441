# SPDX-License-Identifier: Apache-2.0
"""Meshes of random shapes without a name, of several parts and colours, from which shape as such can be learnt.

Like those of ``sim.shapes``, they are closed surfaces in metres that stand on z = 0.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from clip_seg_ros.sim.shapes import Rgba, Shape, cuboid, lathe
from clip_seg_ros.sim.workshop import extrude
from clip_seg_ros.types import vector3

_COLOURED = 0.4
"""The share of parts that have a colour of their own."""


def _rgba(rng: np.random.Generator) -> Rgba | None:
    if rng.random() > _COLOURED:
        return None
    return (*colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.9), rng.uniform(0.1, 1.0)), 1.0)


def _turned(rng: np.random.Generator) -> Shape:
    """Returns two to five turned sections, one on the other."""
    bounds = np.concatenate([[0.0], np.cumsum(rng.uniform(0.012, 0.055, int(rng.integers(2, 6))))])
    radii = rng.uniform(0.014, 0.060, len(bounds))
    parts = []
    for low, high, first, last in zip(bounds[:-1], bounds[1:], radii[:-1], radii[1:]):
        last = last if rng.random() < 0.5 else first  # a cone or a cylinder
        parts.append(lathe([(0, low), (first, low), (last, high), (0, high)], _rgba(rng)))
    radius = float(radii.max())
    return Shape(tuple(parts), radius, float(bounds[-1]), rolls=True, lying_radius=radius)


def _stacked(rng: np.random.Generator) -> Shape:
    """Returns a block with one to three others at its side or on its top."""
    size = rng.uniform((0.03, 0.03, 0.015), (0.12, 0.12, 0.10))
    parts, reach, height = [cuboid(vector3(size), (0, 0, size[2] / 2), _rgba(rng))], np.hypot(*size[:2]) / 2, size[2]
    for _ in range(int(rng.integers(1, 4))):
        other = rng.uniform((0.012, 0.012, 0.012), (0.08, 0.08, 0.09))
        if rng.random() < 0.5:  # on the top
            middle = np.append(rng.uniform(-0.4, 0.4, 2) * size[:2], size[2] + other[2] / 2)
        else:
            axis, side = int(rng.integers(2)), rng.choice([-1, 1])
            middle = rng.uniform(-0.3, 0.3, 3) * size
            middle[axis], middle[2] = side * (size[axis] + other[axis]) / 2, other[2] / 2
        parts.append(cuboid(vector3(other), vector3(middle), _rgba(rng)))
        reach = max(reach, np.hypot(*(np.abs(middle[:2]) + other[:2] / 2)))
        height = max(height, middle[2] + other[2] / 2)
    return Shape(tuple(parts), float(reach), float(height))


def _lobed(rng: np.random.Generator) -> Shape:
    """Returns a disc with lobes, and on it mostly a smaller one."""
    angles = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    waves = sum(
        rng.uniform(0.0, 0.22) * np.cos(count * angles + rng.uniform(0, 2 * np.pi)) for count in rng.integers(1, 7, 3)
    )
    reach = np.maximum(rng.uniform(0.030, 0.075) * (1 + waves), 0.010)
    outline = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=-1)
    height = rng.uniform(0.012, 0.080)
    parts = [extrude(outline, 0.0, height, _rgba(rng))]
    if rng.random() < 0.7:
        upper = height + rng.uniform(0.010, 0.080)
        parts.append(extrude(outline * rng.uniform(0.25, 0.8), height, upper, _rgba(rng)))
        height = upper
    return Shape(tuple(parts), float(reach.max()), float(height))


ODD_BUILDERS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "turned": _turned,
    "stacked": _stacked,
    "lobed": _lobed,
}


def build_oddments(seed: int, per_kind: int) -> dict[str, tuple[Shape, ...]]:
    """Draws ``per_kind`` shapes of every kind; the same seed gives the same shapes."""
    rng = np.random.default_rng([seed, 9])
    return {kind: tuple(build(rng) for _ in range(per_kind)) for kind, build in ODD_BUILDERS.items()}
