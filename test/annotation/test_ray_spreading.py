# SPDX-License-Identifier: Apache-2.0
"""The shards of a run on workers of Ray, which are killed, and on machines, which go away."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.annotation import ray_spreading
from clip_seg_ros.annotation.job import Job, Phrase, Shard, ShardReport, Source
from clip_seg_ros.annotation.ray_joining import RayOptions, joined
from clip_seg_ros.annotation.ray_spreading import CRASHES, RaySpreading, Worker
from clip_seg_ros.annotation.serving import resolved
from clip_seg_ros.annotation.shards import as_numbered, shards_of, survey
from clip_seg_ros.annotation.spreading import InProcess
from clip_seg_ros.sources.frames import open_frames

pytest.importorskip("ray", reason="the package ray is not installed")
TWO = RayOptions(workers=2)


class Deadly(Worker):
    """Dies of the second shard."""

    def annotate(self, shard: Shard) -> ShardReport:
        if shard.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().annotate(shard)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, numbers = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for number in range(10):
        picture = np.full((120, 160, 3), (90, 120, 140), np.uint8)
        x, y = (int(each) for each in numbers.integers(10, 60, 2))
        cv2.rectangle(picture, (x, y), (x + 50, y + 40), (20, 20, 200), -1)
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def job_for(photos: Path) -> Callable[[Path | str], Job]:
    def made(out: Path | str) -> Job:
        sources = (Source("photos", str(photos)), Source("missing", str(photos / "missing.mcap")))
        asked = Job(str(out), sources, (Phrase("red box", 0.3),), engine="eager", device="cpu", shard_frames=2)
        return resolved(asked)

    return made


def shards_of_photos(job: Job) -> list[Shard]:
    return list(shards_of(job, 0, survey(as_numbered(open_frames(job.sources[0].spec)))))


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def plain(job_for: Callable[[Path], Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without Ray writes."""
    folder, reports = tmp_path_factory.mktemp("plain"), list[ShardReport]()
    job = job_for(folder)
    InProcess().run(job, shards_of_photos(job), reports.append)
    assert [report.fault for report in reports] == [""] * 5
    return content(folder)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with joined(TWO):
        yield


def workers_here() -> list[int]:
    """Returns the processes of the workers of this process."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue

    def is_mine(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_mine(parents[pid]))

    return [pid for pid, title in titles.items() if title.startswith(b"ray::Worker") and is_mine(pid)]


@pytest.mark.usefixtures("ray_here")
def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    job_for: Callable[[Path], Job], plain: dict[str, bytes], tmp_path: Path
) -> None:
    job, reports, killed = job_for(tmp_path), list[ShardReport](), list[int]()

    def kill_at_first(report: ShardReport) -> None:
        reports.append(report)
        if not killed:
            killed.extend(workers_here())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    RaySpreading(TWO).run(job, shards_of_photos(job), kill_at_first)

    assert killed
    assert sorted(report.shard.number for report in reports) == [0, 1, 2, 3, 4]
    assert [report.fault for report in reports] == [""] * 5
    assert content(tmp_path) == plain


@pytest.mark.usefixtures("ray_here")
def test_shards_that_fail_are_reported_and_fail_nothing_else(
    job_for: Callable[[Path], Job], plain: dict[str, bytes], tmp_path: Path
) -> None:
    job, reports = job_for(tmp_path), list[ShardReport]()
    first, second, *_ = shards_of_photos(job)
    sys.modules["ray"].cloudpickle.register_pickle_by_value(sys.modules[__name__])

    RaySpreading(TWO, worker=Deadly).run(job, [first, second, Shard(1, 0, 0, 2)], reports.append)

    faults = {(report.shard.source, report.shard.number): report.fault for report in reports}
    assert faults[0, 0] == ""
    assert faults[0, 1].startswith(f"{CRASHES} workers were lost over it")
    assert "missing.mcap" in faults[1, 0]
    name = "shards/photos/0000.jsonl"
    assert content(tmp_path)[name] == plain[name]


@pytest.mark.usefixtures("ray_here")
def test_workers_publish_at_an_address(
    job_for: Callable[[Path | str], Job], plain: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("fsspec", reason="addresses need fsspec")
    job, reports = job_for(f"file://{tmp_path}/run"), list[ShardReport]()

    RaySpreading(TWO).run(job, shards_of_photos(job)[:1], reports.append)

    assert [report.fault for report in reports] == [""]
    found = content(tmp_path / "run")
    assert found == {name: plain[name] for name in found}
    assert "shards/photos/0000.jsonl" in found


@pytest.mark.usefixtures("ray_here")
def test_that_a_busy_cluster_is_waited_for_is_said(
    job_for: Callable[[Path], Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = sys.modules["ray"]
    monkeypatch.setattr(ray_spreading, "_LOOK_S", 0.01)
    job = job_for(tmp_path)
    pool = ray.util.placement_group([{"CPU": 2}])
    ray.get(pool.ready())
    said = list[str]()

    class Said(Exception):
        pass

    def end(text: str) -> None:
        said.append(text)
        raise Said

    try:
        with pytest.raises(Said):
            RaySpreading(TWO, warn=end).run(job, shards_of_photos(job), print)
    finally:
        ray.util.remove_placement_group(pool)
    assert "each takes 1 CPUs and 0 GPUs" in said[0]
    assert "0 CPUs and 0 GPUs are free" in said[0]
