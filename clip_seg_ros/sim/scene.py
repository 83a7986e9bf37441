"""Draws tabletop scenes from a seed: what stands where, in which light, seen from which camera.

A scene is a value; ``renderer.SceneRenderer`` turns it into images. World frame: z up, the table top at z = 0, metres.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clip_seg_ros.sim.shapes import SHAPE_BUILDERS, Shape, build_shapes

KINDS: tuple[str, ...] = tuple(SHAPE_BUILDERS)

# Hue in degrees, saturation and value in 0..1, each a range to draw from.
COLOR_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-6, 6), (0.78, 0.96), (0.60, 0.85)),
    "orange": ((22, 31), (0.82, 1.00), (0.85, 1.00)),
    "yellow": ((47, 57), (0.75, 0.95), (0.82, 0.97)),
    "green": ((95, 148), (0.50, 0.85), (0.35, 0.65)),
    "blue": ((207, 230), (0.65, 0.92), (0.50, 0.85)),
    "purple": ((268, 292), (0.45, 0.75), (0.40, 0.65)),
    "white": ((0, 360), (0.00, 0.05), (0.90, 1.00)),
    "black": ((0, 360), (0.00, 0.20), (0.03, 0.11)),
}
COLORS: tuple[str, ...] = tuple(COLOR_RANGES)

# Pairs that training scenes never hold, so that names never seen together can be measured: each colour and each kind once.
HELD_OUT_PAIRS: tuple[tuple[str, str], ...] = (
    ("red", "bowl"),
    ("orange", "can"),
    ("yellow", "bottle"),
    ("green", "cup"),
    ("blue", "book"),
    ("purple", "ball"),
    ("white", "box"),
    ("black", "plate"),
)

SHAPES_PER_KIND = 3
SCENES_PER_SHAPE_SET = 25
"""Compiling a shape set costs more than rendering a scene, so that neighbouring seeds share one."""
TABLE_TEXTURES = ("plain", "wood", "checks", "stripes", "speckle", "cloth")
TABLE_REACH = 0.30
"""Objects stand within this many metres of the table's middle."""


@dataclass(frozen=True)
class SceneObject:
    """One object on the table."""

    kind: str
    color: str
    slot: int
    """Which of the shape set's ``SHAPES_PER_KIND`` shapes of this kind; no two objects of a scene share one."""
    rgba: tuple[float, float, float, float]
    position: tuple[float, float, float]
    """Origin of the shape in the world, metres."""
    yaw: float
    """Turn about the vertical, radians."""
    lying: bool

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


@dataclass(frozen=True)
class CameraPose:
    """A camera at ``eye`` looking at ``target`` (world, metres), upright, with a vertical field of view in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy_deg: float


@dataclass(frozen=True)
class Light:
    """A directional lamp; ``direction`` is where its rays go."""

    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that a picture of the table depends on."""

    seed: int
    shape_seed: int
    objects: tuple[SceneObject, ...]
    table_texture: str
    table_rgba: tuple[float, float, float, float]
    floor_rgba: tuple[float, float, float, float]
    lights: tuple[Light, ...]
    ambient: float
    camera: CameraPose


@lru_cache(maxsize=8)
def shape_set(shape_seed: int) -> dict[str, tuple[Shape, ...]]:
    """The shapes that scenes with this ``shape_seed`` choose from."""
    return build_shapes(shape_seed, SHAPES_PER_KIND)


def sample_scene(
    seed: int,
    *,
    required: Sequence[tuple[str | None, str | None]] = (),
    forbidden: Sequence[tuple[str | None, str | None]] = (),
    objects: tuple[int, int] = (4, 9),
) -> Scene:
    """Draws the scene of ``seed``.

    Args:
        seed: any integer >= 0; with the same other arguments it always gives the same scene.
        required: (colour, kind) pairs that must be there with nothing else in front of them; ``None`` stands for any.
        forbidden: (colour, kind) pairs that must not be there; ``None`` stands for any.
        objects: smallest and largest number of objects, required ones included.

    Raises:
        ValueError: an unknown colour or kind, or demands that no scene can meet.
    """
    _check_pairs([*required, *forbidden])
    rng = np.random.default_rng([seed, 2])
    shape_seed = seed // SCENES_PER_SHAPE_SET
    camera = _sample_camera(rng)
    count = max(int(rng.integers(objects[0], objects[1] + 1)), len(required) + 2 if required else 0)
    wanted = [_fill_pair(rng, pair, forbidden) for pair in required]
    allowed = [(c, k) for c in COLORS for k in KINDS if not _matches_any((c, k), forbidden)]
    if not allowed:
        raise ValueError("the forbidden pairs leave nothing to put on the table")
    for _ in range(20):
        placed = _populate(rng, wanted, allowed, count, shape_seed, camera)
        if placed:
            break
    else:
        raise ValueError(f"no room for {len(required)} required objects; name fewer")
    hue, saturation, value = rng.random(), rng.uniform(0.0, 0.45) ** 1.3, rng.uniform(0.35, 0.95)
    return Scene(
        seed=seed,
        shape_seed=shape_seed,
        objects=tuple(placed),
        table_texture=TABLE_TEXTURES[rng.integers(len(TABLE_TEXTURES))],
        table_rgba=(*colorsys.hsv_to_rgb(hue, saturation, value), 1.0),
        floor_rgba=(*colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.2, 0.9)), 1.0),
        lights=_sample_lights(rng),
        ambient=float(rng.uniform(0.20, 0.40)),
        camera=camera,
    )


def _populate(rng, wanted, allowed, count: int, shape_seed: int, camera) -> list[SceneObject]:
    """Places the wanted pairs and then others up to ``count``; an empty list when a wanted one found no room."""
    placed: list[SceneObject] = []
    for index in range(count):
        pair = wanted[index] if index < len(wanted) else allowed[rng.integers(len(allowed))]
        item = _place(rng, pair, shape_seed, placed, camera, protect=len(wanted))
        if item is not None:
            placed.append(item)
        elif index < len(wanted):
            return []
    return placed


def _check_pairs(pairs: Sequence[tuple[str | None, str | None]]) -> None:
    for color, kind in pairs:
        if color is not None and color not in COLORS:
            raise ValueError(f"unknown colour {color!r}; known: {', '.join(COLORS)}")
        if kind is not None and kind not in KINDS:
            raise ValueError(f"unknown kind of object {kind!r}; known: {', '.join(KINDS)}")
        if color is None and kind is None:
            raise ValueError("a pair must name a colour, a kind or both")


def _matches_any(pair: tuple[str, str], patterns: Sequence[tuple[str | None, str | None]]) -> bool:
    return any(color in (None, pair[0]) and kind in (None, pair[1]) for color, kind in patterns)


def _fill_pair(rng, pair, forbidden) -> tuple[str, str]:
    choices = [(c, k) for c in COLORS for k in KINDS if _matches_any((c, k), [pair])]
    choices = [choice for choice in choices if not _matches_any(choice, forbidden)]
    if not choices:
        raise ValueError(f"{' '.join(w for w in pair if w)!r} is both required and forbidden")
    return choices[rng.integers(len(choices))]


def sample_rgba(rng: np.random.Generator, color: str) -> tuple[float, float, float, float]:
    """Draws a shade that a person would call ``color``."""
    hue, saturation, value = (rng.uniform(*bounds) for bounds in COLOR_RANGES[color])
    return (*colorsys.hsv_to_rgb((hue % 360) / 360.0, saturation, value), 1.0)


def _place(rng, pair, shape_seed, placed, camera, protect: int) -> SceneObject | None:
    """Finds a free spot, or gives up after some tries. The first ``protect`` objects are never hidden by later ones."""
    color, kind = pair
    taken = {o.slot for o in placed if o.kind == kind}
    free = [slot for slot in range(SHAPES_PER_KIND) if slot not in taken]
    if not free:
        return None
    slot = int(free[rng.integers(len(free))])
    shape = shape_set(shape_seed)[kind][slot]
    lying = shape.rolls and rng.random() < 0.2
    reach = TABLE_REACH * (0.6 if len(placed) < protect else 1.0)
    for _ in range(60):
        radius, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        spot = radius * np.array([np.cos(angle), np.sin(angle)])
        if _clashes(spot, shape, lying, shape_seed, placed, camera, protect):
            continue
        height = shape.lying_radius if lying else 0.0
        return SceneObject(
            kind, color, slot, sample_rgba(rng, color),
            (float(spot[0]), float(spot[1]), float(height)), float(rng.uniform(0, 2 * np.pi)), bool(lying),
        )  # fmt: skip
    return None


def _clashes(spot, shape: Shape, lying: bool, shape_seed, placed, camera, protect: int) -> bool:
    radius = _ground_radius(shape, lying)
    eye = np.array(camera.eye[:2])
    for index, other in enumerate(placed):
        other_shape = shape_set(shape_seed)[other.kind][other.slot]
        other_radius = _ground_radius(other_shape, other.lying)
        centre = np.array(other.position[:2])
        if np.linalg.norm(spot - centre) < radius + other_radius + 0.008:
            return True
        if index < protect and _stands_between(spot, radius, shape, lying, centre, other_radius, camera, eye):
            return True
    return False


def _ground_radius(shape: Shape, lying: bool) -> float:
    return max(shape.height / 2, shape.lying_radius) if lying else shape.footprint_radius


def _stands_between(spot, radius, shape: Shape, lying, centre, other_radius, camera, eye) -> bool:
    """Whether an object at ``spot`` would hide the one at ``centre`` from the camera."""
    towards = centre - eye
    distance = np.linalg.norm(towards)
    along = float(np.dot(spot - eye, towards) / distance)
    if along > distance:
        return False
    across = float(np.linalg.norm(spot - eye - along * towards / distance))
    height = 2 * shape.lying_radius if lying else shape.height
    # The shadow that the object casts on the table, seen from the camera, reaches this far behind it.
    shadow = height * along / max(camera.eye[2] - height, 1e-3)
    return across < radius + other_radius and distance - along < shadow + radius + other_radius


def _sample_camera(rng: np.random.Generator) -> CameraPose:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(26, 62))
    distance = rng.uniform(0.64, 1.02)
    target = np.array([*rng.uniform(-0.05, 0.05, size=2), rng.uniform(0.0, 0.05)])
    offset = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    eye = target + distance * np.array(offset)
    return CameraPose(tuple(map(float, eye)), tuple(map(float, target)), float(rng.uniform(38, 50)))


def _sample_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    lights = []
    for strength in (rng.uniform(0.50, 0.80), rng.uniform(0.10, 0.35)):
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(35, 80))
        direction = (-np.cos(azimuth) * np.cos(elevation), -np.sin(azimuth) * np.cos(elevation), -np.sin(elevation))
        warmth = rng.uniform(-0.08, 0.08)
        diffuse = (strength * (1 + warmth), strength, strength * (1 - warmth))
        lights.append(Light(tuple(map(float, direction)), tuple(map(float, diffuse))))
    return tuple(lights)
