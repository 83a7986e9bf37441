# SPDX-License-Identifier: Apache-2.0
"""``clip-seg annotate --ray ADDRESS`` on a cluster of which a machine is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clip_seg_ros.annotation.ray_joining import imported
from clip_seg_ros.annotation.results import located_frames

pytest.importorskip("ray", reason="the package ray is not installed")
ANNOTATE = [sys.executable, "-m", "clip_seg_ros.tools.cli", "annotate"]
COUNT = 10
PATIENCE_S = 240.0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        picture = np.full((120, 160, 3), (90, 120, 140), np.uint8)
        cv2.rectangle(picture, (10 + 4 * number, 30), (50 + 4 * number, 70), (20, 20, 200), -1)
        assert cv2.imwrite(str(tmp_path / "photos" / f"{number:02d}.png"), picture)
    return tmp_path / "photos"


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose only machine so far can do no work."""
    imported()
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=small))
    yield cluster
    cluster.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    """Returns what starts; Ray gives up after 30 seconds, which a busy machine may need."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "run_time.json")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_machine_that_is_lost_loses_nothing_and_doubles_nothing(cluster: Any, photos: Path, tmp_path: Path) -> None:
    def added() -> Any:
        return patiently(lambda: cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20))

    second = added()
    cluster.wait_for_nodes()
    options = [str(photos), "--prompts", "red box", "--engine", "eager", "--shard-frames", "1", "--device", "cpu"]
    out, plain = tmp_path / "out", tmp_path / "plain"

    with subprocess.Popen(
        [*ANNOTATE, *options, "--out", str(out), "--ray", cluster.address, "--ray-cpus", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        begun_s = time.monotonic()
        while len(list(out.glob("shards/*/*.jsonl"))) < 3:
            assert run.poll() is None, run.communicate()[0]
            assert time.monotonic() < begun_s + PATIENCE_S
            time.sleep(0.05)
        # Until here there is no other machine that works, so that these are of the one that is lost.
        cluster.remove_node(second, allow_graceful=False)
        done = {file: file.stat().st_mtime_ns for file in out.glob("shards/*/*.jsonl")}
        added()
        said = run.communicate(timeout=PATIENCE_S)[0]

    assert run.returncode == 0, said
    assert 3 <= len(done) < COUNT
    assert {file: file.stat().st_mtime_ns for file in done} == done
    frames = [frame.index for file in sorted(out.glob("shards/*/*.jsonl")) for _, frame in located_frames(file)]
    assert frames == list(range(COUNT))
    assert json.loads((out / "run.json").read_text())["is_finished"]
    subprocess.run([*ANNOTATE, *options, "--out", str(plain)], check=True, capture_output=True)
    assert content(out) == content(plain)
