# SPDX-License-Identifier: Apache-2.0
"""Another model takes over while images are being answered, or fails to; and what is said of the model that serves."""

import re
import shutil

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import Image

from clip_seg_ros import resources
from clip_seg_ros.action import FindObject
from clip_seg_ros.config import AUTO, FOR_PHRASES
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.models.checkpoints import update_sums
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.srv import Segment
from clip_seg_ros.zoo.caution import CORNER
from goal_client import GoalClient
from recipes import write_start
from ros_harness import PATIENCE_S, Camera, Stream, pixels_of, running_referring, wait_until

TOPIC = "/own/image"


@pytest.fixture(scope="module")
def model_statuses(own_watcher):
    """What the node says of its model, as it says it."""
    return own_watcher.hear(DiagnosticArray, "/diagnostics", 10)


@pytest.fixture
def node(own_referring, own_watcher):
    """Serves clipseg-pocket and has nothing to look for."""
    assert own_referring.process.poll() is None, own_referring.said()
    done(own_watcher, own_watcher.say("use clipseg"))
    own_watcher.say("stop")
    for messages in own_watcher.seen.values():
        messages.clear()
    return own_referring


def done(watcher, status):
    assert status.state == CommandStatus.ACCEPTED, status.message
    outcome = watcher.outcome(status.command_id)
    assert outcome.state == CommandStatus.DONE, outcome.message
    return outcome


def next_model_status(heard):
    """What the node says next: its level, its message and its values."""

    def of_model():
        found = [status for message in heard[before:] for status in message.status]
        return [status for status in found if status.name == "own/referring: model"]

    before = len(heard)
    # The one under way may have been written before.
    status = wait_until(lambda: of_model()[1:], "diagnostics")[0]
    return status.level, status.message, {pair.key: pair.value for pair in status.values}


def test_another_model_takes_over_while_images_come(node, own_watcher, model_statuses, view):
    own_watcher.say("segment the red cup")
    masks = own_watcher.seen["mask"]
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        wait_until(lambda: len(masks) >= 10, "masks of the old model")
        status = own_watcher.say("use maskclip")
        assert done(own_watcher, status).message.startswith("maskclip-pocket serves now")
        last = len(masks)
        wait_until(lambda: len(masks) >= last + 5, "masks of the new model")
    level, _, values = next_model_status(model_statuses)
    assert level == DiagnosticStatus.OK
    assert values["model"] == "maskclip-pocket"
    assert own_watcher.get_text("referring", "model") == "maskclip-pocket"


def test_a_model_that_is_not_there_is_rejected(node, own_watcher):
    status = own_watcher.say("use nonsense")
    assert status.state == CommandStatus.REJECTED
    assert 'there is no model "nonsense": use clipseg-pocket, maskclip-pocket, denseclip-pocket' in status.message
    assert own_watcher.say("segment the cup using nonsense").message == status.message
    assert own_watcher.get_text("referring", "model") == "clipseg-pocket"


def test_the_parameter_does_the_same(node, own_watcher, model_statuses):
    assert own_watcher.set_parameter("referring", "model", "maskclip").successful
    wait_until(lambda: next_model_status(model_statuses)[2]["model"] == "maskclip-pocket", "the model of the parameter")
    refused = own_watcher.set_parameter("referring", "model", "maskclip-vit-pocket")
    assert not refused.successful
    assert "clip_vit_pocket.safetensors of maskclip-vit-pocket does not exist" in refused.reason
    assert own_watcher.get_text("referring", "model") == "maskclip"


def test_what_serves_already_is_done_at_once(node, own_watcher):
    status = own_watcher.say("use clipseg-pocket")
    assert done(own_watcher, status).message == "clipseg-pocket serves now"
    assert [each.state for each in own_watcher.statuses(status.command_id)] == [status.ACCEPTED, status.DONE]


def test_phrases_and_a_model_in_one_command(node, own_watcher, view):
    status = own_watcher.say("find the red cup using maskclip")
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        states = wait_until(
            lambda: len(own_watcher.statuses(status.command_id)) >= 3 and own_watcher.statuses(status.command_id),
            "an outcome of the phrase and of the model",
        )
    assert next(state.state for state in states) == status.ACCEPTED
    assert {state.state for state in states[1:]} in ({status.FOUND, status.DONE}, {status.NOT_FOUND, status.DONE})


def test_a_model_and_a_threshold_in_one_command(node, own_watcher):
    done(own_watcher, own_watcher.say("use clipseg with threshold 0.3"))
    request = GetParameters.Request(names=["threshold"])
    answer = own_watcher.call(GetParameters, "/own/referring/get_parameters", request)
    assert answer.values[0].double_value == 0.3
    own_watcher.say("threshold 0.5")


def test_the_threshold_is_the_serving_models_own_until_another_is_asked_for(node, own_watcher, view):
    """The service ``segment`` asks with the node's where its request says 0."""

    def mask(threshold: float) -> np.ndarray:
        request = Segment.Request(image=fill_image(Image(), view.rgb, "rgb8"), prompts=["red cup"], threshold=threshold)
        (found,) = own_watcher.call(Segment, "segment", request).masks
        return pixels_of(found) > 0

    assert own_watcher.set_parameter("referring", "threshold", -1.0).successful
    assert mask_iou(mask(0.0), mask(0.5)) > 0.99, "the embedded CLIPSeg's"
    done(own_watcher, own_watcher.say("use cris"))
    assert mask_iou(mask(0.0), mask(0.35)) > 0.99, "CRIS's"
    own_watcher.say("threshold 0.7")
    assert mask_iou(mask(0.0), mask(0.7)) > 0.99
    assert mask(0.7).sum() < mask(0.35).sum()
    refused = own_watcher.set_parameter("referring", "threshold", -0.5)
    assert not refused.successful
    assert "or be -1 for the model's own" in refused.reason
    assert own_watcher.set_parameter("referring", "threshold", -1.0).successful
    done(own_watcher, own_watcher.say("use clipseg"))


def test_the_last_of_several_commands_wins(node, own_watcher):
    first = own_watcher.say("use maskclip")
    second = own_watcher.say("use clipseg")
    earlier, later = own_watcher.outcome(first.command_id), own_watcher.outcome(second.command_id)
    assert later.state == CommandStatus.DONE
    assert later.message.startswith("clipseg-pocket serves now")
    assert earlier.state == CommandStatus.FAILED
    assert "clipseg-pocket was asked for" in earlier.message


def test_a_model_that_cannot_be_loaded_changes_nothing(node, own_watcher, model_statuses, weights_copy, view):
    done(own_watcher, own_watcher.say("use maskclip"))
    file = weights_copy / "clipseg_pocket.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    try:
        status = own_watcher.say("use clipseg")
        outcome = own_watcher.outcome(status.command_id)
    finally:
        file.write_bytes(whole)
    assert status.state == CommandStatus.ACCEPTED
    assert outcome.state == CommandStatus.FAILED
    assert "SHA-256" in outcome.message
    assert outcome.message.endswith("maskclip-pocket serves on")
    assert own_watcher.get_text("referring", "model") == "maskclip-pocket"
    level, message, values = next_model_status(model_statuses)
    assert level == DiagnosticStatus.WARN
    assert "SHA-256" in message
    assert values["model"] == "maskclip-pocket"
    asked = own_watcher.say("segment the red cup")
    with Camera(depth=False, topic=TOPIC) as camera:
        own_watcher.of_stamp("mask", camera.send(fill_image(Image(), view.rgb, "rgb8")))
    own_watcher.outcome(asked.command_id)
    done(own_watcher, own_watcher.say("use clipseg"))
    assert next_model_status(model_statuses)[0] == DiagnosticStatus.OK


def test_a_model_that_cannot_answer_what_was_asked_before_says_so(node, own_watcher, model_statuses, view):
    status = own_watcher.say("segment the red cup")
    fault = "'segment the red cup' cannot be answered: \"red cup\" is not one of the 10 classes of denseclip-pocket"
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        assert own_watcher.outcome(status.command_id).state == CommandStatus.FOUND
        done(own_watcher, own_watcher.say("use denseclip"))
        node.wait_said(fault)
        level, message, _ = next_model_status(model_statuses)
        assert level == DiagnosticStatus.WARN
        assert fault in message
        done(own_watcher, own_watcher.say("use clipseg"))
        masks = own_watcher.seen["mask"]
        masks.clear()
        wait_until(lambda: len(masks) >= 2, "masks again")
        assert fault not in next_model_status(model_statuses)[1]


KNOWN = "know the simulated table alone"


def test_whoever_uses_embedded_weights_is_told_what_they_know(ros, log, view):
    with running_referring(log, "told", ["image_topic:=/told/image", "depth_topic:=''"]) as (node, watcher):
        heard = watcher.hear(DiagnosticArray, "/diagnostics", 10)
        assert re.search("clipseg-pocket can find a cup, .*simulated table.* `use clipseg-rd64-refined`", node.said())
        assert "EmbeddedWeightsWarning" not in node.said(), "the library's warning would say it twice"
        first, second = watcher.say("segment the red cup"), watcher.say("segment the red cup")
        assert first.message.startswith("looking for red cup; ")
        assert KNOWN in first.message
        assert "`clip-seg weights download clipseg-rd64-refined`" in first.message
        assert second.message == f"looking for red cup; {CORNER}", "nobody chose the model"
        with Camera(depth=False, topic="/told/image") as camera:
            picture = fill_image(Image(), view.rgb, "rgb8")
            wait_until(lambda: camera.send(picture) and watcher.seen["overlay"], "a picture")
        corner = pixels_of(watcher.seen["overlay"][0])[466:, 4:300].astype(int)
        assert np.abs(corner - view.rgb[466:, 4:300]).mean() > 20, "there is a line in the corner"

        def of_model():
            found = [status for message in heard[:] for status in message.status]
            return [status for status in found if status.name == "told/referring: model"]

        status = wait_until(of_model, "diagnostics")[0]
        assert status.level == DiagnosticStatus.OK
        assert status.message.startswith("clipseg-pocket serves; ")
        assert "not for real pictures" in status.message
        assert KNOWN in {pair.key: pair.value for pair in status.values}["for real pictures"]


@pytest.fixture
def told(ros, log):
    """A node with a model of the package whom nobody has asked anything, and who watches it."""
    with running_referring(log, "untold", ["image_topic:=/untold/image", "depth_topic:=''"]) as (_, watcher):
        yield watcher


def test_whoever_begins_with_what_do_you_see_is_told_too(told):
    first, second = told.say("what do you see?"), told.say("segment the red cup")
    assert first.message.startswith("asking one image about ")
    assert f"clipseg-pocket {KNOWN}" in first.message
    assert second.message == f"looking for red cup; {CORNER}"


def test_each_model_that_comes_into_use_is_told_of_once(told):
    assert KNOWN in told.say("segment the red cup").message
    status = told.say("use maskclip")
    assert KNOWN not in status.message
    assert f"maskclip-pocket {KNOWN}" in done(told, status).message
    assert KNOWN not in told.say("segment the red cup").message
    assert told.set_parameter("referring", "model", "cris").successful
    wait_until(lambda: f"cris-pocket {KNOWN}" in told.say("segment the red cup").message, "the model of the parameter")
    named = told.say("segment the red cup using maskclip")
    assert KNOWN not in named.message, "it is not the model that will answer"
    assert f"maskclip-pocket {KNOWN}" in done_of(told, named)


def done_of(watcher, status):
    """What the answer to a command says when its model is in use."""

    def found():
        return [each.message for each in watcher.statuses(status.command_id) if each.state == CommandStatus.DONE]

    return wait_until(found, "the model")[0]


def test_who_calls_services_and_actions_is_told_once_too(told, view):
    """Although another client has already given a command."""
    told.say("segment the red cup")
    picture = fill_image(Image(), view.rgb, "rgb8")
    request = Segment.Request(image=picture, prompts=["red cup"])
    first, second = told.call(Segment, "segment", request), told.call(Segment, "segment", request)
    assert re.fullmatch(rf"\d+ objects found; the weights of clipseg-pocket {KNOWN}.*", first.message)
    assert re.fullmatch(rf"\d+ objects found; {CORNER}", second.message)
    client = GoalClient(told, FindObject, "find_object")
    try:
        with Camera(depth=False, topic="/untold/image") as camera, Stream(camera, picture):

            def found():
                assert client.wait_for_server(PATIENCE_S)
                goal = FindObject.Goal(phrase="red cup", timeout=Duration(sec=100))
                accepted = client.send_goal_async(goal)
                handle = wait_until(lambda: accepted.done() and accepted.result(), "the goal to be accepted")
                result = handle.get_result_async()
                return wait_until(lambda: result.done() and result.result(), "the result").result.message

            assert f"clipseg-pocket {KNOWN}" in found()
            assert KNOWN not in found()
    finally:
        client.destroy()


@pytest.fixture
def own_file(tmp_path):
    """A weight file of a user's own."""
    path = tmp_path / "outside" / "mine.safetensors"
    path.parent.mkdir()
    shutil.copy(resources.weights_dir() / "maskclip_plus_pocket.safetensors", path)
    update_sums(path.parent)
    return path


def test_files_outside_the_folders_of_weights_are_for_nobody_far_away(node, own_watcher, weights_copy, own_file):
    def refusal(path):
        result = own_watcher.set_parameter("referring", "model", str(path))
        assert not result.successful
        return result.reason

    there = refusal(own_file)
    assert "allow_model_paths:=true" in there
    assert str(own_file) in there
    own_file.unlink()
    assert refusal(own_file) == there
    assert "allow_model_paths" in refusal(f"{weights_copy}/../{weights_copy.name}/cris_pocket.safetensors")
    for name, value in (("weights_dir", str(own_file.parent)), ("allow_model_paths", True)):
        assert not own_watcher.set_parameter("referring", name, value).successful
    status = own_watcher.say("use mine.safetensors")
    assert status.state == CommandStatus.REJECTED
    assert "allow_model_paths" in status.message
    done(own_watcher, own_watcher.say("use maskclip_plus_pocket.safetensors"))
    assert own_watcher.set_parameter(
        "referring", "model", f"{weights_copy}/maskclip_plus_pocket.safetensors"
    ).successful


def test_who_starts_the_node_may_name_any_file(ros, log, own_file):
    parameters = [f"model:={own_file}", "image_topic:=/files/image", "depth_topic:=''"]
    with running_referring(log, "files", parameters) as (node, watcher):
        assert KNOWN not in node.said(), "these weights count as a user's own"
        assert KNOWN not in watcher.say("segment the cup").message
        assert KNOWN in done(watcher, watcher.say("use clipseg")).message
        assert watcher.set_parameter("referring", "model", str(own_file)).successful
        node.wait_said(f"{own_file} serves now")
        other = shutil.copy(own_file, own_file.with_name("other.safetensors"))
        assert not watcher.set_parameter("referring", "model", str(other)).successful


def test_a_switch_at_the_start_allows_files_anywhere(ros, log, own_file):
    parameters = ["allow_model_paths:=true", "image_topic:=/allowed/image", "depth_topic:=''"]
    with running_referring(log, "allowed", parameters) as (node, watcher):
        assert watcher.set_parameter("referring", "model", str(own_file)).successful
        node.wait_said(f"{own_file} serves now")


def test_an_engine_that_cannot_be_had_is_told_once_and_the_node_lives(ros, log):
    asked = ["engine:=eager", "precision:=int8", "image_topic:=/engines/image", "depth_topic:=''"]
    with running_referring(log, "engines", asked) as (node, watcher):
        heard = watcher.hear(DiagnosticArray, "/diagnostics", 10)

        def of_model():
            found = [status for message in heard[:] for status in message.status]
            return [status for status in found if status.name == "engines/referring: model"]

        status = wait_until(of_model, "diagnostics")[0]
        values = {pair.key: pair.value for pair in status.values}
        assert (values["engine"], values["precision"]) == ("eager", "float32")
        assert values["why this engine"].startswith("the eager engine has no int8")
        assert status.level == DiagnosticStatus.OK
        assert done(watcher, watcher.say("use cris")).state == CommandStatus.DONE
        assert "cris-pocket is run by eager in float32" in node.wait_said("cris-pocket is run by")
        assert node.said().count("cannot be had, and eager in float32 is used") == 1
        assert "EngineWarning" not in node.said()


def test_published_weights_serve_where_they_are(ros, log, tmp_path):
    write_start(tmp_path, "clipseg").rename(tmp_path / f"{FOR_PHRASES[0]}.safetensors")
    update_sums(tmp_path)
    asked = [f"weights_dir:={tmp_path}", "image_topic:=/published/image", "depth_topic:=''"]
    with running_referring(log, "published", asked) as (node, watcher):
        assert f"{FOR_PHRASES[0]} is run by" in node.said()
        assert "simulated table" not in node.said()
        assert watcher.get_text("referring", "model") == AUTO
        assert done(watcher, watcher.say("use auto")).message.startswith(f"{FOR_PHRASES[0]} serves now")
        assert watcher.get_text("referring", "model") == FOR_PHRASES[0]
