# SPDX-License-Identifier: Apache-2.0
"""The memory of the ``referring`` node: what it saw is recalled when it is out of view, moved, or gone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.time import Time
from visualization_msgs.msg import Marker, MarkerArray

from clip_seg_ros.action import FindObject
from clip_seg_ros.msg import CommandStatus, RememberedObjectArray
from clip_seg_ros.nodes.common.qos import LATCHED, RELIABLE
from clip_seg_ros.nodes.services.memory_keeper import SWITCHED_OFF
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.srv import Recall
from goal_client import GoalClient
from remembering_robot import DAY_S, FIXED, NEAR_M, Robot, Views, off_m, rendered_views, running_robot, true_position
from ros_harness import NodeProcess, Watcher, wait_until

WHERE = "where did you last see the red cup?"
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def views() -> Views:
    return rendered_views()


@pytest.fixture(scope="module")
def running(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    with running_robot(tmp_path_factory.mktemp("robot") / "log", "robot", f"target_frame:={FIXED}") as robot:
        yield robot


@pytest.fixture
def robot(running: Robot, views) -> Robot:
    """A robot that has seen the cups and looks for them."""
    running.watcher.say("forget everything")
    running.watcher.say("find the red cup, the blue cup")
    running.show(views.there, lambda: running.remembers("red cup"), "the cup to be remembered")
    return running


def test_what_was_seen_is_recalled_with_its_place(robot, views):
    robot.look_away(views.away)
    answer = robot.recall("the cups")
    assert answer.success, answer.message
    assert answer.header.frame_id == FIXED
    assert {item.phrase for item in answer.objects} == {"red cup", "blue cup"}
    for item in answer.objects:
        assert off_m(item, true_position(views.there, *item.phrase.split())) < NEAR_M
        assert item.has_box
        assert item.box_size.x >= item.box_size.y > 0
        assert Time.from_msg(item.first_seen) <= Time.from_msg(item.last_seen)
        picture = cv2.imdecode(np.frombuffer(item.view.data, np.uint8), cv2.IMREAD_COLOR)
        assert 0 < max(picture.shape[:2]) <= 160
    (red,) = robot.recall("red cup").objects
    away_m = math.dist((0, 0, 0), (red.position.x, red.position.y, red.position.z))
    said = robot.recall("red cup").message
    assert f"red cup: {away_m:.1f} m away, last seen" in said or f"red cup: {100 * away_m:.0f} cm away" in said


def test_what_is_gone_is_forgotten_and_the_topic_says_so(robot, views):
    before = len(robot.memory)
    robot.show(views.gone, lambda: not robot.remembers("red cup"), "the cup to be forgotten")
    names = wait_until(
        lambda: [
            named
            for message in robot.memory[before:]
            if "red cup" not in (named := [item.phrase for item in message.objects])
        ],
        "the topic",
    )[0]
    assert "blue cup" in names
    assert all(message.header.frame_id == FIXED for message in robot.memory[before:])
    nothing = robot.recall("red cup")
    assert nothing.success
    assert nothing.message.startswith("no red cup is remembered")


def test_markers_show_what_is_out_of_view(robot, views):
    before = len(robot.markers)
    robot.look_away(views.away)

    def marked() -> list[MarkerArray]:
        return [each for each in robot.markers[before:] if "red cup" in [marker.text for marker in each.markers]]

    (message, *_) = wait_until(marked, "markers")
    assert message.markers[0].action == Marker.DELETEALL
    assert {marker.ns for marker in message.markers[1:]} == {"remembered_names", "remembered_boxes"}
    assert {marker.header.frame_id for marker in message.markers} == {FIXED}
    boxes = [marker for marker in message.markers if marker.type == Marker.CUBE]
    assert all(box.color.r == box.color.g == box.color.b for box in boxes)
    robot.show(views.there, lambda: robot.markers[-1].markers[1:] == [], "no markers, as both are in view")


def test_a_late_listener_gets_the_memory_at_once(robot):
    newcomer = robot.watcher.hear(RememberedObjectArray, "memory", LATCHED)
    wait_until(lambda: newcomer, "the latched memory")
    assert "red cup" in [item.phrase for item in newcomer[0].objects]
    assert all(not item.view.data for item in newcomer[0].objects)


def test_a_goal_is_answered_from_memory(robot, views):
    robot.look_away(views.away)
    (cup,) = robot.recall("red cup").objects
    found = robot.find("the red cup", DAY_S)
    assert found.found
    assert found.remembered
    assert found.header.stamp == cup.last_seen
    assert found.header.frame_id == FIXED
    assert found.object.prompt == "red cup"
    assert found.object.position == cup.position
    assert found.object.has_box
    assert found.object.box_pose == cup.box_pose
    assert found.object.area == found.object.x_max == 0
    assert math.isnan(found.object.centroid_x)
    assert "last seen" in found.message
    assert found.message.endswith("from memory")


@pytest.mark.parametrize(
    ("phrase", "max_age_s", "words"),
    [
        ("purple bowl", DAY_S, "no purple bowl that was seen within 86400 s is remembered"),
        ("red cup", 1e-9, "no red cup that was seen within 1e-09 s is remembered"),
        ("leftmost cup", DAY_S, "places, order and what is left out are not decided from memory"),
        ("red cup", -1.0, "max_age must not be negative"),
    ],
)
def test_a_goal_that_memory_cannot_answer_says_why(robot, views, phrase, max_age_s, words):
    robot.look_away(views.away)
    found = robot.find(phrase, max_age_s, timeout_s=0.2)
    assert not found.found
    assert not found.remembered
    assert words in found.message


def test_what_goals_find_is_remembered_too(robot, views):
    robot.watcher.say("stop")
    robot.watcher.say("forget everything")
    client = GoalClient(robot.watcher, FindObject, "find_object")
    assert client.wait_for_server(180.0)
    accepted = client.send_goal_async(FindObject.Goal(phrase="blue cup", timeout=Duration(seconds=3600).to_msg()))
    result = wait_until(accepted.done, "the goal") and accepted.result().get_result_async()
    wait_until(lambda: robot.camera.send_view(views.there, FIXED) and result.done(), "the blue cup")
    assert result.result().result.found
    wait_until(lambda: robot.remembers("blue cup"), "the blue cup in memory")
    client.destroy()


def test_commands_are_answered_from_memory_and_disturb_nothing(robot, views):
    robot.look_away(views.away)
    found = robot.last_status(WHERE)
    assert found.state == CommandStatus.FOUND
    assert found.header.frame_id == FIXED
    assert found.message.startswith("red cup: ")
    assert "last seen" in found.message
    assert (list(found.prompts), list(found.found)) == (["red cup"], ["red cup"])
    everything = robot.last_status("what have you seen?")
    assert everything.state == CommandStatus.FOUND
    assert "red cup: " in everything.message
    assert "blue cup: " in everything.message
    missing = robot.last_status("have you seen a purple book?")
    assert missing.state == CommandStatus.NOT_FOUND
    assert missing.message.startswith("no purple book is remembered; 2 things are in memory")
    assert list(robot.look(views.there).prompts) == ["red cup", "blue cup"], "what was looked for goes on"


def test_where_is_looks_and_tells_what_is_remembered(robot, views):
    robot.show(views.away, lambda: "last seen" in robot.watcher.say("where is the red cup?").message, "the cup's past")


def test_forgetting(robot, views):
    robot.look_away(views.away)
    done = robot.last_status("forget the red cup")
    assert done.state == CommandStatus.DONE
    assert done.message == "forgot one thing: red cup"
    assert not robot.remembers("red cup")
    assert robot.remembers("blue cup")
    for command in ("stop", "clear"):
        assert robot.watcher.say(command).state == CommandStatus.ACCEPTED
        assert robot.remembers("blue cup")
    assert robot.last_status("forget everything").message == "forgot one thing: blue cup"
    nothing = robot.recall()
    assert nothing.success
    assert not nothing.objects
    assert nothing.message.startswith("nothing is remembered yet")
    assert robot.last_status("forget the red cup").state == CommandStatus.DONE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("where did you last see the redcup?", 'did you mean "where did you last see the red cup?"'),
        ("where did you lst see the red cup?", 'did you mean "where did you last see the red cup"?'),
        ("recall the cup left of the box", 'type "recall cup"'),
        ("where did you last see?", "needs a phrase after it"),
    ],
)
def test_what_is_not_understood_is_rejected_with_a_hint(robot, text, words):
    refused = robot.watcher.say(text)
    assert refused.state == CommandStatus.REJECTED
    assert words in refused.message


@pytest.mark.parametrize(
    ("phrase", "max_age_s", "words"),
    [
        ("the cup left of the box", 0.0, 'type "recall cup"'),
        ('"', 0.0, "a quote is not closed"),
        ("cup " * 200, 0.0, "type at most 500"),
        ("red cup", -1.0, "max_age must not be negative"),
    ],
)
def test_a_wrong_call_says_what_to_do(robot, phrase, max_age_s, words):
    refused = robot.recall(phrase, max_age_s)
    assert not refused.success
    assert words in refused.message
    assert not refused.objects
    assert robot.remembers("red cup"), "the node lives on"


def test_an_age_leaves_out_what_was_seen_before(robot):
    assert robot.recall("red cup", DAY_S).objects
    none = robot.recall("red cup", 1e-9)
    assert none.success
    assert "no red cup that was seen within" in none.message
    assert not none.objects


def test_a_clock_that_is_set_back_forgets_nothing(robot, views):
    stamps = [1000 * SECOND]

    def send_early(view: RenderedView) -> int:
        stamps.append(stamps[-1] + SECOND)
        return robot.camera.send_view(view, FIXED, stamps[-1])

    robot.look(views.away, send_early)
    assert robot.remembers("red cup")

    def seen_again() -> bool:
        robot.look(views.there, send_early)
        (cup,) = robot.recall("red cup").objects
        return Time.from_msg(cup.last_seen).nanoseconds in stamps

    wait_until(seen_again, "a sighting with an early stamp")


def test_it_can_be_switched_off(robot, views):
    assert robot.watcher.set_parameter("referring", "remember", "never").successful
    try:
        assert robot.recall("red cup").message == SWITCHED_OFF
        refused = robot.watcher.say(WHERE)
        assert refused.state == CommandStatus.REJECTED
        assert not robot.find("red cup", DAY_S, timeout_s=0.2).remembered
    finally:
        assert robot.watcher.set_parameter("referring", "remember", "auto").successful
    assert robot.remembers("red cup"), "what was seen before is kept"


def test_diagnostics_tell_what_memory_holds_and_costs(robot):
    heard = robot.watcher.hear(DiagnosticArray, "/diagnostics", RELIABLE)

    def values() -> dict[str, str]:
        told = [status for message in heard for status in message.status if status.name == "robot/referring: model"]
        return {pair.key: pair.value for pair in told[-1].values} if told else {}

    wait_until(lambda: values().get("things remembered") == "2", "diagnostics")
    assert float(values()["memory, ms an image, 50th percentile"]) > 0


def test_without_a_fixed_frame_everything_says_what_to_set(referring, watcher):
    advice = "nothing is remembered: set target_frame to a frame that does not move, such as map"
    refused = watcher.call(Recall, "recall", Recall.Request(phrase="red cup"))
    assert not refused.success
    assert refused.message == advice
    for text in (WHERE, "what have you seen?", "forget the red cup"):
        rejected = watcher.say(text)
        assert rejected.state == CommandStatus.REJECTED
        assert rejected.message == advice
    assert 'type "clear"' in watcher.say("forget everything").message


def test_a_node_that_is_not_active_says_so(ros, log):
    node = NodeProcess("referring", log, [f"target_frame:={FIXED}", "autostart:=false"], namespace="idle")
    watcher = Watcher("idle")
    try:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert watcher.call(ChangeState, "referring/change_state", request, again_s=3600.0).success
        refused = watcher.call(Recall, "recall", Recall.Request())
        assert not refused.success
        assert refused.message == "the node is not active: activate it first"
    finally:
        watcher.close()
        assert node.end() == 0, node.said()
