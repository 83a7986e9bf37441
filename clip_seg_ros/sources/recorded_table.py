# SPDX-License-Identifier: Apache-2.0
"""Records what cameras see of a rendered table as an MCAP bag, with the exact truth beside the images.

All cameras look at the same objects, some of which slide at times, and each camera moves on its own. Scenes and shapes
are those of the held-out seeds, which no training uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clip_seg_ros.data.tabletop import TEST_SEEDS, held_out_scene
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, Scene
from clip_seg_ros.sim.sequences import noisy_depth, noisy_rgb, scenes, visible_positions
from clip_seg_ros.sources.bag_messages import Stamped, Transform
from clip_seg_ros.sources.bag_writing import STATIC_TRANSFORMS, BagWriter
from clip_seg_ros.types import ObjectRegion, quaternion, vector3

WORLD, TABLE = "world", "table"
"""The fixed frame, and the frame on the middle of the table's top, both with z up."""
TRANSFORMS = "/tf"
TRUE_LABELS, TRUE_OBJECTS = "ground_truth/labels", "ground_truth/objects"
MOST_CAMERAS = 8
START_NS = 1_700_000_000_000_000_000
"""The stamp of the first images of the recording of seed 0; every other seed is recorded a day later."""
_DAY_NS = 86_400 * 10**9
_OTHER_MOTION = 1_000_000
"""By how much the seeds of the cameras' motions differ."""


@dataclass(frozen=True)
class RecordingPlan:
    """What is recorded."""

    seconds: float = 60.0
    cameras: int = 2
    rate_hz: float = 10.0
    """Images of each camera in a second."""
    seed: int = 0
    """Number of the scene among the held-out ones."""
    size: tuple[int, int] = (640, 480)
    """(width, height) in pixels."""
    is_raw: bool = False
    """Whether colours and depth are written as they are, and not as JPEG and PNG."""

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 1000 or not 1 / self.rate_hz <= self.seconds <= 1e6:
            raise ValueError(
                f"a recording has a rate of 0 to 1000 images a second and is as long as an image at least; got "
                f"{self.rate_hz} a second and {self.seconds} s"
            )
        if not 1 <= self.cameras <= MOST_CAMERAS:
            raise ValueError(f"a recording has 1 to {MOST_CAMERAS} cameras, got {self.cameras}")
        if not 0 <= self.seed < len(TEST_SEEDS):
            raise ValueError(f"the seed of a recording lies in 0..{len(TEST_SEEDS) - 1}, got {self.seed}")
        if not all(16 <= side <= 8192 for side in self.size):
            raise ValueError(f"the sides of images have 16 to 8192 pixels, got {self.size[0]}x{self.size[1]}")

    @property
    def moments(self) -> int:
        """The number of images of each camera."""
        return max(1, round(self.seconds * self.rate_hz))

    @property
    def start_ns(self) -> int:
        """The stamp of the first images."""
        return START_NS + self.seed * _DAY_NS

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all objects on the table, such as "red cup", each once."""
        return tuple(dict.fromkeys(item.name for item in self.first_scene.objects))

    @property
    def first_scene(self) -> Scene:
        """The table at the beginning, as the first camera sees it."""
        return held_out_scene(TEST_SEEDS[self.seed])

    def color_topic(self, camera: int) -> str:
        """Returns the topic of the colour images of a camera, of which the first has the number 1."""
        topic = f"/camera_{camera}/color/image_raw"
        return topic if self.is_raw else f"{topic}/compressed"


def write_recording(path: Path, plan: RecordingPlan) -> Iterator[int]:
    """Writes a recording, and yields the number of images that are in it so far.

    Each camera has colour, depth (aligned with the colour), camera_info for both, its place in the world by tf, and the
    truth with the same stamps: a label for every pixel, and the objects with their lasting ids, which are the labels.
    The same plan gives the same bytes.

    Args:
        path: A new file whose name ends with .mcap.
        plan: What is recorded.

    Raises:
        RecordingError: The file exists or cannot be written, or rosbags is missing.
        RendererUnavailable: This machine cannot render.
    """
    with BagWriter(path) as bag, SceneRenderer(*plan.size) as renderer:
        cameras = [_Camera(number, plan, renderer, bag) for number in range(1, plan.cameras + 1)]
        table = Transform(WORLD, TABLE, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        bag.add(STATIC_TRANSFORMS, bag.messages.transforms(plan.start_ns, [table]), plan.start_ns)
        ways = [_way(plan, number) for number in range(1, plan.cameras + 1)]
        done = 0
        for moment, (scene, *others) in enumerate(zip(*ways, strict=True)):
            stamp_ns = plan.start_ns + round(moment * 1e9 / plan.rate_hz)
            for camera, seen in zip(cameras, (scene, *others), strict=True):
                camera.take(replace(scene, camera=seen.camera), stamp_ns)
                done += 1
                yield done


class _Camera:
    """Renders what one camera sees and writes it."""

    def __init__(self, number: int, plan: RecordingPlan, renderer: SceneRenderer, bag: BagWriter) -> None:
        self._name, self._plan, self._renderer, self._bag = f"camera_{number}", plan, renderer, bag
        self._frame_id = f"{self._name}_color_optical_frame"
        self._color = plan.color_topic(number)
        self._rng = np.random.default_rng([TEST_SEEDS[plan.seed], 11, number])
        self._scene: Scene | None = None
        self._truth: tuple[RenderedView, list[ObjectRegion]] | None = None

    def take(self, scene: Scene, stamp_ns: int) -> None:
        """Adds one image of a scene with all that belongs to it."""
        if scene != self._scene or self._truth is None:
            view = self._renderer.render(scene)
            self._scene, self._truth = scene, (view, true_regions(view))
        view, regions = self._truth
        at, make, name = Stamped(stamp_ns, self._frame_id), self._bag.messages, self._name
        pose = view.camera_to_world
        place = Transform(WORLD, self._frame_id, vector3(pose[:3, 3]), quaternion(pose[:3, :3]))
        self._add(TRANSFORMS, make.transforms(stamp_ns, [place]), stamp_ns)
        info = make.camera_info(at, view.intrinsics)
        self._add(f"/{name}/color/camera_info", info, stamp_ns)
        self._add(f"/{name}/depth/camera_info", info, stamp_ns)
        self._add_images(view, at)
        self._add(f"/{name}/{TRUE_LABELS}", make.grey_png(at, view.labels), stamp_ns)
        names = tuple(dict.fromkeys(item.name for item in view.objects))
        self._add(f"/{name}/{TRUE_OBJECTS}", make.objects(at, name, names, regions), stamp_ns)

    def _add_images(self, view: RenderedView, at: Stamped) -> None:
        make, depth_topic = self._bag.messages, f"/{self._name}/depth/image_raw"
        rgb, depth_m = noisy_rgb(view.rgb, self._rng), noisy_depth(view.depth_m, self._rng)
        if self._plan.is_raw:
            self._add(self._color, make.image(at, rgb, "rgb8"), at.stamp_ns)
            self._add(depth_topic, make.image(at, depth_m, "32FC1"), at.stamp_ns)
            return
        self._add(self._color, make.jpeg(at, rgb), at.stamp_ns)
        self._add(f"{depth_topic}/compressedDepth", make.compressed_depth(at, depth_m), at.stamp_ns)

    def _add(self, topic: str, message: object, stamp_ns: int) -> None:
        self._bag.add(topic, message, stamp_ns)


def true_regions(view: RenderedView) -> list[ObjectRegion]:
    """Returns the visible objects of a view with their labels as ids, and the positions of their visible surfaces."""
    positions = visible_positions(view)
    regions = []
    for label, item in enumerate(view.objects, start=1):
        mask = view.labels == label
        if mask.any():
            regions.append(ObjectRegion.of_mask(item.name, label, 1.0, mask, positions.get(label)))
    return regions


def _way(plan: RecordingPlan, number: int) -> Iterator[Scene]:
    """Yields the scenes whose cameras are those of one camera; the first one's objects are those on the table."""
    first = plan.first_scene
    seed = TEST_SEEDS[plan.seed] + _OTHER_MOTION * (number - 1)
    turned = _turned(first.camera, (number - 1) / plan.cameras)
    return scenes(seed, plan.moments, first if number == 1 else replace(first, camera=turned))


def _turned(camera: CameraPose, turns: float) -> CameraPose:
    """Returns a camera that was carried around the vertical through what it looks at."""
    angle = 2 * np.pi * turns
    x, y = camera.eye[0] - camera.target[0], camera.eye[1] - camera.target[1]
    eye = (
        camera.target[0] + x * np.cos(angle) - y * np.sin(angle),
        camera.target[1] + x * np.sin(angle) + y * np.cos(angle),
        camera.eye[2],
    )
    return replace(camera, eye=vector3(eye))
