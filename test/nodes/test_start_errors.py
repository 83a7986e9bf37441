"""A node that cannot start says why in one line and ends with an exit code; one that is told to end does so quietly."""

import shutil
import signal

import pytest
from ros_harness import NodeProcess

from clip_seg_ros import resources


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


@pytest.fixture(scope="module")
def failed_starts(ros, tmp_path_factory):
    """All of them at once: what takes long is to import torch."""
    folder = tmp_path_factory.mktemp("weights")
    faults = ("missing", "truncated", "tampered")
    parameters = {how: f"weights_dir:={broken_weights(folder / how, how)}" for how in faults}
    parameters |= {"model": "model:=gpt", "threshold": "threshold:=1.5"}
    nodes = {name: NodeProcess("referring", folder / f"{name}.log", [value]) for name, value in parameters.items()}
    return {name: (node.wait_end(), node.said()) for name, node in nodes.items()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["clipseg_pocket.safetensors", "does not exist"]),
        ("truncated", ["clipseg_pocket.safetensors", "SHA-256"]),
        ("tampered", ["clipseg_pocket.safetensors", "SHA-256"]),
        ("model", ["gpt", "clipseg-pocket"]),
        ("threshold", ["threshold", "1.5"]),
    ],
)
def test_one_clear_line_and_an_exit_code(failed_starts, name, words):
    code, said = failed_starts[name]
    assert code == 1
    assert len(said.strip().splitlines()) == 1, said
    assert said.startswith("referring: ") and "Traceback" not in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("required:=[giraffe]", ["giraffe", "red cup"]),
        ("motion:=fly", ["motion", "none, orbit"]),
        ("seed:=-1", ["seed", "-1"]),
        ("rate_hz:=0", ["rate_hz", "0.1"]),
    ],
)
def test_the_camera_refuses_wrong_parameters(ros, log, parameter, words):
    node = NodeProcess("sim_camera", log, [parameter])
    assert node.wait_end() == 1
    said = node.said()
    assert "Traceback" not in said and all(word in said for word in words), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_camera_ends_quietly(ros, log, number):
    node = NodeProcess("sim_camera", log)
    node.wait_said("scene of seed")
    assert node.end(number) == 0
    assert "Traceback" not in node.said()
