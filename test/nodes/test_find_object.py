# SPDX-License-Identifier: Apache-2.0
"""The action ``find_object`` of the ``referring`` node."""

from __future__ import annotations

import math
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rclpy.action.client import ClientGoalHandle
from rclpy.duration import Duration
from std_msgs.msg import Header

from clip_seg_ros.action import FindObject
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.qos import ACTION
from clip_seg_ros.nodes.services.finder import MAX_SEARCHES, Search
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.types import ObjectRegion
from goal_client import GoalClient
from ros_harness import NodeProcess, Talker, Watcher, running_referring, stamp_ns, wait_until

LONG_S = 3600.0
"""Of goals: whoever waits for the end of one that is not ended gives up long before."""
STORM = 200
"""Goals at once."""


@dataclass
class Goal:
    """A goal that was accepted."""

    handle: ClientGoalHandle
    feedback: list[FindObject.Feedback] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._result = self.handle.get_result_async()

    def is_over(self) -> bool:
        return self._result.done()

    def end(self, patience_s: float = 180.0) -> tuple[int, FindObject.Result]:
        """Its status and its result."""
        wait_until(self.is_over, "the result", patience_s)
        return self._result.result().status, self._result.result().result

    def cancel(self) -> None:
        future = self.handle.cancel_goal_async()
        wait_until(future.done, "the answer to cancel")


Finder = Callable[..., Goal]


def finder_of(watcher: Watcher) -> tuple[Finder, list[Goal]]:
    client = GoalClient(watcher, FindObject, "find_object")
    assert client.wait_for_server(180.0)
    goals: list[Goal] = []

    def find(phrase: str, timeout_s: float = LONG_S, camera: str = "") -> Goal:
        feedback: list[FindObject.Feedback] = []
        request = FindObject.Goal(phrase=phrase, timeout=Duration(seconds=timeout_s).to_msg(), camera=camera)
        future = client.send_goal_async(request, lambda message: feedback.append(message.feedback))
        wait_until(future.done, "the goal to be accepted")
        assert future.result().accepted
        goals.append(Goal(future.result(), feedback))
        return goals[-1]

    return find, goals


@pytest.fixture(scope="module")
def finder(shared_referring: NodeProcess, watcher: Watcher) -> tuple[Finder, list[Goal]]:
    return finder_of(watcher)


@pytest.fixture
def find(referring: NodeProcess, finder: tuple[Finder, list[Goal]]) -> Iterator[Finder]:
    """Sends a goal to the shared node; ends with none under way."""
    start, goals = finder
    yield start
    for goal in goals:
        if not goal.is_over():
            goal.cancel()
            goal.end()
    goals.clear()


def show(camera: Talker, view, until: Callable[[], object], what: str) -> list[int]:
    """Sends a view again and again; returns the stamps."""
    stamps: list[int] = []

    def happened() -> object:
        stamps.append(camera.send_view(view))
        time.sleep(0.1)
        return until()

    wait_until(happened, what)
    return stamps


def test_what_is_there_is_found(find, watcher, view):
    goal = find("the Red Cup")
    with Talker.camera() as camera:
        stamps = show(camera, view, goal.is_over, "the cup to be found")
    status, result = goal.end()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.found
    assert result.message.startswith("red cup: found, score 0.9")
    assert result.camera == ""
    assert stamp_ns(result) in stamps
    assert result.header.frame_id == "camera_color_optical_frame"
    mask = view.mask_of("red", "cup")
    region = ObjectRegion.of_mask("red cup", 1, 1.0, mask)
    expected_m = locate(region, view.depth_m, view.intrinsics)
    place = result.object.position
    assert result.object.prompt == "red cup"
    assert result.object.has_position
    assert math.dist((place.x, place.y, place.z), expected_m) < 0.03
    assert not watcher.seen["mask"], "a goal is no command"


def test_a_place_is_looked_for(find, cups):
    masks = [cups.labels == number for number, item in enumerate(cups.objects, start=1) if item.kind == "cup"]
    left = min(masks, key=lambda mask: np.nonzero(mask)[1].mean())
    goal = find("the leftmost cup")
    with Talker.camera() as camera:
        show(camera, cups, goal.is_over, "the cup to be found")
    status, result = goal.end()
    assert status == GoalStatus.STATUS_SUCCEEDED, result.message
    assert result.object.prompt == "leftmost cup"
    rows, columns = np.nonzero(left)
    assert abs(result.object.centroid_x - columns.mean()) < 8
    assert abs(result.object.centroid_y - rows.mean()) < 8


def test_what_is_not_there_is_given_up_in_time(find, view):
    with Talker.camera() as camera:
        start = time.monotonic()
        goal = find("blue ball", timeout_s=6.0)
        show(camera, view, goal.is_over, "the end of the goal")
        took_s = time.monotonic() - start
    status, result = goal.end()
    assert status == GoalStatus.STATUS_ABORTED
    assert not result.found
    assert took_s >= 6.0
    told = re.match(r"blue ball: not found within 6 s; (\d+) images, best score 0\.\d\d(; |$)", result.message)
    assert told, result.message
    counts = [feedback.images for feedback in goal.feedback]
    assert counts == sorted(set(counts)), "feedback comes once an image"
    # The last image may be answered while the time runs out, and then only the result counts it.
    assert 1 <= counts[-1] <= int(told[1])
    assert all(0.0 <= feedback.best_score <= 0.5 for feedback in goal.feedback)


def test_without_a_camera_nothing_was_looked_at(find):
    status, result = find("red cup", timeout_s=0.5).end()
    if "; 0 images" not in result.message:  # an image of the test before was still on its way
        status, result = find("red cup", timeout_s=0.5).end()
    assert status == GoalStatus.STATUS_ABORTED
    assert "within 0.5 s; 0 images" in result.message
    place = result.object.position
    assert not result.object.has_position
    assert all(map(math.isnan, (place.x, place.y, place.z)))


def test_time_is_up_where_a_simulations_clock_stands_still(ros, log):
    with running_referring(log, "still", ["use_sim_time:=true", "image_topic:=/still/image"]) as (_, watcher):
        find, _ = finder_of(watcher)
        status, result = find("red cup", timeout_s=0.5).end()
    assert status == GoalStatus.STATUS_ABORTED
    assert "not found within 0.5 s" in result.message


def test_hundreds_of_goals_and_cancels_at_once_each_get_a_result(referring, watcher):
    client = GoalClient(
        watcher,
        FindObject,
        "find_object",
        goal_service_qos_profile=ACTION,
        result_service_qos_profile=ACTION,
        cancel_service_qos_profile=ACTION,
    )
    assert client.wait_for_server(180.0)
    finder_of(watcher)[0]("warm", timeout_s=0.1).end()  # and so the node knows this watcher
    time.sleep(1.0)
    tasks = Path(f"/proc/{referring.process.pid}/task")
    request = FindObject.Goal(phrase="blue ball", timeout=Duration(seconds=600.0).to_msg())
    threads = []
    for _ in range(3):
        accepted = [client.send_goal_async(request) for _ in range(STORM)]
        wait_until(lambda: all(future.done() for future in accepted), "all to be accepted")
        handles = [future.result() for future in accepted]
        assert all(handle.accepted for handle in handles)
        results = [handle.get_result_async() for handle in handles]
        cancels = [handle.cancel_goal_async() for handle in handles for _ in range(2)]
        wait_until(lambda: all(future.done() for future in (*results, *cancels)), "all results")
        statuses = Counter(future.result().status for future in results)
        assert statuses.keys() <= {GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED}, statuses
        assert statuses[GoalStatus.STATUS_CANCELED] >= 1
        threads.append(len(list(tasks.iterdir())))
    # The executor starts its threads one by one, as they are needed.
    assert threads[2] < threads[0] + STORM / 10
    assert referring.process.poll() is None
    assert watcher.say("segment the red cup").state == CommandStatus.ACCEPTED


def test_a_goal_can_be_cancelled_and_the_node_goes_on(find, watcher, view):
    goal = find("blue ball")
    with Talker.camera() as camera:
        show(camera, view, lambda: goal.feedback, "feedback")
        goal.cancel()
        status, result = goal.end()
        assert status == GoalStatus.STATUS_CANCELED
        assert not result.found
        assert result.message.startswith("blue ball: cancelled after ")
        assert watcher.say("segment the red cup").state == CommandStatus.ACCEPTED
        watcher.of_stamp("mask", camera.send_view(view))


@pytest.mark.parametrize(
    ("phrase", "camera", "words"),
    [
        ("  ", "", 'the phrase is empty: name what to look for, for example "red cup"'),
        ("x" * 501, "", "a phrase has at most 500 characters, got one of 501"),
        ("the cup left of the", "", '"left of" needs a thing after it: type for example "the cup left of the box"'),
        ("cup", "left", 'there is no camera "left": the only camera has no name; leave it empty for any'),
    ],
)
def test_a_goal_that_makes_no_sense_is_aborted_with_the_reason(find, phrase, camera, words):
    status, result = find(phrase, camera=camera).end()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.message == words


def test_a_negative_timeout_is_refused(find):
    status, result = find("cup", timeout_s=-3.0).end()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.message == "the timeout must not be negative: 0 stands for 10 s"


def test_goals_and_commands_do_not_change_each_other(find, watcher, view):
    """Not even where the command leaves out what a goal looks for."""
    watcher.say("segment the ball, not the red one, and not the red cup")
    cup, nothing = find("red cup"), find("blue ball")
    with Talker.camera() as camera:
        show(camera, view, cup.is_over, "the cup to be found")
        before = len(watcher.seen["objects"])
        show(camera, view, lambda: len(watcher.seen["objects"]) >= before + 2, "answers to the command")
    assert cup.end()[0] == GoalStatus.STATUS_SUCCEEDED
    assert not nothing.is_over()
    assert nothing.feedback[-1].images > 1
    for message in watcher.seen["objects"]:
        assert list(message.prompts) == ["ball"]
        assert {item.prompt for item in message.objects} == {"ball"}


def test_as_many_goals_as_there_may_be_leave_the_node_responsive(find, watcher, view):
    goals = [find("blue ball") for _ in range(MAX_SEARCHES)]
    status, result = find("red cup").end()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.message == f"{MAX_SEARCHES} goals are under way already: try again later"
    command = watcher.say("segment the red cup")
    with Talker.camera() as camera:
        show(camera, view, lambda: watcher.seen["mask"], "a mask")
        assert watcher.outcome(command.command_id).state == CommandStatus.FOUND
    assert not any(goal.is_over() for goal in goals)
    goals[0].cancel()
    assert goals[0].end()[0] == GoalStatus.STATUS_CANCELED
    with Talker.camera() as camera:
        found = find("red cup")
        show(camera, view, found.is_over, "the cup to be found")
    assert found.end()[1].found


def test_a_position_in_another_frame_leaves_the_image_alone():
    header = Header(stamp=Time(sec=3, nanosec=4), frame_id="camera")
    job = SimpleNamespace(image=SimpleNamespace(header=header), camera=SimpleNamespace(name="left"))
    region = ObjectRegion.of_mask("cup", 1, 0.8, np.ones((2, 3), np.bool_), (0.1, 0.2, 0.3))
    search = Search("cup", "")
    search.look(job, 0.4, None, "camera")
    assert search.seen is None
    assert (search.images, search.best_score) == (1, 0.4)
    search.look(job, 0.9, region, "map")
    assert search.seen.header == Header(stamp=header.stamp, frame_id="map")
    assert header.frame_id == "camera"
    assert (search.seen.camera, search.seen.message) == ("left", "cup: found by left, score 0.80")
    assert search.images == 2
    assert search.best_score == 0.9


def test_a_node_that_ends_does_not_wait_for_goals(ros, log):
    node = NodeProcess("referring", log, namespace="ending")
    watcher = Watcher("ending")
    try:
        find, _ = finder_of(watcher)
        goal = find("red cup")
        wait_until(lambda: goal.handle.status == GoalStatus.STATUS_EXECUTING, "the goal to be under way")
        assert node.end(signal.SIGINT) == 0
        assert "Traceback" not in node.said()
        assert "rror" not in node.said()
    finally:
        watcher.close()
        node.end(signal.SIGKILL)
