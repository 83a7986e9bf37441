# SPDX-License-Identifier: Apache-2.0
"""Simulated sequences of images with exact ground truth, in which the camera and objects move at times.

A sequence consists of stretches of 8 to 12 frames. In turn, in an order that is redrawn each time, the camera moves,
one or two objects slide, both happen, or nothing changes but the sensor's noise. Every motion follows the minimum-jerk
profile of Flash and Hogan (J. Neuroscience 1985), s(u) = 10 u³ - 15 u⁴ + 6 u⁵, so that it starts and ends at rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import TABLE_REACH, CameraPose, Scene, SceneObject, sample_scene, shape_set
from clip_seg_ros.types import vector3

MOTIONS: tuple[str, ...] = ("none", "camera", "objects", "both")
STRETCH_FRAMES = (8, 12)
"""The lengths of the shortest and of the longest stretch."""
CLEARANCE_M = 0.008
"""The least distance between sliding objects and all others."""
RGB_SIGMA = 2.5
"""The standard deviation of the colour noise in grey levels of 255, as of a cheap camera in a lit room."""
DEPTH_SIGMA_PER_M2 = 0.0015
"""The standard deviation of the depth noise at 1 m, metres. It grows with z², because the error of a stereo camera's
disparity is constant."""
RIM_STEP_M = 0.02
"""The difference between neighbouring depths above which a pixel is at a rim, which one of two lenses does not see."""
RIM_HOLE_SHARE = 0.7
BLOB_SIZE_PX = 16
BLOB_SIGMAS = 2.3
"""The number of standard deviations above which a smooth normal field makes blobs of missing depth."""


@dataclass(frozen=True)
class SequenceFrame:
    """One image of a sequence with its ground truth."""

    view: RenderedView
    """The image: ``rgb`` and ``depth_m`` are noisy, ``labels`` are exact, and an object keeps its label throughout."""
    stamp_ns: int
    camera_moved: bool
    """Whether the camera moved since the frame before."""
    moved: frozenset[int]
    """The labels of the objects that moved since the frame before."""
    positions_m: dict[int, tuple[float, float, float]]
    """The true position of each label's visible surface, from ``visible_positions``; hidden objects have none."""

    @property
    def still(self) -> bool:
        """Whether nothing moved since the frame before; true of the first."""
        return not self.camera_moved and not self.moved


def sequence(
    seed: int,
    frames: int = 200,
    size: tuple[int, int] = (640, 480),
    rate_hz: float = 10.0,
    rgb_sigma: float = RGB_SIGMA,
    depth_noise: bool = True,
) -> Iterator[SequenceFrame]:
    """Renders the sequence that starts from the scene of ``seed``; the same arguments give the same images.

    Args:
        seed: Seed of the first scene, as for ``sample_scene``.
        frames: Number of images.
        size: (width, height) of the images in pixels.
        rate_hz: Images per second; it affects the stamps, which start at 0, but not the motion from frame to frame.
        rgb_sigma: Standard deviation of the colour noise in grey levels; 0 for none.
        depth_noise: Whether depth has noise and holes.

    Raises:
        ValueError: A number is out of range.
        RendererUnavailable: This machine cannot render.
    """
    if frames < 1 or not rate_hz > 0 or not rgb_sigma >= 0:
        raise ValueError(
            f"a sequence needs frames >= 1, rate_hz > 0 and rgb_sigma >= 0; got {frames}, {rate_hz}, {rgb_sigma}"
        )
    return _frames(seed, frames, size, rate_hz, rgb_sigma, depth_noise)


def _frames(
    seed: int, frames: int, size: tuple[int, int], rate_hz: float, rgb_sigma: float, depth_noise: bool
) -> Iterator[SequenceFrame]:
    rng = np.random.default_rng([seed, 9])
    before: Scene | None = None
    clean: RenderedView | None = None
    positions: dict[int, tuple[float, float, float]] = {}
    with SceneRenderer(*size) as renderer:
        for index, scene in enumerate(scenes(seed, frames)):
            moved: frozenset[int] = frozenset()
            camera_moved = False
            if before is not None:
                pairs = zip(before.objects, scene.objects, strict=True)
                moved = frozenset(label for label, (old, new) in enumerate(pairs, start=1) if old != new)
                camera_moved = before.camera != scene.camera
            if clean is None or moved or camera_moved:
                clean = renderer.render(scene)
                positions = visible_positions(clean)
            view = replace(
                clean,
                rgb=noisy_rgb(clean.rgb, rng, rgb_sigma),
                depth_m=noisy_depth(clean.depth_m, rng) if depth_noise else clean.depth_m,
            )
            yield SequenceFrame(view, round(index * 1e9 / rate_hz), camera_moved, moved, positions)
            before = scene


def scenes(seed: int, frames: int, first: Scene | None = None) -> Iterator[Scene]:
    """Yields the scene of each frame of a sequence, without rendering it.

    Args:
        seed: Seed of the motions.
        frames: Number of scenes.
        first: The scene of the first frame; by default that of ``seed``.
    """
    rng = np.random.default_rng([seed, 8])
    scene = sample_scene(seed) if first is None else first
    yield scene
    count = 1
    while True:
        for motion in rng.permutation(MOTIONS):
            for moved in _stretch(scene, str(motion), rng):
                if count == frames:
                    return
                yield moved
                count += 1
                scene = moved


def noisy_rgb(rgb: np.ndarray, rng: np.random.Generator, sigma: float = RGB_SIGMA) -> np.ndarray:
    """Returns an image (H, W, 3) uint8 with independent normal noise of ``sigma`` grey levels added."""
    if sigma == 0:
        return rgb
    noise = rng.standard_normal(rgb.shape, np.float32)
    return np.clip(np.rint(rgb + np.float32(sigma) * noise), 0, 255).astype(np.uint8)


def noisy_depth(depth_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns depth (H, W) float32 as a stereo camera measures it: noise that grows with z², and holes (NaN).

    Most pixels of rims, where depth jumps, are holes, and so are blobs at random places that change every time.
    """
    height, width = depth_m.shape
    noise = rng.standard_normal(depth_m.shape, np.float32)
    measured = depth_m + np.float32(DEPTH_SIGMA_PER_M2) * depth_m**2 * noise
    # Pixels without a surface count as far away, so that their border is a rim, too.
    filled = np.nan_to_num(depth_m, nan=1e3)
    cross = np.ones((3, 3), np.uint8)
    rim = cv2.dilate(filled, cross) - cv2.erode(filled, cross) > RIM_STEP_M
    measured[rim & (rng.random(depth_m.shape, np.float32) < RIM_HOLE_SHARE)] = np.nan
    coarse = rng.standard_normal((height // BLOB_SIZE_PX + 2, width // BLOB_SIZE_PX + 2), np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    measured[field > BLOB_SIGMAS] = np.nan
    return measured


def visible_positions(view: RenderedView) -> dict[int, tuple[float, float, float]]:
    """Returns the positions of the visible surfaces: label -> (x, y, z) in the optical frame, metres.

    As for the positions of found objects, this is the median of the points of the visible surface, separately in x, y
    and z.
    """
    positions: dict[int, tuple[float, float, float]] = {}
    lens = view.intrinsics
    for label in range(1, len(view.objects) + 1):
        rows, columns = np.nonzero((view.labels == label) & np.isfinite(view.depth_m))
        if len(rows) == 0:
            continue
        z = view.depth_m[rows, columns].astype(np.float64)
        points = np.stack([(columns - lens.cx) * z / lens.fx, (rows - lens.cy) * z / lens.fy, z])  # (3, N)
        positions[label] = vector3(np.median(points, axis=1))
    return positions


def _stretch(scene: Scene, motion: str, rng: np.random.Generator) -> Iterator[Scene]:
    """Yields the scenes of one stretch that follows ``scene``."""
    count = int(rng.integers(STRETCH_FRAMES[0], STRETCH_FRAMES[1] + 1))
    u = np.arange(1, count + 1) / count
    progress = 10 * u**3 - 15 * u**4 + 6 * u**5
    cameras = [scene.camera] * count
    if motion in ("camera", "both"):
        cameras = _camera_path(scene.camera, progress, rng)
    paths = _object_paths(scene, progress, rng) if motion in ("objects", "both") else {}
    for step, camera in enumerate(cameras):
        items = tuple(
            replace(item, position=vector3((*paths[index][step], item.position[2]))) if index in paths else item
            for index, item in enumerate(scene.objects)
        )
        yield replace(scene, objects=items, camera=camera)


def _camera_path(camera: CameraPose, progress: np.ndarray, rng: np.random.Generator) -> list[CameraPose]:
    """Moves the camera around, up or down, and nearer or away, within the range from which scenes are drawn."""
    target = np.array(camera.target)
    offset = np.array(camera.eye) - target
    distance = float(np.linalg.norm(offset))
    start = np.array([np.arctan2(offset[1], offset[0]), np.arcsin(offset[2] / distance), distance])
    turn = np.radians(rng.uniform(4, 12)) * rng.choice([-1, 1])
    goal = start + np.array([turn, np.radians(rng.uniform(-5, 5)), rng.uniform(-0.08, 0.08)])
    goal[1:] = np.clip(goal[1:], [np.radians(26), 0.64], [np.radians(62), 1.02])
    new_target = np.array([*rng.uniform(-0.05, 0.05, size=2), rng.uniform(0.0, 0.05)])
    path = []
    for share in progress:
        azimuth, elevation, distance = start + share * (goal - start)
        towards = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        looked_at = target + share * (new_target - target)
        eye = looked_at + distance * np.array(towards)
        path.append(CameraPose(vector3(eye), vector3(looked_at), camera.fovy_deg))
    return path


def _object_paths(scene: Scene, progress: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Finds straight paths for one or two objects: index in the scene -> (x, y) on the table at each step."""
    radii = [radius_of(scene, item) for item in scene.objects]
    places = [np.tile(np.array(item.position[:2]), (len(progress), 1)) for item in scene.objects]
    paths: dict[int, np.ndarray] = {}
    wanted = int(rng.integers(1, 3))
    for index in map(int, rng.permutation(len(scene.objects))):
        for _ in range(12):
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.18)
            goal = places[index][0] + length * np.array([np.cos(angle), np.sin(angle)])
            path = places[index][0] + progress[:, None] * (goal - places[index][0])
            others = (other for other in range(len(places)) if other != index)
            if np.linalg.norm(goal) <= TABLE_REACH and all(
                np.linalg.norm(path - places[other], axis=1).min() > radii[index] + radii[other] + CLEARANCE_M
                for other in others
            ):
                paths[index] = places[index] = path
                break
        if len(paths) == wanted:
            break
    return paths


def radius_of(scene: Scene, item: SceneObject) -> float:
    """Returns the radius in metres of an upright cylinder that contains the object at any rotation."""
    shape = shape_set(scene.shape_seed)[item.kind][item.slot]
    return max(shape.footprint_radius, shape.height / 2) if item.lying else shape.footprint_radius
