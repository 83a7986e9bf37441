# SPDX-License-Identifier: Apache-2.0
"""A node that a viewer's source shows, its camera, which shows views in turn, and who is shown and told everything."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor

from clip_seg_ros.nodes.observers.asking import Asking
from clip_seg_ros.nodes.observers.ros_source import RosSource
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import ObjectRegion
from clip_seg_ros.viewer.source import Event
from clip_seg_ros.viewer.views import Thing, View, Wanted
from ros_harness import PATIENCE_S, NodeProcess, Talker, wait_until

NAMES = ("red cup", "green cup", "blue box")
EVERYTHING = Wanted(frozenset({""}), confidence=True, space=True)
LOOKED_AT = Wanted(frozenset({""}))
NOTHING = Wanted()
_PERIOD_S = 0.25


@cache
def rendered_views() -> tuple[RenderedView, RenderedView]:
    """Returns two tables with the things of ``NAMES``, each of them once."""
    pairs = [tuple(name.split()) for name in NAMES]
    with SceneRenderer() as renderer:
        return tuple(renderer.render(sample_scene(seed, required=pairs)) for seed in (1, 7))


def region_of(view: RenderedView, name: str) -> ObjectRegion:
    """A thing as it truly is."""
    return ObjectRegion.of_mask(name, 1, 1.0, view.mask_of(*name.split()))


def true_position(view: RenderedView, name: str) -> np.ndarray:
    """The middle of its visible surface, (3,) metres in the optical frame."""
    return np.array(locate(region_of(view, name), view.depth_m, view.intrinsics))


def named(view: View, name: str) -> list[Thing]:
    """The things that a phrase found."""
    return [thing for thing in view.things if thing.prompt == name and thing.id]


class Recorder:
    """Keeps the newest views and all events."""

    def __init__(self) -> None:
        self.views: deque[View] = deque(maxlen=50)
        self.events: list[Event] = []

    def show(self, view: View) -> None:
        self.views.append(view)

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def forget(self) -> None:
        self.views.clear()
        self.events.clear()

    def view(self, fits: Callable[[View], Any] = lambda view: True) -> View:
        """Waits for a view that fits, which may have come already."""
        return wait_until(lambda: [view for view in list(self.views) if fits(view)], "a view", PATIENCE_S)[-1]

    def event(self, kind: str, **values: Any) -> Event:
        """Waits for an event with these values, which may have come already."""

        def found() -> list[Event]:
            return [each for each in self.events[:] if each["event"] == kind and values.items() <= each.items()]

        return wait_until(found, f"{kind} {values}", PATIENCE_S)[0]

    def told(self, kind: str) -> list[Event]:
        return [each for each in self.events[:] if each["event"] == kind]


class Playing:
    """A camera that sends views in turn, on a thread, for as long as its block lasts."""

    def __init__(self, camera: Talker, views: Sequence[RenderedView]) -> None:
        self.views = list(views)
        self.sent: dict[int, RenderedView] = {}
        """What was sent, by its stamp in nanoseconds."""
        self._camera, self._ended = camera, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Playing:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for index in itertools.count():
            views = self.views
            view = views[index % len(views)]
            self.sent[self._camera.send_view(view)] = view
            if self._ended.wait(_PERIOD_S):
                return


@contextmanager
def viewing(namespace: str, spun_first: bool = True) -> Iterator[tuple[RosSource, Recorder]]:
    """A source in this process that looks at a namespace, and its listener."""
    node = Asking(namespace, "command", name="web_view")
    source, recorder = RosSource(node), Recorder()
    executor = SingleThreadedExecutor()
    if not spun_first:
        source.start(recorder)
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    if spun_first:
        source.start(recorder)
    try:
        yield source, recorder
    finally:
        source.stop()
        executor.shutdown()
        spinner.join()
        node.destroy_node()


def topics_of(namespace: str) -> list[str]:
    """The parameters with which a node listens to the camera of its namespace."""
    return [
        f"image_topic:=/{namespace}/color/image_raw",
        f"depth_topic:=/{namespace}/depth/image_raw",
        f"camera_info_topic:=/{namespace}/color/camera_info",
    ]


class Robot:
    """A node, a camera that it looks at, and a source that shows both."""

    def __init__(self, folder: Path, namespace: str, source: RosSource, shown: Recorder, parameters: Sequence[str]):
        self.namespace, self.source, self.shown = namespace, source, shown
        self._folder, self._parameters, self._starts = folder, parameters, itertools.count()
        self.camera: Playing | None = None
        self.start_node()

    def start_node(self) -> None:
        log = self._folder / f"log{next(self._starts)}"
        self.node = NodeProcess("referring", log, self._parameters, namespace=self.namespace)
        self.node.wait_said("commands:")

    def rest(self) -> None:
        """Nobody looks, and nothing is looked for."""
        self.camera.views = list(rendered_views())
        self.source.command("stop")
        self.source.set_parameter("threshold", 0.5)
        self.source.want(NOTHING)
        self.shown.forget()

    def say(self, text: str) -> Event:
        """Gives a command; returns its last status."""
        before = len(self.shown.told("status"))
        self.source.command(text)

        def ended() -> list[Event]:
            return [each for each in self.shown.told("status")[before:] if each["state"] != "accepted"]

        return wait_until(ended, f"the outcome of {text!r}")[0]


@contextmanager
def running_robot(folder: Path, namespace: str, *parameters: str) -> Iterator[Robot]:
    with viewing(namespace) as (source, shown):
        robot = Robot(folder, namespace, source, shown, [*topics_of(namespace), "smoothing:=0.0", *parameters])
        try:
            with Talker.camera(f"/{namespace}") as camera, Playing(camera, rendered_views()) as robot.camera:
                shown.event("back")
                yield robot
        finally:
            robot.node.end()
