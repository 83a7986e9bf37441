# SPDX-License-Identifier: Apache-2.0
"""The demo as people start it: a process that starts three more."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros import resources
from clip_seg_ros.config import WebViewConfig
from clip_seg_ros.viewer.needed import missing_package
from domains import own_domain_environment

# Nodes of other tests may be alive in this run's domain.
ENVIRONMENT = own_domain_environment()
# The first start of another engine takes seconds.
DEMO = [sys.executable, "-m", "clip_seg_ros.tools.cli", "demo", "--engine", "eager"]


def demo(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_once_finds_the_red_cup_and_reports(tmp_path):
    run = demo(tmp_path, "--once", "--report", "r.json", "--json", "figures.json")

    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["command"] == "segment the red cup"
    assert report["prompts"] == ["red cup"]
    assert report["seed"] == 0
    assert report["found"] is True
    assert report["iou"] > 0.5
    assert report["latency_ms"] > 0
    assert report["centroid_error_px"] < 15
    assert report["position_error_m"] < 0.05
    assert {item["name"] for item in json.loads((tmp_path / "figures.json").read_text())} >= {
        "demo.found",
        "demo.median_iou",
    }
    assert cv2.imread(str(tmp_path / "clip_seg_demo.png")).shape == (480, 640, 3)
    assert "red cup" in run.stdout
    assert "IoU" in run.stdout


def test_what_is_absent_is_not_found_in_several_scenes(tmp_path):
    run = demo(tmp_path, "--absent", "--seeds", "0-2", "--report", "r.json", "--command", "find the blue ball")

    assert run.returncode == 0, run.stdout + run.stderr
    reports = json.loads((tmp_path / "r.json").read_text())
    assert [report["seed"] for report in reports] == [0, 1, 2]
    assert sum(report["found"] for report in reports) <= 1
    assert all(report["iou"] is None for report in reports)


def test_a_dead_process_ends_the_demo_with_its_reason(tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(resources.weights_dir(), weights)
    (weights / "clipseg_pocket.safetensors").unlink()

    run = demo(tmp_path, "--once", CLIP_SEG_WEIGHTS_DIR=str(weights))

    assert run.returncode == 1
    assert "referring ended with exit code 1" in run.stderr
    assert "clipseg_pocket.safetensors" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_time_out_says_so(tmp_path):
    run = demo(tmp_path, "--once", "--timeout", "0.5")
    assert run.returncode == 1
    assert "waited 0.5 s in vain" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", ["", "stop", "segment " + "x" * 10_000])
def test_a_command_that_is_none_starts_nothing(tmp_path, command):
    run = demo(tmp_path, "--once", "--command", command)
    assert run.returncode == 2
    assert run.stderr.startswith("clip-seg demo: ")
    assert not run.stdout


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seeds", "9-3"], ["--seeds", "a-b"]])
def test_wrong_seeds_are_explained(tmp_path, arguments):
    run = demo(tmp_path, *arguments)
    assert run.returncode == 2
    assert arguments[0] in run.stderr


def test_a_person_talks_to_it(tmp_path):
    typed = ["help", "use cris", "find the red cup", "segmnt the redcup", "what do you see?", "quit", "find the bowl"]
    run = subprocess.run(
        [*DEMO, "--command", "find the red cup"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        input="\n".join(typed) + "\n",
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    expected = (
        'type for example "segment the red cup"',
        "cris-pocket serves now",
        "red cup: 1 found",
        'did you mean "segment the red cup"?',
        "I see ",
    )
    place = run.stdout.index("Type another command")
    for words in expected:
        place = run.stdout.index(words, place)
    assert "bowl" not in run.stdout[place:].partition("\n")[2], "quit ends it"


def read_until(run: subprocess.Popen, words: str) -> str:
    """Reads what the demo says up to a line with these words, and returns that line."""
    for line in run.stdout:
        if words in line:
            return line
    pytest.fail(f"the demo never said {words!r}")


@pytest.fixture
def taken_port():
    """The port of the view, on which somebody listens already."""
    try:
        listener = socket.create_server(("127.0.0.1", WebViewConfig.port))
    except OSError:  # somebody else does
        yield WebViewConfig.port
        return
    with listener:
        yield WebViewConfig.port


@pytest.mark.skipif(bool(missing_package()), reason=missing_package())
def test_it_is_shown_in_the_browser_at_a_port_that_is_free(tmp_path, taken_port):
    from browsers import CHROMIUM, chromium, opened
    from view_client import ViewClient

    with subprocess.Popen(
        DEMO, cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            address = read_until(run, "In the browser: ").split()[-1]
            assert f":{taken_port}/" not in address
            with ViewClient(address) as viewer:
                viewer.look("")
                header, jpeg = viewer.picture(lambda header: header["things"])
                assert header["things"][0]["prompt"] == "red cup"
                assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[2] == 3
            if CHROMIUM:
                with chromium() as browser, opened(browser, address) as page:
                    page.locator("#things tr", has_text="red cup #").first.wait_for()
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=200)
        finally:
            run.kill()
    assert run.returncode == 0


def test_ctrl_c_ends_every_process(tmp_path):
    run = subprocess.Popen(
        DEMO, cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 300
        expected = 3 if missing_package() else 4
        while len(children := children_of(run.pid)) < expected:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=200)[0].decode()
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert "Traceback" not in said, said
    # One that multiprocessing or a shell left behind may take a moment.
    deadline = time.monotonic() + 60
    while left := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline, f"{left} outlived the demo:\n{said}"
        time.sleep(0.05)
