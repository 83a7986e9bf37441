# SPDX-License-Identifier: Apache-2.0
"""The six commands of docs/tutorials/from_a_recording.md, on a recording of some images, up to the node that serves."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.annotation.decisions import Decision
from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.annotation.linking import all_frames
from clip_seg_ros.annotation.manifest import read_job
from clip_seg_ros.annotation.review import Review
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.msg import LabelNames
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common.qos import LATCHED
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.tools.cli import main
from ros_harness import Camera, NodeProcess, SemanticWatcher, wait_until
from small_teacher import SMALL

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "from_a_recording.md"
SMALLER = {
    "record": "--seconds 1 --rate 6 --cameras 1 --size 160x120",
    "annotate": "--every 1 --engine eager --device cpu --threads 1",
    "distill": f"--network {SMALL} --size 64 --steps 3 --batch 2 --device cpu",
    "evaluate": "--device cpu",
}
"""What is added to the commands of the page so that they take seconds; what comes last counts."""
TOPIC = "/from_a_recording/image"
CLI = [sys.executable, "-m", "clip_seg_ros.tools.cli"]


@dataclass(frozen=True)
class Outcome:
    """What the commands left and said."""

    folder: Path
    said: dict[str, str]
    """What each of them said, by the command as it is on the page."""


def commands(start: str) -> list[str]:
    """The commands of the page that begin with a word, in its order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(start)]


def looked_at(command: str) -> str:
    """Serves the page of a review, looks at it, decides something as a person would, and ends it."""
    options = ["--no-browser", "--port", "0"]
    with subprocess.Popen(
        [*CLI, *shlex.split(command)[1:], *options], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        said = process.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address, said
        with urllib.request.urlopen(address[0]) as answer:
            assert answer.status == 200
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
    review = Review(Path(shlex.split(command)[2]))
    frame = next(frame for frame in review.frames() if frame.objects)
    review.decide(Decision("reject", "somebody", frame.source, frame.index, 0))
    review.close()
    return said


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder, said = tmp_path_factory.mktemp("loop"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands("clip-seg"):
            name = command.split()[1]
            if name == "review" and "--write" not in command:
                said[command] = looked_at(command)
                continue
            words = shlex.split(command)[1:]
            more = [] if "--annotations" in words else shlex.split(SMALLER.get(name, ""))
            assert main([*words, *more]) == 0, command
            said[command] = ""
    return Outcome(folder, said)


def test_the_page_has_six_steps() -> None:
    steps = ["record", "annotate", "review", "review", "distill", "evaluate", "evaluate"]
    assert [command.split()[1] for command in commands("clip-seg")] == steps
    assert len(commands("ros2")) == 1


def test_what_was_decided_is_in_the_data_set(outcome: Outcome) -> None:
    found = open_dataset({"kind": "annotated", "root": str(outcome.folder / "kitchen"), "task": "instances"})
    written = sum(len(found[index].labels) for index in range(len(found)))
    folder = outcome.folder / "kitchen"
    found_at_first = sum(len(frame.objects) for frame in all_frames(folder, read_job(folder)))
    # One object was rejected, and the command of the page wrote what was left.
    assert written == found_at_first - 1
    entries = json.loads((folder / COCO).read_text(encoding="utf-8"))["annotations"]
    assert len(entries) == found_at_first - 1


def test_the_launch_file_has_the_arguments_of_the_page() -> None:
    from clip_seg_ros.config import SemanticConfig
    from clip_seg_ros.settings import parameters

    (command,) = commands("ros2")
    arguments = dict(word.split(":=") for word in shlex.split(command) if ":=" in word)
    assert arguments.pop("nodes") == "semantic"
    assert arguments.pop("semantic_model") == "$PWD/kitchen.safetensors"
    assert set(arguments) <= {parameter.name for parameter in parameters(SemanticConfig)}


def test_the_network_is_served(outcome: Outcome, ros: None, view: RenderedView, tmp_path: Path) -> None:
    model = outcome.folder / "kitchen.safetensors"
    watcher = SemanticWatcher("from_a_recording")
    node = NodeProcess(
        "semantic", tmp_path / "log", [f"model:={model}", f"image_topic:={TOPIC}"], namespace="from_a_recording"
    )
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        with Camera(depth=False, topic=TOPIC) as camera:
            stamp = camera.send(fill_image(Image(), view.rgb, "rgb8"))
            labels = watcher.of_stamp("semantic/labels", stamp)
        heard = watcher.hear(LabelNames, "semantic/label_names", LATCHED)
        names = wait_until(lambda: heard, "names")[-1]
        annotate = shlex.split(next(command for command in commands("clip-seg annotate")))
        phrases = annotate[annotate.index("--prompts") + 1 : annotate.index("--every")]
        assert [*names.names] == ["background", *phrases]
        assert np.frombuffer(labels.data, np.uint8).size == view.rgb.shape[0] * view.rgb.shape[1]
        assert node.end() == 0, node.said()
    finally:
        watcher.close()
        node.end()
