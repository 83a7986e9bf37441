# SPDX-License-Identifier: Apache-2.0
"""What a node says of itself on /diagnostics."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.time import Time
from sensor_msgs.msg import Image

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from ros_harness import Camera, Stream, wait_until

TOPIC = "/own/image"


@pytest.fixture(scope="module")
def heard(own_referring, own_watcher):
    # Other files' tests may have left another one.
    status = own_watcher.say("use clipseg")
    assert own_watcher.outcome(status.command_id).state == CommandStatus.DONE
    return own_watcher.hear(DiagnosticArray, "/diagnostics", 10)


def mine(heard):
    """The messages of the node so far."""
    return [message for message in list(heard) if message.status[0].name.startswith("own/referring")]


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def wait_status(heard, what, fits):
    """Waits for a new status of the camera of which ``fits(level, message, values)`` is true; returns that."""
    before = len(mine(heard))

    def find():
        statuses = [message.status[1] for message in mine(heard)[before:]]
        told = [(status.level, status.message, values_of(status)) for status in statuses]
        return [each for each in told if fits(*each)]

    return wait_until(find, what)[0]


def test_the_node_says_once_a_second_how_it_is(heard):
    messages = wait_until(lambda: len(mine(heard)) >= 4 and mine(heard), "diagnostics")
    stamps_s = [Time.from_msg(message.header.stamp).nanoseconds * 1e-9 for message in messages[:4]]
    assert 0.5 * 3 < stamps_s[-1] - stamps_s[0] < 3 * 3
    for message in messages:
        assert [status.name for status in message.status] == ["own/referring: model", "own/referring: camera"]
    values = values_of(messages[-1].status[0])
    assert values["model"].endswith("-pocket")
    assert (values["engine"], values["precision"]) == ("eager", "float32")
    assert "why this engine" not in values, "the tests ask for it"
    assert values["device"]


def test_rates_latencies_and_drops_are_counted(heard, own_watcher, view):
    own_watcher.say("segment the red cup")
    masks = own_watcher.seen["mask"]
    masks.clear()
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8"), 0.02):
        level, note, values = wait_status(
            heard,
            "images in every second",
            lambda level, note, values: (
                len(masks) >= 5
                and float(values["images received per second"]) > 0 < float(values["images answered per second"])
            ),
        )
        assert level == DiagnosticStatus.OK
        assert note == "answering"
        assert values["topic"] == TOPIC
        received, answered = (float(values[f"images {what} per second"]) for what in ("received", "answered"))
        assert answered <= received <= 100
        middle, high = (float(values[f"stamp to answer, ms, {share}th percentile"]) for share in (50, 99))
        assert 0 < middle <= high < 60_000
        in_model = float(values["model alone, ms, 50th percentile"])
        assert 0 < in_model <= float(values["model alone, ms, 99th percentile"])
        assert in_model < middle
        assert 0 <= float(values["age of the last image, seconds"]) < 5
        # Fifty images a second are more than any model answers here.
        dropped = int(values["images dropped for newer ones"])
        wait_status(
            heard,
            "more dropped images",
            lambda level, note, values: int(values["images dropped for newer ones"]) > dropped,
        )
    own_watcher.say("stop")


def test_a_silent_camera_is_warned_of(heard, own_watcher, view):
    own_watcher.say("stop")
    with Camera(depth=False, topic=TOPIC) as camera, Stream(camera, fill_image(Image(), view.rgb, "rgb8")):
        wait_status(
            heard, "images", lambda level, note, values: level == DiagnosticStatus.OK and note == "nothing to look for"
        )
    _level, note, values = wait_status(heard, "a warning", lambda level, note, values: level == DiagnosticStatus.WARN)
    assert note == f"no images on {TOPIC}"
    assert float(values["age of the last image, seconds"]) >= 5
    assert float(values["images received per second"]) == 0
