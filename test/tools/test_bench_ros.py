# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench ros``: its arithmetic, its mistakes, and one short measurement with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.tools import bench_ros
from clip_seg_ros.tools.bench_ros import Timing, served_by, summary, table_line, timings
from domains import own_domain_environment

# Nodes of other tests may be alive in this run's domain.
ENVIRONMENT = own_domain_environment()
BENCH = [sys.executable, "-m", "clip_seg_ros.tools.cli", "bench", "ros"]

LINE = (
    "[DEBUG] [1.3] [clip_seg.referring]: image {}: {} ms to arrive, {} ms waiting, {} ms in the model, {} ms from "
    "stamp to answer, {} images received\n"
)
LOG = "[INFO] [1.2] [clip_seg.referring]: image 7 is not such a line\n" + "".join(
    LINE.format(*words)
    for words in (
        (2_000_000, "3.50", "10.25", "40.00", "60.00", 8),
        (1_000_000, "2.50", "0.00", "30.00", "40.00", 3),
        (4_000_000, "2.50", "0.00", "30.00", "40.00", 9),
    )
)


def bench(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*BENCH, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def processes_left() -> list[str]:
    """The command lines of what runs in this file's domain."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"ROS_DOMAIN_ID={ENVIRONMENT['ROS_DOMAIN_ID']}".encode() in environment and "clip_seg_ros.nodes." in command:
            found.append(command)
    return found


def test_what_node_and_observer_noted_is_put_together():
    # Image 3 is in no log; image 4 in the log alone.
    images = timings([(2_000_000, 64_000_000), (1_000_000, 42_500_000), (3_000_000, 50_000_000)], LOG)
    assert images == [Timing(41.5, 2.5, 0.0, 30.0, 42.5, 3), Timing(62.0, 3.5, 10.25, 40.0, 64.0, 8)]
    assert [image.rest for image in images] == [11.5, 11.75]


def test_the_engine_is_the_one_that_the_node_names():
    assert served_by("[INFO]: clipseg-pocket is run by openvino in bfloat16 (3 times as fast)\n") == "openvino bfloat16"
    assert served_by(LOG) == "unknown engine"


def test_the_rest_is_taken_image_by_image():
    images = [Timing(50.0 + i, 2.0, float(i), 40.0 + i / 2, 1000.0 + 100 * i, 7 + 3 * i) for i in range(11)]
    row = summary(images, sent=60, seconds=2.0)
    rests = sorted(10.0 - i / 2 for i in range(11))
    assert row["rest_median"] == (pytest.approx(rests[5]), "ms") == (pytest.approx(7.5), "ms")
    assert row["rest_p99"][0] == pytest.approx(np.interp(9.9, range(11), rests))
    assert row["latency_median"][0] == 55.0
    assert row["waiting_median"][0] == 5.0
    assert row["model_median"][0] == 42.5
    assert row["sent"] == (30.0, "1/s")
    assert row["answered"] == (5.5, "1/s")
    assert row["received"] == (pytest.approx(30.0), "1/s")
    line = table_line("shared_memory", row).removeprefix(bench_ros.TRANSPORTS["shared_memory"])
    assert [float(word) for word in line.split()] == [30.0, 30.0, 5.5, 55.0, 59.9, 42.5, 45.0, 5.0, 9.9, 7.5, 9.9]
    assert [word for word in bench_ros._HEAD.split() if word == "median"] == ["median"] * 4


def test_a_transport_that_carries_no_image_is_a_result():
    row = summary([], sent=60, seconds=2.0)
    assert row == {"sent": (30.0, "1/s"), "answered": (0.0, "1/s")}
    assert "no image reached the node" in table_line("default", row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "not a number from 0.1"),
        (["--size", "big"], "not a size such as 1920x1080"),
        (["--size", "8x4096"], "not a size such as 1920x1080"),
        (["--rate", "500"], "--rate must be at most 120"),
        (["--seconds", "soon"], "not a number from 0.1"),
        (["--json", "/nowhere/at/all.json"], "name a file in a folder that exists"),
        (["--command", "stop"], "names nothing to look for"),
    ],
)
def test_wrong_arguments_start_nothing(arguments, message):
    run = bench(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert not run.stdout
    assert "Traceback" not in run.stderr


def test_without_ros_it_says_what_is_missing(monkeypatch, capsys):
    from clip_seg_ros.tools.cli import main

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "ros"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("clip-seg bench: ")
    assert "Source the built workspace" in said.err
    assert not said.out


def test_an_unknown_model_is_refused_before_anything_starts():
    run = bench("--model", "no-such-model")
    assert run.returncode == 2
    assert "no-such-model" in run.stderr
    assert "Traceback" not in run.stderr
    assert not processes_left()


def test_both_transports_are_measured_and_every_process_ends(tmp_path):
    path = tmp_path / "figures.json"
    start_s = time.monotonic()
    for seconds in (2, 8, 32):  # on a slow machine that is busy, two seconds may be too short for a single answer
        run = bench(
            "--seconds",
            str(seconds),
            "--rate",
            "10",
            "--size",
            "320x240",
            "--depth",
            "--engine",
            "eager",
            "--json",
            str(path),
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert not processes_left()
        assert f"320x240 at 10 Hz for {seconds} s" in run.stdout
        assert len(run.stdout.splitlines()) == 5
        figures = {item["name"]: item for item in json.loads(path.read_text())}
        if "ros.shared_memory.received" in figures:
            break
    value = {name.removeprefix("ros.shared_memory."): item["value"] for name, item in figures.items()}
    assert 0 < value["received"] <= 15
    assert 5 <= value["sent"] <= 15
    assert 0 < value["answered"] <= value["sent"] + 0.5
    assert 0 < value["model_median"] < value["latency_median"] < 1e3 * (time.monotonic() - start_s)
    assert 0 < value["rest_median"] <= value["rest_p99"]
    assert 0 < value["arrival_median"] < value["latency_median"]
    assert value["waiting_median"] >= 0
    assert figures["ros.default.sent"]["unit"] == "1/s"
    assert figures["ros.default.engine.eager_float32"]["value"] == 1
    assert "  eager in float32\n" in run.stdout
