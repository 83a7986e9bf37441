# SPDX-License-Identifier: Apache-2.0
"""The action ``find_object``: looks for an object until it is seen, the time is up or the goal is cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.duration import Duration
from std_msgs.msg import Header

from clip_seg_ros.action import FindObject
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.qos import ACTION
from clip_seg_ros.nodes.common.rclpy_internals import CountingActionServer
from clip_seg_ros.nodes.outputs.topics import no_object_message, object_message
from clip_seg_ros.pipeline.naming import as_commands_say, reference_of
from clip_seg_ros.types import ObjectRegion

if TYPE_CHECKING:
    from clip_seg_ros.nodes.camera.camera_input import CameraJob

DEFAULT_TIMEOUT_S = 10.0
MAX_SEARCHES = 8
"""The largest number of goals at once. Each occupies a thread of the node's executor as long as it lasts."""
_PERIOD_S = 0.05
"""Period in seconds at which a goal checks whether it was cancelled."""
_DEACTIVATED = "the node was deactivated"
_RESULTS_KEPT_S = 60
"""Time in seconds for which the result of a goal is kept for clients that have not requested it yet."""


class Search:
    """The state of one goal. The worker's thread writes it, and the goal's thread reads it."""

    def __init__(self, phrase: str, camera: str) -> None:
        self.phrase, self.camera = as_commands_say(phrase), camera
        self.reference = reference_of(phrase)
        self.sentence = ""
        """Why it was not found in the last image, of a phrase with places, order or number."""
        self.unknown = ""
        """Why it was not answered from memory; empty if it was not to be."""
        self.images = 0
        self.best_score = 0.0
        self.seen: FindObject.Result | None = None
        self.fault = ""
        """Why the phrase can never be found; empty if it can."""
        self.news = threading.Event()

    def look(
        self, job: CameraJob, best_score: float, best: ObjectRegion | None, frame_id: str, sentence: str = ""
    ) -> None:
        """Notes the result of one image.

        Args:
            job: The image.
            best_score: The highest probability of a pixel, 0..1.
            best: The best object, with its position in ``frame_id``; ``None`` if nothing was found.
            frame_id: The frame of the image, or the target frame.
            sentence: What was found, or why nothing, of a phrase with places, order or number.
        """
        self.images += 1
        self.best_score = max(self.best_score, best_score)
        self.sentence = sentence
        if best is not None:
            where = f" by {job.camera.name}" if job.camera.name else ""
            self.seen = FindObject.Result(
                found=True,
                message=f"{self.phrase}: found{where}, score {best.score:.2f}" + (f"; {sentence}" if sentence else ""),
                header=Header(stamp=job.image.header.stamp, frame_id=frame_id),
                camera=job.camera.name,
                object=object_message(best),
            )
        self.news.set()

    def fail(self, why: str) -> None:
        """Gives up the goal."""
        self.fault = why
        self.news.set()


class Finder:
    """Runs the goals of the action, independently of each other and of commands.

    Args:
        core: The objects that the parts of the node share.
        cameras: Returns the names of the present cameras.
        with_caution: Returns an answer with what is to be told of the model's weights.
        remembered: Returns the answer to a goal from memory, or why there is none; empty if the camera is to look.
    """

    def __init__(
        self,
        core: NodeCore,
        cameras: Callable[[], Sequence[str]],
        with_caution: Callable[[str], str],
        remembered: Callable[[FindObject.Goal, Reference], FindObject.Result | str],
    ) -> None:
        self._core, self._cameras, self._with_caution = core, cameras, with_caution
        self._remembered = remembered
        self._server: CountingActionServer | None = None
        self._searches: list[Search] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Creates the action server."""
        calls = self._core.calls
        self._server = CountingActionServer(
            self._core.node,
            FindObject,
            "find_object",
            self._run,
            callback_group=calls.group(reentrant=True),
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            result_timeout=_RESULTS_KEPT_S,
            goal_service_qos_profile=ACTION,
            result_service_qos_profile=ACTION,
            cancel_service_qos_profile=ACTION,
        )
        calls.also_wait_for(self._server.unsent)

    def close(self) -> None:
        """Destroys the action server."""
        with self._lock:
            self._searches = []
        if self._server is not None:
            self._server.destroy()
            self._server = None

    def is_looking(self) -> bool:
        """Returns whether any goal is in progress."""
        return bool(self._searches)

    def searches(self, camera: str) -> list[Search]:
        """Returns the goals that need images of this camera."""
        with self._lock:
            return [search for search in self._searches if search.camera in ("", camera) and search.seen is None]

    def _begin(self, goal: FindObject.Goal) -> Search | str:
        """Starts a search and returns it, or why there is none."""
        names = self._cameras()
        if refusal := self._core.refusal():
            return refusal
        if Duration.from_msg(goal.timeout).nanoseconds < 0:
            return f"the timeout must not be negative: 0 stands for {DEFAULT_TIMEOUT_S:g} s"
        if Duration.from_msg(goal.max_age).nanoseconds < 0:
            return "max_age must not be negative: 0 stands for no answer from memory"
        if not goal.phrase.strip():
            return 'the phrase is empty: name what to look for, for example "red cup"'
        if goal.camera and goal.camera not in names:
            known = f"the cameras are {', '.join(names)}" if any(names) else "the only camera has no name"
            return f'there is no camera "{goal.camera}": {known}; leave it empty for any'
        try:
            search = Search(goal.phrase, goal.camera)
        except ValueError as error:
            return str(error)
        with self._lock:
            if len(self._searches) >= MAX_SEARCHES:
                return f"{MAX_SEARCHES} goals are under way already: try again later"
            self._searches.append(search)
        return search

    def _end(self, search: Search) -> None:
        with self._lock:
            if search in self._searches:
                self._searches.remove(search)

    def _run(self, goal: ServerGoalHandle) -> FindObject.Result:
        """Runs a goal to its end, on a thread of the executor."""
        try:
            search = self._begin(goal.request)
            if isinstance(search, str):
                # The goal is accepted and then aborted, because a refusal cannot say why.
                goal.abort()
                return _nothing_found(search)
            try:
                known = self._remembered(goal.request, search.reference)
                if isinstance(known, FindObject.Result):
                    goal.succeed()
                    return known
                search.unknown = known
                result = self._watch(goal, search)
            finally:
                self._end(search)
            if search.images:
                result.message = self._with_caution(result.message)
            return result
        except RuntimeError:  # the type of rclpy's errors
            if self._core.node.context.ok():
                raise
            # The process ends, and nobody can be informed any more.
            goal.destroy()
            return _nothing_found("the node ended")

    def _watch(self, goal: ServerGoalHandle, search: Search) -> FindObject.Result:
        """Waits until a search ends."""
        timeout_s = Duration.from_msg(goal.request.timeout).nanoseconds * 1e-9 or DEFAULT_TIMEOUT_S
        # The deadline is in monotonic time, because simulated time may stand still.
        deadline_s = time.monotonic() + timeout_s
        why = f"not found within {timeout_s:g} s"
        while time.monotonic() < deadline_s:
            if search.news.wait(_PERIOD_S):
                search.news.clear()
                goal.publish_feedback(FindObject.Feedback(images=search.images, best_score=search.best_score))
            if goal.is_cancel_requested:
                goal.canceled()
                return _nothing_found(f"{search.phrase}: cancelled after {search.images} images")
            if search.seen is not None:
                goal.succeed()
                return search.seen
            why_not = search.fault or self._core.calls.refusal or ("" if self._core.active else _DEACTIVATED)
            if why_not:
                why = why_not
                break
        goal.abort()
        seen = f"{search.images} images, best score {search.best_score:.2f}"
        seen += f"; in the last one: {search.sentence}" if search.sentence else ""
        seen += f"; {search.unknown}" if search.unknown else ""
        return _nothing_found(f"{search.phrase}: {why}; {seen}")


def _nothing_found(why: str) -> FindObject.Result:
    return FindObject.Result(message=why, object=no_object_message())
