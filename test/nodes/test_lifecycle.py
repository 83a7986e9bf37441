# SPDX-License-Identifier: Apache-2.0
"""A node in the hands of a lifecycle manager: what it does in each state, and that going round costs no memory."""

import re
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image

from clip_seg_ros import resources
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from ros_harness import Camera, NodeProcess, SemanticWatcher, wait_until

TOPIC = "/managed/image"
ROUNDS = 50
SETTLED_ROUNDS = 5
"""After which the memory is held to."""


class Manager:
    """Takes a node from state to state with the standard services."""

    def __init__(self, watcher):
        self._watcher = watcher

    def state(self):
        return self._watcher.call(GetState, "semantic/get_state", GetState.Request()).current_state.id

    def change(self, transition):
        """Returns whether the node says that it did it."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self._watcher.call(ChangeState, "semantic/change_state", request).success

    def configure(self):
        return self.change(Transition.TRANSITION_CONFIGURE)

    def activate(self):
        return self.change(Transition.TRANSITION_ACTIVATE)

    def deactivate(self):
        return self.change(Transition.TRANSITION_DEACTIVATE)

    def cleanup(self):
        return self.change(Transition.TRANSITION_CLEANUP)


@pytest.fixture(scope="module")
def managed_watcher(ros):
    node = SemanticWatcher("managed")
    yield node
    node.close()


@pytest.fixture(scope="module")
def manager(managed_watcher):
    return Manager(managed_watcher)


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory):
    """Empty at first."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def managed_node(managed_watcher, weights_folder, tmp_path_factory):
    """Waits for its manager; the model is the smallest."""
    log = tmp_path_factory.mktemp("managed") / "log"
    parameters = [
        "autostart:=false",
        "model:=maskclip",
        "classes:=[cup, table, floor]",
        f"image_topic:={TOPIC}",
        f"weights_dir:={weights_folder}",
    ]
    node = NodeProcess("semantic", log, parameters, namespace="managed")
    node.wait_said("waiting to be configured and activated by a lifecycle manager")
    yield node
    assert node.end() == 0, node.said()
    assert "Traceback" not in node.said(), node.said()


@pytest.fixture
def node(managed_node, managed_watcher, manager, weights_folder):
    """Unconfigured, with weights."""
    assert managed_node.process.poll() is None, managed_node.said()
    if manager.state() == State.PRIMARY_STATE_ACTIVE:
        manager.deactivate()
    if manager.state() == State.PRIMARY_STATE_INACTIVE:
        manager.cleanup()
    add_weights(weights_folder)
    return managed_node


def add_weights(folder):
    for file in resources.weights_dir().iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())


def test_a_configuration_that_failed_can_be_tried_again(managed_node, manager, managed_watcher, weights_folder):
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert not list(weights_folder.iterdir())
    assert not manager.configure()
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    said = managed_node.wait_said("configure failed: clip_pocket.safetensors of maskclip-pocket does not exist in")
    assert str(weights_folder) in said
    assert "Traceback" not in said
    add_weights(weights_folder)
    assert manager.configure()
    assert manager.state() == State.PRIMARY_STATE_INACTIVE


def test_there_are_outputs_only_while_the_node_is_active(node, manager, managed_watcher, view):
    labels, image = managed_watcher.seen["semantic/labels"], fill_image(Image(), view.rgb, "rgb8")
    assert managed_watcher.count_publishers("semantic/labels") == 0, "not configured"
    assert manager.configure()
    for _ in range(2):
        assert managed_watcher.count_subscribers(TOPIC) == 0, "not active"
        assert manager.activate()
        assert manager.state() == State.PRIMARY_STATE_ACTIVE
        managed_watcher.wait_for_node()
        with Camera(depth=False, topic=TOPIC) as camera:
            managed_watcher.of_stamp("semantic/labels", camera.send(image))
            # One that is being worked on when the order comes.
            camera.send(image)
            assert manager.deactivate()
            assert manager.state() == State.PRIMARY_STATE_INACTIVE
            published = len(labels)
            wait_until(lambda: managed_watcher.count_subscribers(TOPIC) == 0, "the node to stop listening")
            camera.send(image)
        assert manager.state() == State.PRIMARY_STATE_INACTIVE
        assert len(labels) == published
    assert manager.cleanup()
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    wait_until(lambda: managed_watcher.count_publishers("semantic/labels") == 0, "the outputs to be taken away")


def test_an_inactive_node_says_why_it_does_nothing(node, manager, managed_watcher):
    assert manager.configure()
    managed_watcher.wait_for_node()
    status = managed_watcher.say("classes: cup, floor")
    assert status.state == CommandStatus.REJECTED
    assert status.message == "the node is not active: activate it first"
    assert manager.activate()
    assert managed_watcher.say("classes: cup, floor").state == CommandStatus.ACCEPTED


def test_alone_it_answers_every_command(node, manager, managed_watcher):
    assert manager.configure()
    assert manager.activate()
    managed_watcher.wait_for_node()
    for text, words in (
        ("segment the red cup", 'this is for a referring node, and none is active: start one, or type "classes: cup'),
        ("stop", "this is for a referring node"),
        ("!?", "the command is empty"),
    ):
        status = managed_watcher.say(text)
        assert status.state == CommandStatus.REJECTED, text
        assert words in status.message, text
    status = managed_watcher.say("use maskclip")
    assert status.state == CommandStatus.ACCEPTED
    assert managed_watcher.outcome(status.command_id).message.startswith("maskclip-pocket serves now")


def test_commands_are_counted_on_through_a_cleanup(node, manager, managed_watcher):
    ids = []
    for _ in range(2):
        assert manager.configure()
        assert manager.activate()
        managed_watcher.wait_for_node()
        ids.append(managed_watcher.say("classes: cup, floor").command_id)
        assert manager.deactivate()
        assert manager.cleanup()
        wait_until(lambda: managed_watcher.count_publishers("status") == 0, "the outputs to be taken away")
    assert ids[1] == ids[0] + 1


def test_a_transition_that_the_state_lacks_is_refused(node, manager):
    for change in (manager.activate, manager.deactivate, manager.cleanup):
        assert not change()
    assert not manager.change(99)
    assert manager.configure()
    assert not manager.configure()
    assert manager.state() == State.PRIMARY_STATE_INACTIVE


def test_the_model_may_be_chosen_before_it_is_loaded(node, manager, managed_watcher):
    refused = managed_watcher.set_parameter("semantic", "model", "maskclip-vit-pocket")
    assert not refused.successful
    assert "does not exist" in refused.reason
    try:
        assert managed_watcher.set_parameter("semantic", "model", "denseclip").successful
        assert manager.configure()
        assert manager.activate()
        node.wait_said("denseclip-pocket on ")
    finally:
        managed_watcher.set_parameter("semantic", "model", "maskclip")


def test_what_is_not_live_may_change_before_the_node_is_configured(node, manager, managed_watcher):
    topic = "/managed/other"
    try:
        assert managed_watcher.set_parameter("semantic", "image_topic", topic).successful
        assert not managed_watcher.set_parameter("semantic", "image_topic", "").successful, "checked as ever"
        assert manager.configure()
        assert manager.activate()
        wait_until(lambda: managed_watcher.count_subscribers(topic) > 0, "the node to listen to the new topic")
        for _ in range(2):  # active, then inactive
            refused = managed_watcher.set_parameter("semantic", "image_topic", TOPIC)
            assert not refused.successful
            assert refused.reason == "image_topic can change only before the node is configured: clean it up first"
            assert managed_watcher.set_parameter("semantic", "min_confidence", 0.1).successful
            manager.deactivate()
        assert manager.cleanup()
    finally:
        assert managed_watcher.set_parameter("semantic", "image_topic", TOPIC).successful
        managed_watcher.set_parameter("semantic", "min_confidence", 0.0)


def test_who_may_clean_a_node_up_cannot_open_it_to_other_files(node, manager, managed_watcher, tmp_path):
    """Neither before it is configured, nor while it is, nor after it was cleaned up, does what guards files change."""
    file = tmp_path / "other.safetensors"
    file.symlink_to(resources.weights_dir() / "maskclip_plus_pocket.safetensors")

    def all_is_refused():
        for name, value in (("weights_dir", str(tmp_path)), ("allow_model_paths", True)):
            refused = managed_watcher.set_parameter("semantic", name, value)
            assert not refused.successful
            assert (
                refused.reason == f"{name}: fixed when the node starts, and it must be started anew with another value"
            )
        refused = managed_watcher.set_parameter("semantic", "model", str(file))
        assert not refused.successful
        assert "allow_model_paths:=true" in refused.reason

    all_is_refused()
    assert manager.configure()
    all_is_refused()
    assert manager.cleanup()
    all_is_refused()
    assert managed_watcher.set_parameter("semantic", "allow_model_paths", False).successful, "that is its value"


def test_going_round_costs_no_memory(node, manager):
    def resident_kib():
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

    sizes_kib = []
    for _ in range(ROUNDS):
        assert manager.configure()
        assert manager.activate()
        assert manager.deactivate()
        assert manager.cleanup()
        sizes_kib.append(resident_kib())
    assert sizes_kib[-1] < 1.05 * sizes_kib[SETTLED_ROUNDS - 1], sizes_kib
