# SPDX-License-Identifier: Apache-2.0
"""What the ``referring`` node answers to what people type: help, slips, questions, colours, relations."""

import numpy as np
import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from ros_harness import Camera, Stream, running_referring, wait_until

TOPIC = "/language/image"


@pytest.fixture(scope="module")
def view():
    """A table with a red cup and a blue box, and without anything purple."""
    scene = sample_scene(5, required=[("red", "cup"), ("blue", "box")], forbidden=[("purple", None)], objects=(4, 5))
    with SceneRenderer() as renderer:
        return renderer.render(scene, depth=False)


@pytest.fixture(scope="module")
def talk(ros, tmp_path_factory):
    log = tmp_path_factory.mktemp("language") / "referring.log"
    parameters = [f"image_topic:={TOPIC}", "depth_topic:=''", "camera_info_topic:=''", "smoothing:=0.0"]
    with running_referring(log, "language", parameters) as (_, watcher):
        yield watcher


def answered(talk, view, text):
    """Gives a command while images come; returns its two statuses."""
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        first = talk.say(text)
        assert first.state == CommandStatus.ACCEPTED, first.message
        return first, talk.outcome(first.command_id)


def test_help_shows_what_to_type(talk):
    status = talk.say("help")
    assert status.state == CommandStatus.ACCEPTED
    assert 'type for example "segment the red cup"' in status.message
    assert not status.prompts


def test_quit_ends_no_robot(talk):
    status = talk.say("quit")
    assert status.state == CommandStatus.REJECTED
    assert "does not end this node" in status.message
    assert talk.say("threshold 0.5").state == CommandStatus.ACCEPTED


@pytest.mark.parametrize(
    ("text", "meant"), [("segmnt the redcup", "segment the red cup"), ("find the blu box", "find the blue box")]
)
def test_a_slip_is_rejected_with_what_was_meant(talk, text, meant):
    status = talk.say(text)
    assert status.state == CommandStatus.REJECTED
    assert f'did you mean "{meant}"?' in status.message


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "give me two balls",
            (
                'looking for balls; understood as 2 "balls", decided by where things are; '
                '"give me" only finds: this node moves nothing'
            ),
        ),
        ("find the cup left of the box", 'understood as "cup" left of "box", decided by where things are'),
        ('find "cup left of the box"', 'clipseg-pocket does not understand "left of": type "use cris"'),
        ("segment everything", 'type "what do you see?"'),
        ("find the giraffe", "do not know 'giraffe': do not rely on the answer"),
    ],
)
def test_what_is_not_understood_is_told(talk, text, note):
    status = talk.say(text)
    assert status.state == CommandStatus.ACCEPTED
    assert note in status.message


def test_a_colour_alone_finds_the_thing_of_that_colour(talk, view):
    for text in ("find red", "something red", "the red one"):
        first, outcome = answered(talk, view, text)
        assert list(outcome.found) == list(first.prompts), outcome.message
        stamp = outcome.header.stamp
        (mask,) = [message for message in talk.seen["mask"] if message.header.stamp == stamp]
        found, true = np.frombuffer(mask.data, np.uint8).reshape(480, 640) > 0, view.mask_of("red", None)
        assert (found & true).sum() > 0.7 * (found | true).sum()


def test_what_was_not_found_has_its_best_score(talk, view):
    _, outcome = answered(talk, view, "find the purple book")
    assert outcome.state == CommandStatus.NOT_FOUND
    assert outcome.message.startswith("purple book: not found, best score 0.")


def test_the_node_lists_what_it_sees_and_goes_on(talk, view):
    _, before = answered(talk, view, "segment the red cup")
    assert list(before.found) == ["red cup"]
    _, outcome = answered(talk, view, "What do you see?")
    assert outcome.state == CommandStatus.FOUND, outcome.message
    assert {"red cup", "blue box"} <= set(outcome.found), outcome.message
    assert outcome.message.startswith("I see ")
    assert outcome.header.frame_id
    masks = talk.seen["mask"]
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        masks.clear()
        wait_until(lambda: len(masks) >= 2, "masks of what was asked before")


def test_the_names_to_list_may_be_chosen(talk, view):
    assert talk.set_parameter("referring", "things", ["red cup", "purple book"]).successful
    _, outcome = answered(talk, view, "list objects")
    assert list(outcome.found) == ["red cup"]
    refused = talk.set_parameter("referring", "things", ["cup", "x" * 501])
    assert refused.reason == "a text of things has at most 500 characters, got one of 501"
    assert talk.set_parameter("referring", "things", [""]).successful


def test_a_question_that_no_image_answered_is_ended_by_stop(talk):
    asked = talk.say("what do you see?")
    talk.say("stop")
    outcome = talk.outcome(asked.command_id)
    assert outcome.state == CommandStatus.FAILED
    assert "stop" in outcome.message
