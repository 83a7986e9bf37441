# SPDX-License-Identifier: Apache-2.0
"""Meshes of five objects of a workshop, which the embedded weights never saw: an example of objects to train on.

Like those of ``sim.shapes``, they are closed surfaces in metres that stand on z = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clip_seg_ros.sim.shapes import METAL_RGBA, Part, Rgba, Shape, cuboid, grid_faces, lathe


def extrude(outline: np.ndarray, low: float, high: float, rgba: Rgba | None = None) -> Part:
    """Extrudes a flat outline along z.

    Args:
        outline: Points (N, 2) in metres, counter-clockwise; every point must be visible from the origin.
        low, high: Z of the bottom and of the top, metres.
        rgba: Fixed colour, or ``None`` for the colour in the object's name.
    """
    rings = [np.zeros_like(outline), outline, outline, np.zeros_like(outline)]
    levels = np.repeat([low, low, high, high], len(outline))
    return Part(np.column_stack([np.concatenate(rings), levels]), grid_faces(4, len(outline)), rgba)


def _spool(rng: np.random.Generator) -> Shape:
    flange, height = rng.uniform(0.040, 0.056), rng.uniform(0.070, 0.100)
    core, thickness = flange * rng.uniform(0.38, 0.52), rng.uniform(0.007, 0.011)
    top = height - thickness
    profile = [
        (0, 0),
        (flange, 0),
        (flange, thickness),
        (core, thickness),
        (core, top),
        (flange, top),
        (flange, height),
        (0, height),
    ]
    return Shape((lathe(profile),), flange, height, rolls=True, lying_radius=flange)


def _funnel(rng: np.random.Generator) -> Shape:
    rim, height = rng.uniform(0.060, 0.082), rng.uniform(0.110, 0.145)
    spout, neck, wall = rng.uniform(0.011, 0.015), rng.uniform(0.38, 0.48) * height, 0.003
    profile = [
        (0, 0),
        (spout * 0.8, 0),
        (spout, neck),
        (rim, height - 0.012),
        (rim, height),
        (rim - wall, height),
        (rim - wall, height - 0.012),
        (spout - wall, neck),
        (0, neck),
    ]
    return Shape((lathe(profile),), rim, height)


def _sprocket(rng: np.random.Generator) -> Shape:
    radius, thickness = rng.uniform(0.060, 0.085), rng.uniform(0.014, 0.022)
    teeth, depth = int(rng.integers(9, 14)), rng.uniform(0.20, 0.28)
    angles = np.linspace(0.0, 2.0 * np.pi, 6 * teeth, endpoint=False)
    # Of the six points of a tooth, two are at the tip, two at the foot, and two on the flanks between them.
    reach = radius * (1 - depth * np.tile([0.0, 0.0, 0.5, 1.0, 1.0, 0.5], teeth))
    disc = extrude(np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=-1), 0.0, thickness)
    height, hub = thickness * rng.uniform(1.9, 2.4), radius * rng.uniform(0.24, 0.32)
    return Shape((disc, lathe([(0, 0.0), (hub, 0.0), (hub, height), (0, height)], METAL_RGBA)), radius, height)


def _bracket(rng: np.random.Generator) -> Shape:
    width, length, height = rng.uniform(0.050, 0.070), rng.uniform(0.085, 0.120), rng.uniform(0.085, 0.125)
    thickness = rng.uniform(0.009, 0.013)
    foot = cuboid((length, width, thickness), (0, 0, thickness / 2))
    wall = cuboid((thickness, width, height), (-length / 2 + thickness / 2, 0, height / 2))
    return Shape((foot, wall), float(np.hypot(length, width)) / 2, height)


def _pylon(rng: np.random.Generator) -> Shape:
    height, radius = rng.uniform(0.120, 0.170), rng.uniform(0.034, 0.046)
    base, side = 0.008, 2 * radius * rng.uniform(1.10, 1.25)
    tip = radius * rng.uniform(0.14, 0.20)
    cone = lathe([(0, base), (radius, base), (tip, height), (0, height)])
    return Shape((cuboid((side, side, base), (0, 0, base / 2)), cone), side * float(np.sqrt(0.5)), height)


WORKSHOP_BUILDERS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "spool": _spool,
    "funnel": _funnel,
    "sprocket": _sprocket,
    "bracket": _bracket,
    "pylon": _pylon,
}


def build_workshop(seed: int, per_kind: int) -> dict[str, tuple[Shape, ...]]:
    """Draws ``per_kind`` shapes of every kind; the same seed gives the same shapes."""
    rng = np.random.default_rng([seed, 8])
    return {kind: tuple(build(rng) for _ in range(per_kind)) for kind, build in WORKSHOP_BUILDERS.items()}
