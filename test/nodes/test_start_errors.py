# SPDX-License-Identifier: Apache-2.0
"""A node that cannot start says why in one line and ends with an exit code; one that is told to end does so quietly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_seg_ros import resources
from ros_harness import PATIENCE_S, NodeProcess


def broken_weights(folder, how):
    shutil.copytree(resources.weights_dir(), folder)
    file = folder / "clipseg_pocket.safetensors"
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif how == "tampered":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return folder


STARTS = int(os.environ.get("CLIP_SEG_STARTS", "7"))
"""How many starts are interrupted: set CLIP_SEG_STARTS=40 to look closely."""
LATEST_S = 2.0

FAULTS = {
    "truncated": ("referring", [], ["clipseg_pocket.safetensors", "SHA-256"]),
    "tampered": ("referring", [], ["clipseg_pocket.safetensors", "SHA-256"]),
    "missing": ("referring", [], ["clipseg_pocket.safetensors", "does not exist"]),
    "model": ("referring", ["model:=gpt"], ["gpt", "clipseg-pocket"]),
    "threshold": ("referring", ["threshold:=1.5"], ["threshold", "1.5"]),
    "image topic": ("referring", ["image_topic:='the camera'"], ["'the camera'", "topic name"]),
    "camera name": ("semantic", ["image_topics:=[/a, /b]", "camera_names:=[left, my own]"], ["'my own'", "topic name"]),
    "device": ("semantic", ["device:=cuda:99"], ["cuda:99", "not available", "cpu"]),
    "no classes": ("semantic", ["model:=maskclip"], ["maskclip-pocket takes any phrase", "classes or class_list"]),
    "class": ("semantic", ["classes:=[cup, giraffe]"], ["denseclip-pocket has no class giraffe", "cup, bowl"]),
    "class list": ("semantic", ["model:=maskclip", "class_list:=things"], ['no class list "things"', "ade20k"]),
}
"""Name: the node, its parameters, what its line must hold."""


@pytest.fixture(scope="module")
def failed_starts(ros, tmp_path_factory):
    """All of them at once: what takes long is to import torch."""
    folder = tmp_path_factory.mktemp("weights")
    nodes = {}
    for name, (node, parameters, _) in FAULTS.items():
        if not parameters:
            parameters = [f"weights_dir:={broken_weights(folder / name, name)}"]
        # In a namespace of their own, because ROS may list a node that died early for a long time.
        nodes[name] = NodeProcess(node, folder / f"{name}.log", parameters, namespace="broken")
    return {name: (node.wait_end(), node.said()) for name, node in nodes.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_one_clear_line_and_an_exit_code(failed_starts, name):
    code, said = failed_starts[name]
    node, _, words = FAULTS[name]
    assert code == 1
    assert len(said.strip().splitlines()) == 1, said
    assert said.startswith(f"{node}: ")
    assert "Traceback" not in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("required:=[giraffe]", ["giraffe", "red cup"]),
        ("motion:=fly", ["motion", "none or orbit"]),
        ("seed:=-1", ["seed", "-1"]),
        ("rate_hz:=0", ["rate_hz", "0.1"]),
    ],
)
def test_the_camera_refuses_wrong_parameters(ros, log, parameter, words):
    node = NodeProcess("sim_camera", log, [parameter])
    assert node.wait_end() == 1
    said = node.said()
    assert "Traceback" not in said, said
    assert all(word in said for word in words), said


def test_a_parameter_that_does_not_exist_is_told_with_the_one_that_was_meant(ros, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    treshold: 0.4\n    use_sim_time: false\n    image_topic: /a\n    classes: [a]\n"
    )
    overrides = ["color_topic:=/x", "zzz:=1", "start_type_description_service:=false", "qos_overrides./a.depth:=1"]
    # Each ends by a wrong value, after what it says of the names.
    nodes = {
        "referring": (["model:=gpt", *overrides], [file]),
        "semantic": (["model:=gpt", "clases:=[cup]"], []),
        "sim_camera": (["sede:=3", "required:=[giraffe]"], []),
    }
    started = {n: NodeProcess(n, tmp_path / n, given, files, "broken") for n, (given, files) in nodes.items()}
    said = {}
    for name, node in started.items():
        assert node.wait_end() == 1
        said[name] = [line.split("]: ")[1] for line in node.said().splitlines() if "there is no parameter" in line]
    told = "is ignored (ros2 param list and docs/nodes.md list all)"
    assert said["referring"] == [
        f"there is no parameter color_topic: did you mean image_topic? It {told}",
        f"there is no parameter treshold: did you mean threshold? It {told}",
        f"there is no parameter zzz: it {told}",
    ]
    assert "the parameter classes is another node's: it is ignored" in started["referring"].said()
    assert said["semantic"] == [f"there is no parameter clases: did you mean classes? It {told}"]
    assert said["sim_camera"] == [f"there is no parameter sede: did you mean seed? It {told}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_camera_ends_quietly(ros, log, number):
    node = NodeProcess("sim_camera", log)
    node.wait_said("scene of seed")
    assert node.end(number) == 0
    assert "Traceback" not in node.said()


@pytest.mark.parametrize("turn", range(STARTS))
def test_a_node_that_is_interrupted_while_it_starts_ends_quietly(ros, log, turn):
    """Whenever the signal comes, so that nothing depends on how fast the node is."""
    program = installed_program(("referring", "semantic", "sim_camera")[turn % 3])
    with log.open("w") as stream:
        node = subprocess.Popen([program, "--ros-args", "-r", "__ns:=/interrupted"], stdout=stream, stderr=stream)
    time.sleep(LATEST_S * turn / STARTS)
    node.send_signal((signal.SIGINT, signal.SIGTERM)[turn % 2])
    code = node.wait(PATIENCE_S)
    # The first moment belongs to the program that blocks the signals: there they end it, as quietly.
    assert code in (0, -signal.SIGINT, -signal.SIGTERM)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "rror" not in log.read_text(), log.read_text()


def installed_program(name):
    """What "ros2 run" and launch files start."""
    places = (Path(prefix) / "lib/clip_seg_ros" / name for prefix in os.environ["AMENT_PREFIX_PATH"].split(":"))
    return next(place for place in places if place.exists())


@pytest.mark.parametrize("name", ["referring", "semantic"])
def test_torch_is_not_imported_before_signals_end_the_process_cleanly(name):
    code = f"import sys, clip_seg_ros.nodes.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
