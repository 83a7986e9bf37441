# SPDX-License-Identifier: Apache-2.0
"""`clip-seg say` and `clip-seg watch` as people start them, against a running node."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from ros_harness import Talker, Watcher, running_referring, wait_until

CLI = [sys.executable, "-m", "clip_seg_ros.tools.cli"]
CAMERA = "/talked/camera"


@pytest.fixture(scope="module")
def talked(ros, view, tmp_path_factory):
    """A node in the namespace "talked" that sees a table with a red cup and nothing blue."""
    topics = {
        "image_topic": "color/image_raw",
        "depth_topic": "depth/image_raw",
        "camera_info_topic": "color/camera_info",
    }
    parameters = [f"{name}:={CAMERA}/{topic}" for name, topic in topics.items()]
    log = tmp_path_factory.mktemp("talked") / "log"
    with running_referring(log, "talked", parameters) as (node, watcher), Talker.camera(CAMERA) as camera:
        yield node, watcher, lambda: camera.send_view(view)


def run(watcher: Watcher, send, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the command while the camera sends its picture."""
    with subprocess.Popen(
        [*CLI, *arguments, "--namespace", "talked"],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: send() and process.poll() is not None, " ".join(arguments))
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_say_prints_what_became_of_the_command(talked) -> None:
    _node, watcher, send = talked
    found = run(watcher, send, "say", "segment the red cup")
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith("accepted: looking for red cup")
    assert lines[1].startswith("found: red cup: 1 found")
    missing = run(watcher, send, "say", "find", "the", "blue", "bottle")
    assert missing.returncode == 1
    assert missing.stdout.splitlines()[1].startswith("not found: blue bottle")
    refused = run(watcher, send, "say", "use nonsense")
    assert refused.returncode == 2
    assert refused.stdout.startswith("rejected: there is no model")
    assert run(watcher, send, "say", "stop").returncode == 0


def test_watch_once_prints_what_is_seen(talked) -> None:
    _node, watcher, send = talked
    watcher.say("segment the red cup")
    seen = run(watcher, send, "watch", "--once")
    assert seen.returncode == 0, seen.stderr
    assert re.match(
        r"objects: red cup #\d, score 0\.\d+, at pixel \(.*\) m in camera_color_optical_frame$", seen.stdout
    )
    plain = run(watcher, send, "watch", "--once", "--json")
    event = json.loads(plain.stdout)
    assert event["prompts"] == ["red cup"]
    assert len(event["objects"][0]["position_m"]) == 3
    watcher.say("stop")


def test_watch_goes_on_until_ctrl_c(talked, tmp_path) -> None:
    _node, watcher, send = talked
    before = watcher.count_subscribers("status")
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*CLI, "watch", "--namespace", "talked"], stdout=out, stderr=subprocess.PIPE, text=True
        )
    try:
        wait_until(lambda: watcher.count_subscribers("status") > before or process.poll() is not None, "it to listen")
        watcher.say("segment the red cup")
        wait_until(lambda: send() and "objects: red cup" in (tmp_path / "out").read_text(), "the cup")
        # What is said just after both sides know of each other may be lost.
        wait_until(
            lambda: watcher.say("stop") and "'stop': accepted: stopped" in (tmp_path / "out").read_text(), "an answer"
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err, err


def test_say_without_images_says_what_is_missing(talked) -> None:
    _node, watcher, _send = talked
    silent = run(watcher, lambda: True, "say", "--timeout", "1", "segment the red cup")
    assert silent.returncode == 4
    assert "accepted" in silent.stdout
    assert "does a camera send any?" in silent.stderr
    watcher.say("stop")


def test_a_node_elsewhere_is_named(talked) -> None:
    elsewhere = subprocess.run([*CLI, "say", "--namespace", "nowhere", "stop"], capture_output=True, text=True)
    assert elsewhere.returncode == 3
    assert "--namespace talked" in elsewhere.stderr
