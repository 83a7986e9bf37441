# SPDX-License-Identifier: Apache-2.0
"""The examples, as a newcomer runs them: programs of their own, on rendered pictures or beside running nodes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

import example_table
from clip_seg_ros import resources
from clip_seg_ros.sim.renderer import RenderedView

EXAMPLES = Path(__file__).parents[1] / "examples"
TABLE = EXAMPLES / "table"
MAX_LINES = 40
"""An example is read at a glance."""
PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def views() -> dict[str, RenderedView]:
    return example_table.views()


def run(name: str, *arguments: object) -> str:
    """Runs an example from another folder, as an installed package allows; returns what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=PATIENCE_S)
    assert result.returncode == 0, result.stderr
    return result.stdout


def centroid_of(printed: str) -> list[float]:
    """(x, y) of the only line that tells a centroid."""
    (pair,) = re.findall(r"centroid \((\d+), (\d+)\) px", printed)
    return [float(value) for value in pair]


def centre_of(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)[::-1]


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


def test_examples_are_short_and_listed() -> None:
    scripts = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/*.cpp")]
    listed = (EXAMPLES / "README.md").read_text()

    assert len(scripts) == 6
    assert [path.name for path in scripts if len(path.read_text().splitlines()) > MAX_LINES] == []
    assert [path.name for path in scripts if f"({path.relative_to(EXAMPLES)})" not in listed] == []


def test_the_pictures_are_those_that_are_rendered(views: dict[str, RenderedView], tmp_path: Path) -> None:
    example_table.write(tmp_path, views)

    assert sorted(path.name for path in TABLE.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    assert (TABLE / "camera.yaml").read_text() == (tmp_path / "camera.yaml").read_text()
    for path in (path for path in TABLE.iterdir() if path.suffix != ".yaml"):
        kept, rendered = (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (path, tmp_path / path.name))
        # Graphics drivers differ by a grey level or a millimetre, and along edges.
        assert np.mean(np.abs(kept.astype(float) - rendered) > 8) < 0.02, path.name


def test_a_phrase_becomes_a_position_in_metres(views: dict[str, RenderedView], tmp_path: Path) -> None:
    view = views["color"]
    truth = view.mask_of("red", "cup")

    example_table.write(tmp_path, views)
    printed = run("phrase_to_metres.py", "red cup", tmp_path)

    assert centroid_of(printed) == pytest.approx(centre_of(truth), abs=5)
    position_m = [float(value) for value in printed.split("forward): ")[1].split()]
    rows, columns = np.nonzero(truth)
    depth_m = view.depth_m[truth]
    lens = view.intrinsics
    true_m = [np.median((columns - lens.cx) / lens.fx * depth_m), np.median((rows - lens.cy) / lens.fy * depth_m)]
    assert position_m == pytest.approx([*true_m, np.median(depth_m)], abs=0.01)


def test_an_example_image_is_a_prompt(views: dict[str, RenderedView]) -> None:
    printed = run("image_prompt.py")

    assert centroid_of(printed) == pytest.approx(centre_of(views["color"].mask_of("red", "cup")), abs=5)


def test_a_list_of_classes_labels_every_pixel(views: dict[str, RenderedView], tmp_path: Path) -> None:
    printed = run("class_list.py", tmp_path / "labels.png")

    labels = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_GRAYSCALE)
    classes = ("cup", "box", "bottle", "bowl", "plate", "table")
    shares = [float(share) / 100 for share in re.findall(r": ([\d.]+)% of the picture", printed)]
    assert shares == pytest.approx([np.mean(labels == index) for index in range(len(classes))], abs=0.001)
    for index, name in enumerate(classes[:-1]):
        truth = views["color"].mask_of(kind=name)
        assert iou(labels == index, truth) > 0.5, name


def test_windows_find_small_things_in_a_large_image(views: dict[str, RenderedView], tmp_path: Path) -> None:
    printed = run("sliding_window.py", "red cup", tmp_path / "mask.png")

    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    assert f", {np.count_nonzero(mask)} through 12 windows" in printed
    assert iou(mask, views["large"].mask_of("red", "cup")) > 0.85  # 0.51 without windows


@pytest.fixture(scope="module")
def running_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The simulated camera before a red cup, and the node ``referring``, as ``demo.launch.py`` starts them."""
    pytest.importorskip("rclpy", reason="the clients need ROS 2")
    profile = str(resources.config_dir() / "fastdds_shm.xml")
    logs = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FASTDDS_DEFAULT_PROFILES_FILE", profile)
        environment.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", profile)
        scene = ["-p", "seed:=3", "-p", "required:=[red cup]", "-p", "rate_hz:=2.0"]
        camera = [sys.executable, "-m", "clip_seg_ros.nodes.sim_camera", "--ros-args", *scene]
        referring = [sys.executable, "-m", "clip_seg_ros.nodes.referring"]
        with program(camera, logs / "camera"), program(referring, logs / "referring"):
            yield


@contextmanager
def program(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A program that runs for as long as the block and writes all that it says into a file; ends it as Ctrl-C does."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, cwd="/")
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_said(process: subprocess.Popen, log: Path, pattern: str) -> str:
    """Returns what a program wrote once that holds ``pattern``."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not re.search(pattern, said := log.read_text()):
        assert process.poll() is None, f"the program ended and never said {pattern}:\n{said}"
        assert time.monotonic() < deadline_s, f"waited in vain for {pattern}:\n{said}"
        time.sleep(0.05)
    return said


FOUND = r"red cup: score 0\.\d\d, \(-?\d\.\d{3}, -?\d\.\d{3}, 0\.\d{3}\) m in camera_color_optical_frame"


def test_a_python_client_prints_what_a_node_finds(running_nodes: None, tmp_path: Path) -> None:
    log = tmp_path / "client"
    with program([sys.executable, str(EXAMPLES / "ros_client.py")], log) as client:
        wait_said(client, log, FOUND)


def test_a_cpp_client_prints_what_a_node_finds(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    prefixes = os.environ.get("CMAKE_PREFIX_PATH", "") + os.pathsep + os.environ.get("AMENT_PREFIX_PATH", "")
    if not any((Path(prefix) / "share" / "rclcpp").is_dir() for prefix in filter(None, prefixes.split(os.pathsep))):
        pytest.skip("rclcpp is not here: a ROS 2 that is installed has it, the one made of Python wheels does not")
    request.getfixturevalue("running_nodes")
    shutil.copytree(EXAMPLES / "cpp_client", tmp_path / "source")
    for command in (["cmake", "-S", "source", "-B", "build", f"-DPython3_EXECUTABLE={sys.executable}"],
                    ["cmake", "--build", "build"]):  # fmt: skip
        built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    log = tmp_path / "client"
    with program([str(tmp_path / "build" / "client")], log) as client:
        wait_said(client, log, FOUND)
