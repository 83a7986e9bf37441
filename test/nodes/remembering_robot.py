# SPDX-License-Identifier: Apache-2.0
"""A robot whose node remembers what its camera saw, and what the camera sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from rclpy.duration import Duration
from visualization_msgs.msg import MarkerArray

from clip_seg_ros.action import FindObject
from clip_seg_ros.msg import CommandStatus, RememberedObject, RememberedObjectArray, SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import LATCHED
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, sample_scene
from clip_seg_ros.srv import Recall
from clip_seg_ros.types import ObjectRegion
from goal_client import GoalClient
from ros_harness import PATIENCE_S, NodeProcess, Talker, Watcher, running_referring, stamp_ns, wait_until

FIXED = "map"
NEAR_M = 0.02
DAY_S = 86400.0
AGAIN_S = 5.0
"""Time in seconds after which an image got lost: subscriptions to cameras are best effort."""


@dataclass(frozen=True)
class Views:
    """Pictures of one table by one camera that stands still, and by one that moved."""

    there: RenderedView
    gone: RenderedView
    """Without the red cup."""
    away: RenderedView
    """The camera looks at the empty floor beside the table."""
    round_the_table: RenderedView
    """All things, from another side."""


@cache
def rendered_views() -> Views:
    """Returns the views of a table with a red and a blue cup."""
    scene = sample_scene(3, required=[("red", "cup"), ("blue", "cup")], objects=(4, 5))
    rest = replace(scene, objects=tuple(item for item in scene.objects if (item.color, item.kind) != ("red", "cup")))
    eye, target = np.array(scene.camera.eye), np.array(scene.camera.target)
    arm = eye - target
    cos, sin = math.cos(1.2), math.sin(1.2)
    turned = target + np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ arm
    aside = CameraPose(scene.camera.eye, tuple(2 * eye - target), scene.camera.fovy_deg)
    with SceneRenderer() as renderer:
        return Views(
            renderer.render(scene),
            renderer.render(rest),
            renderer.render(scene, aside),
            renderer.render(scene, CameraPose(tuple(turned), scene.camera.target, scene.camera.fovy_deg)),
        )


def true_position(view: RenderedView, color: str, kind: str) -> np.ndarray:
    """Where the middle of the visible surface of a thing is, in the optical frame."""
    region = ObjectRegion.of_mask(kind, 1, 1.0, view.mask_of(color, kind))
    return np.array(locate(region, view.depth_m, view.intrinsics))


def off_m(item: RememberedObject, truth: np.ndarray) -> float:
    """How far a thing is remembered from where it is."""
    return math.dist((item.position.x, item.position.y, item.position.z), truth)


class Robot:
    """A node with a memory, who watches it, and its camera, whose frame is the fixed one: it stands still."""

    def __init__(self, node: NodeProcess, watcher: Watcher, camera: Talker) -> None:
        self.node, self.watcher, self.camera = node, watcher, camera
        self.memory = watcher.hear(RememberedObjectArray, "memory", LATCHED)
        self.markers = watcher.hear(MarkerArray, "memory_markers", LATCHED)
        self._client = GoalClient(watcher, FindObject, "find_object")

    def look(self, view: RenderedView, send: Callable[[RenderedView], int] | None = None) -> SegmentedObjectArray:
        """Shows a view, again where the image gets lost; returns what the node answers."""
        stamps: list[int] = []

        def answers() -> list[SegmentedObjectArray]:
            return [each for each in self.watcher.seen["objects"][:] if stamp_ns(each) in stamps]

        while not answers():
            stamps.append(send(view) if send else self.camera.send_view(view, FIXED))
            with suppress(AssertionError):
                wait_until(answers, "an answer", AGAIN_S)
            assert len(stamps) * AGAIN_S < PATIENCE_S, "the node answers no image"
        return answers()[0]

    def show(self, view: RenderedView, until: Callable[[], object], what: str) -> None:
        """Shows a view until something has happened."""
        wait_until(lambda: self.look(view) and until(), what)

    def look_away(self, view: RenderedView) -> None:
        """Shows another view, and returns when it is in memory: before the second answer."""
        for _ in range(2):
            self.look(view)

    def recall(self, phrase: str = "", max_age_s: float = 0.0) -> Recall.Response:
        request = Recall.Request(phrase=phrase, max_age=Duration(seconds=max_age_s).to_msg())
        return self.watcher.call(Recall, "recall", request)

    def remembers(self, phrase: str) -> bool:
        return bool(self.recall(phrase).objects)

    def find(self, phrase: str, max_age_s: float, timeout_s: float = 3600.0, camera: str = "") -> FindObject.Result:
        goal = FindObject.Goal(
            phrase=phrase,
            timeout=Duration(seconds=timeout_s).to_msg(),
            max_age=Duration(seconds=max_age_s).to_msg(),
            camera=camera,
        )
        assert self._client.wait_for_server(180.0)
        accepted = self._client.send_goal_async(goal)
        wait_until(accepted.done, "the goal")
        result = accepted.result().get_result_async()
        wait_until(result.done, "the result")
        return result.result().result

    def last_status(self, text: str) -> CommandStatus:
        """Gives a command that is answered from memory; returns its second status."""
        accepted = self.watcher.say(text)
        assert accepted.state == CommandStatus.ACCEPTED, accepted.message
        return wait_until(lambda: self.watcher.statuses(accepted.command_id)[1:], f"an answer to {text!r}")[0]


@contextmanager
def running_robot(log: Path, namespace: str, *parameters: str) -> Iterator[Robot]:
    prefix = f"/{namespace}"
    topics = [
        f"image_topic:={prefix}/color/image_raw",
        f"depth_topic:={prefix}/depth/image_raw",
        f"camera_info_topic:={prefix}/color/camera_info",
    ]
    with (
        running_referring(log, namespace, [*topics, *parameters]) as (node, watcher),
        Talker.camera(prefix) as camera,
    ):
        yield Robot(node, watcher, camera)
