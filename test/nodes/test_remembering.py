# SPDX-License-Identifier: Apache-2.0
"""The memory of the ``referring`` node: what it saw is recalled when it is out of view, moved, or gone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.time import Time
from visualization_msgs.msg import Marker, MarkerArray

from clip_seg_ros.action import FindObject
from clip_seg_ros.msg import CommandStatus, RememberedObject, RememberedObjectArray, SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import LATCHED, RELIABLE
from clip_seg_ros.nodes.services.memory_keeper import SWITCHED_OFF
from clip_seg_ros.pipeline.space.fixed_frame import moved_points
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, Scene, sample_scene
from clip_seg_ros.srv import Recall
from clip_seg_ros.types import ObjectRegion
from goal_client import GoalClient
from ros_harness import PATIENCE_S, NodeProcess, Talker, Watcher, running_referring, stamp_ns, wait_until

FIXED = "map"
NEAR_M = 0.02
WHERE = "where did you last see the red cup?"
SECOND = 1_000_000_000
DAY_S = 86400.0
AGAIN_S = 5.0
"""Time in seconds after which an image got lost: subscriptions to cameras are best effort."""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return sample_scene(3, required=[("red", "cup"), ("blue", "cup")], objects=(4, 5))


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


@pytest.fixture(scope="module")
def views(scene) -> Views:
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


def test_a_second_process_remembers_what_the_first_one_saw(ros, tmp_path, views):
    path = tmp_path / "memory.json"
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "first", "first", *parameters) as robot:
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
        robot.look_away(views.away)
        (before,) = robot.recall("red cup").objects
    with running_robot(tmp_path / "second", "second", *parameters[:2]) as robot:
        (after,) = robot.recall("red cup").objects
        assert after == before
        assert robot.find("red cup", DAY_S).remembered
        (latched,) = wait_until(lambda: robot.memory[:1], "the latched memory")
        assert [item.phrase for item in latched.objects] == ["red cup"]
        assert "at (" in robot.recall("red cup").message, "no camera is known yet"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged or no memory of objects"),
        ('{"format": "clip_seg_ros object memory", "version": 1, "frame_id": "odom"}', "positions in the frame 'odom'"),
    ],
)
def test_a_file_of_no_use_is_a_fault_and_is_kept(ros, tmp_path, views, content, words):
    path = tmp_path / "memory.json"
    path.write_text(content)
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "log", "damaged", *parameters) as robot:
        heard = robot.watcher.hear(DiagnosticArray, "/diagnostics", RELIABLE)
        assert words in robot.node.said()
        assert "Before it is saved, this file becomes memory.json.kept-1" in robot.node.said()
        wait_until(
            lambda: any(words in status.message for message in heard for status in message.status), "the diagnostics"
        )
        assert path.read_text() == content
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
    assert path.with_name("memory.json.kept-1").read_text() == content
    assert [item["phrase"] for item in json.loads(path.read_text())["objects"]] == ["red cup"]


def test_a_file_that_cannot_be_written_is_a_fault(ros, tmp_path, views):
    path = tmp_path / "missing" / "memory.json"
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "log", "folderless", *parameters) as robot:
        assert f"the folder {path.parent} does not exist, so that nothing can be kept: create it" in robot.node.said()
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
    assert f"what is remembered cannot be written to {path}" in (tmp_path / "log").read_text()


def test_a_camera_that_moves_remembers_in_the_fixed_frame(ros, tmp_path, views):
    """The camera goes round the table, by tf2: each thing is remembered once, and where it is in the world."""
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    from clip_seg_ros.nodes.common.qos import TRANSFORMS
    from clip_seg_ros.pipeline.space.oriented_box import quaternion

    def told(view: RenderedView, stamp: int) -> TFMessage:
        transform = TransformStamped(child_frame_id="eye")
        transform.header.frame_id, transform.header.stamp = FIXED, Time(nanoseconds=stamp).to_msg()
        matrix, part = view.camera_to_world, transform.transform
        part.translation.x, part.translation.y, part.translation.z = map(float, matrix[:3, 3])
        part.rotation.x, part.rotation.y, part.rotation.z, part.rotation.w = map(float, quaternion(matrix[:3, :3]))
        return TFMessage(transforms=[transform])

    parameters = [f"target_frame:={FIXED}", "initial_command:='find the red cup, the blue cup'"]
    with (
        running_robot(tmp_path / "log", "mover", *parameters) as robot,
        Talker({"tf": (TFMessage, "/tf")}, TRANSFORMS) as transforms,
    ):
        stamp = robot.camera._node.get_clock().now().nanoseconds

        def send(view: RenderedView) -> int:
            """Shows a view from where its camera is."""
            nonlocal stamp
            stamp += 10 * SECOND
            for shift in (-SECOND, SECOND):
                transforms.publishers["tf"].publish(told(view, stamp + shift))
            return robot.camera.send_view(view, "eye", stamp)

        def look(view: RenderedView) -> str:
            """Returns the frame of the positions."""
            return robot.look(view, send).position_frame

        wait_until(lambda: look(views.there) == FIXED and robot.remembers("red cup"), "a transform")
        truths = {
            name: moved_points(views.there.camera_to_world, true_position(views.there, *name.split()))
            for name in ("red cup", "blue cup")
        }
        for item in robot.recall("cup").objects:
            assert off_m(item, truths[item.phrase]) < NEAR_M
        ids = {item.phrase: item.id for item in robot.recall("cup").objects}
        assert ids.keys() == truths.keys()
        for _ in range(2):
            wait_until(lambda: look(views.away) == FIXED, "a transform")
        found = robot.find("red cup", DAY_S)
        assert found.remembered
        eye = views.away.camera_to_world[:3, 3]
        away_m = math.dist(eye, (found.object.position.x, found.object.position.y, found.object.position.z))
        assert f"red cup: {away_m:.1f} m away" in found.message or f"{100 * away_m:.0f} cm away" in found.message

        def seen_from_there() -> bool:
            look(views.round_the_table)
            recalled = robot.recall("cup").objects
            return min(Time.from_msg(item.last_seen).nanoseconds for item in recalled) > turned

        turned = stamp
        wait_until(seen_from_there, "both cups from the other side")
        assert {item.phrase: item.id for item in robot.recall("cup").objects} == ids, "each is remembered once"
        for item in robot.recall("cup").objects:
            truth = moved_points(
                views.round_the_table.camera_to_world, true_position(views.round_the_table, *item.phrase.split())
            )
            assert off_m(item, truth) < NEAR_M
