# SPDX-License-Identifier: Apache-2.0
"""The ``semantic`` node as a process: a class for every pixel, out of lists that commands change."""

import numpy as np
import pytest
from sensor_msgs.msg import Image

from clip_seg_ros import resources
from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, class_map
from clip_seg_ros.msg import CommandStatus, LabelNames
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common.qos import LATCHED
from clip_seg_ros.pipeline.class_labels import UNLABELLED, class_colors
from clip_seg_ros.sim.scene import sample_scene
from ros_harness import Camera, NodeProcess, SemanticWatcher, stamp_ns, wait_until

TOPIC = "/semantic_camera/image"
ALL_CLASSES = f"classes: {', '.join(SEMANTIC_CLASSES)}"


@pytest.fixture(scope="module")
def labels_watcher(ros):
    node = SemanticWatcher()
    yield node
    node.close()


@pytest.fixture(scope="module")
def shared_semantic(labels_watcher, tmp_path_factory):
    """In the namespace of the shared ``referring`` node, which hears the same commands."""
    log = tmp_path_factory.mktemp("semantic") / "log"
    node = NodeProcess("semantic", log, [f"image_topic:={TOPIC}"], files=[resources.config_dir() / "semantic.yaml"])
    node.wait_said("commands:")
    labels_watcher.wait_for_node()
    yield node
    assert node.end() == 0, node.said()
    assert "Traceback" not in node.said(), node.said()


@pytest.fixture
def semantic(shared_semantic, labels_watcher):
    """With DenseCLIP and all its classes."""
    assert shared_semantic.process.poll() is None, shared_semantic.said()
    assert labels_watcher.get_text("semantic", "model") in ("auto", "denseclip-pocket")
    labels_watcher.say(ALL_CLASSES)
    for messages in labels_watcher.seen.values():
        messages.clear()
    return shared_semantic


def pixels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1).squeeze()


def answer(watcher, view, names=("semantic/labels",)):
    """Shows the node a view; returns those of its outputs."""
    with Camera(depth=False, topic=TOPIC) as camera:
        stamp = camera.send(fill_image(Image(), view.rgb, "rgb8"))
        return [watcher.of_stamp(name, stamp) for name in names]


def label_names(watcher):
    """What somebody hears who comes only now."""
    heard = watcher.hear(LabelNames, "semantic/label_names", LATCHED)
    return wait_until(lambda: heard, "names")[-1]


def test_without_a_semantic_node_lists_of_classes_are_rejected(referring, watcher):
    wait_until(lambda: "semantic" not in watcher.get_node_names(), "the nodes of other tests to be gone")
    status = watcher.say("classes: cup, table")
    assert status.state == CommandStatus.REJECTED
    assert "a semantic node" in status.message


def test_an_image_gives_every_output(semantic, labels_watcher, view):
    names = [name for name in labels_watcher.OUTPUTS if name != "status"]
    messages = answer(labels_watcher, view, names)
    labels, color, overlay = (pixels(message) for message in messages[:3])
    objects, ids = messages[3], pixels(messages[4])

    assert [message.encoding for message in (*messages[:3], messages[4])] == ["8UC1", "rgb8", "rgb8", "mono8"]
    assert labels.shape == view.rgb.shape[:2]
    assert color.shape == overlay.shape == view.rgb.shape
    assert all(message.header.frame_id == "camera_color_optical_frame" for message in messages)
    assert ((labels < len(SEMANTIC_CLASSES)) | (labels == UNLABELLED)).all()
    truth = class_map(sample_scene(2, required=[("red", "cup")], forbidden=[("blue", None)]), view.labels)
    told = truth != IGNORED
    assert (labels[told] == truth[told]).mean() > 0.8
    np.testing.assert_array_equal(color, class_colors(len(SEMANTIC_CLASSES))[labels])
    assert (overlay != view.rgb).any()
    assert list(objects.prompts) == list(SEMANTIC_CLASSES)
    assert objects.objects
    for item in objects.objects:
        box = (slice(item.y_min, item.y_max), slice(item.x_min, item.x_max))
        inside = ids[box] == item.id
        assert item.area == inside.sum() == (ids == item.id).sum()
        assert (labels[box][inside] == SEMANTIC_CLASSES.index(item.prompt)).all()
        assert inside.any(0).all()
        assert inside.any(1).all()
    assert set(np.unique(ids)) - {0} == {item.id for item in objects.objects}
    cups = [item.area for item in objects.objects if item.prompt == "cup"]
    assert sum(cups) <= (labels == SEMANTIC_CLASSES.index("cup")).sum()


def test_the_names_wait_for_those_who_come_later(semantic, labels_watcher):
    heard = labels_watcher.hear(LabelNames, "semantic/label_names", LATCHED)
    (names,) = wait_until(lambda: heard, "names")
    assert list(names.names) == list(SEMANTIC_CLASSES)
    colors = class_colors(len(SEMANTIC_CLASSES))[: len(SEMANTIC_CLASSES)]
    np.testing.assert_array_equal(np.array(names.colors).reshape(-1, 3), colors)


def test_a_command_changes_the_classes(semantic, labels_watcher, view):
    (all_labels,) = answer(labels_watcher, view)
    heard = labels_watcher.hear(LabelNames, "semantic/label_names", LATCHED)
    wait_until(lambda: heard, "the names before")
    status = labels_watcher.say("classes: table, cup, floor")
    wait_until(lambda: len(heard) == 2, "the names said anew")
    (message,) = answer(labels_watcher, view)

    assert status.state == CommandStatus.ACCEPTED
    assert list(status.prompts) == ["table", "cup", "floor"]
    assert labels_watcher.statuses(status.command_id) == [status]
    assert list(heard[1].names) == ["table", "cup", "floor"]
    # A pixel of another class does not go to one of these.
    expected = np.full(view.rgb.shape[:2], UNLABELLED)
    for place, name in enumerate(("table", "cup", "floor")):
        expected[pixels(all_labels) == SEMANTIC_CLASSES.index(name)] = place
    np.testing.assert_array_equal(pixels(message), expected)
    assert set(np.unique(expected)) == {0, 1, 2, UNLABELLED}


def test_a_class_that_the_model_lacks_is_rejected(semantic, labels_watcher, view):
    for command in ("classes: cup, giraffe", "classes: ade20k"):
        status = labels_watcher.say(command)
        assert status.state == CommandStatus.REJECTED
        assert "has no class" in status.message
        assert f"it has {', '.join(SEMANTIC_CLASSES)}" in status.message
    status = labels_watcher.say("classes: cup, table using maskclip")
    assert status.state == CommandStatus.REJECTED
    assert "parameters model and min_confidence" in status.message
    (message,) = answer(labels_watcher, view)
    assert len(np.unique(pixels(message))) > 3, "the classes before stay"


def test_below_min_confidence_pixels_have_no_class(semantic, labels_watcher, view):
    try:
        assert labels_watcher.set_parameter("semantic", "min_confidence", 1.0).successful
        (message,) = answer(labels_watcher, view)
    finally:
        labels_watcher.set_parameter("semantic", "min_confidence", 0.0)
    assert (pixels(message) == UNLABELLED).mean() > 0.5


def test_another_model_takes_the_classes_over(semantic, labels_watcher, view):
    heard = labels_watcher.hear(LabelNames, "semantic/label_names", LATCHED)
    labels_watcher.say("classes: cup, table, floor")
    (dense,) = answer(labels_watcher, view)
    said = len(semantic.said())
    assert labels_watcher.set_parameter("semantic", "model", "maskclip").successful
    wait_until(lambda: "maskclip-pocket serves now" in semantic.said()[said:], "the other model")
    (masked,) = answer(labels_watcher, view)
    assert list(heard[-1].names) == ["cup", "table", "floor"]
    assert (pixels(dense) != pixels(masked)).any()
    assert set(np.unique(pixels(masked))) >= {0, 1}

    # What only the open model can name keeps the other one from taking over.
    status = labels_watcher.say("classes: giraffe, table")
    assert status.state == CommandStatus.ACCEPTED
    assert "'giraffe'" in status.message
    assert labels_watcher.set_parameter("semantic", "model", "denseclip-pocket").successful
    semantic.wait_said("denseclip-pocket could not be loaded: denseclip-pocket has no class giraffe")
    wait_until(
        lambda: labels_watcher.get_text("semantic", "model") == "maskclip-pocket", "the parameter to say what serves"
    )
    said = len(semantic.said())
    labels_watcher.say(ALL_CLASSES)
    assert labels_watcher.set_parameter("semantic", "model", "denseclip-pocket").successful
    wait_until(lambda: "denseclip-pocket serves now" in semantic.said()[said:], "the first model again")


def test_each_node_answers_its_own_commands(semantic, labels_watcher, referring):
    wait_until(lambda: "referring" in labels_watcher.get_node_names(), "both nodes")
    seen = labels_watcher.seen["status"]
    # What others told the node before may be heard only now.
    labels_watcher.say("find the plate")
    wait_until(lambda: any("looking for plate" in status.message for status in seen), "the first answer")
    seen.clear()
    # A node takes commands in their order: an answer to the first would come before that to the last.
    for text, words in (
        ("segment the cup", "looking for cup"),
        ("classes: cup, table", "telling apart cup, table"),
        ("stop", "stopped"),
        ("classes: giraffe", "has no class giraffe"),
    ):
        labels_watcher.say(text)
        wait_until(lambda: any(text == status.command and words in status.message for status in seen), words)
    said = sorted(status.command for status in seen)
    assert said == sorted(["segment the cup", "classes: cup, table", "stop", "classes: giraffe"])
    assert stamp_ns(seen[-1]) > 0
