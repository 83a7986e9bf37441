# SPDX-License-Identifier: Apache-2.0
"""Draws tabletop scenes from a seed: the objects and their places, the lights and the camera.

A scene is a value; ``renderer.SceneRenderer`` renders it. In the world frame, z points up, the table top is at z = 0
and lengths are in metres.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from clip_seg_ros.sim.oddments import ODD_BUILDERS, build_oddments
from clip_seg_ros.sim.shapes import SHAPE_BUILDERS, Shape, build_shapes
from clip_seg_ros.sim.workshop import WORKSHOP_BUILDERS, build_workshop
from clip_seg_ros.types import vector3

KINDS: tuple[str, ...] = tuple(SHAPE_BUILDERS)
WORKSHOP_KINDS: tuple[str, ...] = tuple(WORKSHOP_BUILDERS)
"""The kinds that only scenes drawn with ``workshop`` have; the embedded weights know neither shapes nor names."""
ODD_KINDS: tuple[str, ...] = tuple(ODD_BUILDERS)  # random shapes, which only scenes drawn with ``odd`` have

# Each colour has a range of hues in degrees, of saturations in 0..1 and of values in 0..1.
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

Pair = tuple[str, str]
"""A (colour, kind) of an object."""
Pattern = tuple[str | None, str | None]
"""A (colour, kind) to match, where ``None`` stands for any."""

# Training scenes never contain these pairs, so that unseen combinations of known words can be evaluated. Each colour
# and each kind occurs once.
HELD_OUT_PAIRS: tuple[Pair, ...] = (
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
"""The number of neighbouring seeds that share a shape set, because compiling one takes longer than rendering."""
TABLE_TEXTURES = ("plain", "wood", "checks", "stripes", "speckle", "cloth")
UNSEEN_TABLE_TEXTURES = ("tiles", "dots", "waves")
"""The textures that only scenes drawn with ``unseen`` have."""
UNSEEN_SHAPE_SETS = 1_000_000
"""The seed from which shape sets also contain shapes that are wider, narrower, taller or flatter than any below."""
WORKSHOP_SHAPE_SETS = 2_000_000
"""The seed from which shape sets contain the objects of a workshop besides those of ``KINDS``."""
ODD_SHAPE_SETS = 3_000_000
"""The seed from which shape sets contain random shapes besides the objects of ``KINDS``."""
TABLE_REACH = 0.30
"""The largest distance of objects from the middle of the table, metres."""
GAP = 0.008
"""The least distance of two objects, metres."""
CLOSE_GAPS = (0.001, 0.015)
"""The least and largest distance of an object from the one beside which it is placed, metres."""


@dataclass(frozen=True)
class SceneObject:
    """One object on the table."""

    kind: str
    color: str
    slot: int
    """The index of the shape among the ``SHAPES_PER_KIND`` of this kind; no two objects of a scene share one."""
    rgba: tuple[float, float, float, float]
    position: tuple[float, float, float]
    """The origin of the shape in the world, metres."""
    yaw: float
    """The rotation about the vertical, radians."""
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
    """A directional light; its rays go along ``direction``."""

    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that an image of the table depends on."""

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
    """Returns the shapes from which scenes with this ``shape_seed`` choose, by kind."""
    shapes = build_shapes(shape_seed, SHAPES_PER_KIND)
    if shape_seed >= ODD_SHAPE_SETS:
        return shapes | build_oddments(shape_seed, SHAPES_PER_KIND)
    if shape_seed >= WORKSHOP_SHAPE_SETS:
        return shapes | build_workshop(shape_seed, SHAPES_PER_KIND)
    if shape_seed < UNSEEN_SHAPE_SETS:
        return shapes
    rng = np.random.default_rng([shape_seed, 6])
    return {kind: tuple(_stretched(rng, kind, shape) for shape in several) for kind, several in shapes.items()}


def _stretched(rng: np.random.Generator, kind: str, shape: Shape) -> Shape:
    """Stretches half of the shapes to sizes that ``build_shapes`` does not draw; a ball stays round."""
    if rng.random() < 0.5:
        return shape
    across, up = (rng.uniform(*((0.78, 0.88) if rng.random() < 0.5 else (1.12, 1.25))) for _ in range(2))
    return shape.stretched(across, across if kind == "ball" else up)


def sample_scene(
    seed: int,
    *,
    required: Sequence[Pattern] = (),
    forbidden: Sequence[Pattern] = (),
    objects: tuple[int, int] = (4, 9),
    unseen: bool = False,
    workshop: bool = False,
    alike: bool = False,
    odd: bool = False,
) -> Scene:
    """Draws the scene of ``seed``; the same arguments give the same scene.

    Args:
        seed: Any integer >= 0.
        required: (colour, kind) pairs that must be in the scene and not be occluded; ``None`` stands for any.
        forbidden: (colour, kind) pairs that must not be in the scene; ``None`` stands for any.
        objects: Smallest and largest number of objects, required ones included.
        unseen: Whether to draw, each with a probability of one half, the camera, the lights and the table's texture
            from outside the ranges of all other scenes, and half of the shapes from outside the usual sizes. Training
            never uses such scenes.
        workshop: Whether objects of ``WORKSHOP_KINDS`` stand among the others; not together with ``unseen``.
        alike: Whether most objects stand close to others of their kind, so that many touch in the image; not together
            with ``required``.
        odd: Whether all objects are of ``ODD_KINDS``; not together with ``unseen`` or ``workshop``.

    Raises:
        ValueError: A colour or kind is unknown, or no scene can meet the demands.
    """
    if unseen + workshop + odd > 1:
        raise ValueError("a scene is drawn with one of unseen, workshop and odd, not with several")
    if alike and required:
        raise ValueError("a scene is drawn with alike or with required objects, not with both")
    _check_pairs([*required, *forbidden])
    rng = np.random.default_rng([seed, 2])
    first_set = UNSEEN_SHAPE_SETS if unseen else WORKSHOP_SHAPE_SETS if workshop else ODD_SHAPE_SETS if odd else 0
    shape_seed = seed // SCENES_PER_SHAPE_SET + first_set
    camera = _sample_camera(rng)
    count = max(int(rng.integers(objects[0], objects[1] + 1)), len(required) + 2 if required else 0)
    wanted = [_fill_pair(rng, pair, forbidden) for pair in required]
    kinds = ODD_KINDS if odd else (*KINDS, *WORKSHOP_KINDS) if workshop else KINDS
    allowed = [(c, k) for c in COLORS for k in kinds if not _matches_any((c, k), forbidden)]
    if not allowed:
        raise ValueError("the forbidden pairs leave nothing to put on the table")
    table = _laid_table(rng, _Table(shape_seed, camera, protect=len(wanted)), wanted, allowed, count, alike)
    hue, saturation, value = rng.random(), rng.uniform(0.0, 0.45) ** 1.3, rng.uniform(0.35, 0.95)
    scene = Scene(
        seed=seed,
        shape_seed=shape_seed,
        objects=tuple(table.objects),
        table_texture=TABLE_TEXTURES[rng.integers(len(TABLE_TEXTURES))],
        table_rgba=(*colorsys.hsv_to_rgb(hue, saturation, value), 1.0),
        floor_rgba=(*colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.2, 0.9)), 1.0),
        lights=_sample_lights(rng),
        ambient=float(rng.uniform(0.20, 0.40)),
        camera=camera,
    )
    return _beyond(scene) if unseen else scene


def _beyond(scene: Scene) -> Scene:
    """Redraws camera, lights and table texture, each with a probability of one half, from outside the usual ranges."""
    rng = np.random.default_rng([scene.seed, 7])
    camera, texture, lights, ambient = scene.camera, scene.table_texture, scene.lights, scene.ambient
    if rng.random() < 0.5:
        texture = UNSEEN_TABLE_TEXTURES[rng.integers(len(UNSEEN_TABLE_TEXTURES))]
    if rng.random() < 0.5:
        low, strength = np.radians(rng.uniform(22, 33)), rng.uniform(0.65, 0.95)
        azimuth, warmth = rng.uniform(0, 2 * np.pi), rng.uniform(0.10, 0.18) * rng.choice([-1, 1])
        direction = (-np.cos(azimuth) * np.cos(low), -np.sin(azimuth) * np.cos(low), -np.sin(low))
        lamp = Light(vector3(direction), (strength * (1 + warmth), strength, strength * (1 - warmth)))
        lights, ambient = (lamp, scene.lights[1]), float(rng.uniform(0.14, 0.20))
    if rng.random() < 0.5:
        target = np.array(camera.target)
        offset = np.array(camera.eye) - target
        azimuth = np.arctan2(offset[1], offset[0])
        elevation = np.radians(rng.uniform(20, 26) if rng.random() < 0.5 else rng.uniform(62, 74))
        distance = rng.uniform(1.02, 1.20)
        towards = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        camera = replace(camera, eye=vector3(target + distance * np.array(towards)))
    return replace(scene, camera=camera, table_texture=texture, lights=lights, ambient=ambient)


def _laid_table(
    rng: np.random.Generator, table: _Table, wanted: Sequence[Pair], allowed: Sequence[Pair], count: int, alike: bool
) -> _Table:
    """Puts ``count`` objects on a table, or as many as have room. Raises ValueError if the wanted ones have none."""
    if alike:
        _populate_alike(rng, allowed, count, table)
        return table
    for _ in range(20):
        table.objects.clear()
        if _populate(rng, wanted, allowed, count, table):
            return table
    raise ValueError(f"no room for {len(wanted)} required objects; name fewer")


def _populate(
    rng: np.random.Generator, wanted: Sequence[Pair], allowed: Sequence[Pair], count: int, table: _Table
) -> bool:
    """Places the wanted pairs and then others up to ``count``; returns false if there is no room for a wanted one."""
    for index in range(count):
        is_wanted = index < len(wanted)
        pair = wanted[index] if is_wanted else allowed[rng.integers(len(allowed))]
        if not table.place(rng, pair) and is_wanted:
            return False
    return True


def _populate_alike(rng: np.random.Generator, allowed: Sequence[Pair], count: int, table: _Table) -> None:
    """Places groups of one kind up to ``count`` objects; in half of the groups, all have one colour."""
    while count > 0:
        first = allowed[rng.integers(len(allowed))]
        colors = [color for color, kind in allowed if kind == first[1]]
        one_color, group = rng.random() < 0.5, min(int(rng.integers(1, SHAPES_PER_KIND + 1)), count)
        table.place(rng, first)
        for _ in range(group - 1):
            color = first[0] if one_color else colors[rng.integers(len(colors))]
            others = [item for item in table.objects if item.kind == first[1]]
            table.place(rng, (color, first[1]), others[rng.integers(len(others))] if others else None)
        count -= group


def _check_pairs(pairs: Sequence[Pattern]) -> None:
    for color, kind in pairs:
        if color is not None and color not in COLORS:
            raise ValueError(f"unknown colour {color!r}; known: {', '.join(COLORS)}")
        if kind is not None and kind not in KINDS:
            raise ValueError(f"unknown kind of object {kind!r}; known: {', '.join(KINDS)}")
        if color is None and kind is None:
            raise ValueError("a pair must name a colour, a kind or both")


def _matches_any(pair: Pair, patterns: Sequence[Pattern]) -> bool:
    return any(color in (None, pair[0]) and kind in (None, pair[1]) for color, kind in patterns)


def _fill_pair(rng: np.random.Generator, pair: Pattern, forbidden: Sequence[Pattern]) -> Pair:
    choices = [(c, k) for c in COLORS for k in KINDS if _matches_any((c, k), [pair])]
    choices = [choice for choice in choices if not _matches_any(choice, forbidden)]
    if not choices:
        raise ValueError(f"{' '.join(w for w in pair if w)!r} is both required and forbidden")
    return choices[rng.integers(len(choices))]


def sample_rgba(rng: np.random.Generator, color: str) -> tuple[float, float, float, float]:
    """Draws a shade that a person would call ``color``."""
    hue, saturation, value = (rng.uniform(*bounds) for bounds in COLOR_RANGES[color])
    return (*colorsys.hsv_to_rgb((hue % 360) / 360.0, saturation, value), 1.0)


class _Table:
    """Places one object after the other on the table.

    The first ``protect`` objects stand near the middle and are never occluded by later ones.
    """

    def __init__(self, shape_seed: int, camera: CameraPose, protect: int) -> None:
        self.objects: list[SceneObject] = []
        self._shapes, self._camera, self._protect = shape_set(shape_seed), camera, protect

    def place(self, rng: np.random.Generator, pair: Pair, beside: SceneObject | None = None) -> bool:
        """Places an object of this colour and kind where there is room; returns false if several tries find none.

        Args:
            rng: The source of all random numbers.
            pair: The colour and kind.
            beside: An object to whose side it is placed; by default it is placed anywhere.
        """
        color, kind = pair
        taken = {item.slot for item in self.objects if item.kind == kind}
        free = [slot for slot in range(SHAPES_PER_KIND) if slot not in taken]
        if not free:
            return False
        slot = int(free[rng.integers(len(free))])
        shape = self._shapes[kind][slot]
        lying = bool(shape.rolls and rng.random() < 0.2)
        reach = TABLE_REACH * (0.6 if len(self.objects) < self._protect else 1.0)
        for _ in range(60):
            radius, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            direction, gap = np.array([np.cos(angle), np.sin(angle)]), GAP
            spot = radius * direction
            if beside is not None:
                away = _ground_radius(shape, lying) + self._radius(beside) + rng.uniform(*CLOSE_GAPS)
                spot, gap = np.array(beside.position[:2]) + away * direction, 0.0
            if np.linalg.norm(spot) > TABLE_REACH or self._clashes(spot, shape, lying, gap):
                continue
            rgba = sample_rgba(rng, color)
            position = (float(spot[0]), float(spot[1]), float(shape.lying_radius if lying else 0.0))
            yaw = float(rng.uniform(0, 2 * np.pi))
            self.objects.append(SceneObject(kind, color, slot, rgba, position, yaw, lying))
            return True
        return False

    def _radius(self, item: SceneObject) -> float:
        return _ground_radius(self._shapes[item.kind][item.slot], item.lying)

    def _clashes(self, spot: np.ndarray, shape: Shape, lying: bool, gap: float) -> bool:
        """Returns whether an object at ``spot``, (2,) metres, would come too close to another or hide a protected one.

        ``gap`` is the least distance of two objects, metres.
        """
        radius = _ground_radius(shape, lying)
        height = 2 * shape.lying_radius if lying else shape.height
        for index, other in enumerate(self.objects):
            other_radius = self._radius(other)
            centre = np.array(other.position[:2])
            if np.linalg.norm(spot - centre) < radius + other_radius + gap:
                return True
            if index < self._protect and self._hides(spot, height, centre, radius + other_radius):
                return True
        return False

    def _hides(self, spot: np.ndarray, height: float, centre: np.ndarray, radii: float) -> bool:
        """Returns whether an object of ``height`` at ``spot`` would occlude the one at ``centre``."""
        eye = np.array(self._camera.eye[:2])
        towards = centre - eye
        distance = np.linalg.norm(towards)
        along = float(np.dot(spot - eye, towards) / distance)
        if along > distance:
            return False
        across = float(np.linalg.norm(spot - eye - along * towards / distance))
        # The shadow that the object casts on the table, seen from the camera, reaches this far behind it.
        shadow = height * along / max(self._camera.eye[2] - height, 1e-3)
        return across < radii and distance - along < shadow + radii


def _ground_radius(shape: Shape, lying: bool) -> float:
    return max(shape.height / 2, shape.lying_radius) if lying else shape.footprint_radius


def _sample_camera(rng: np.random.Generator) -> CameraPose:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(26, 62))
    distance = rng.uniform(0.64, 1.02)
    target = np.array([*rng.uniform(-0.05, 0.05, size=2), rng.uniform(0.0, 0.05)])
    offset = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    eye = target + distance * np.array(offset)
    return CameraPose(vector3(eye), vector3(target), float(rng.uniform(38, 50)))


def _sample_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    lights = []
    for strength in (rng.uniform(0.50, 0.80), rng.uniform(0.10, 0.35)):
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(35, 80))
        direction = (-np.cos(azimuth) * np.cos(elevation), -np.sin(azimuth) * np.cos(elevation), -np.sin(elevation))
        warmth = rng.uniform(-0.08, 0.08)
        diffuse = (strength * (1 + warmth), strength, strength * (1 - warmth))
        lights.append(Light(vector3(direction), vector3(diffuse)))
    return tuple(lights)
