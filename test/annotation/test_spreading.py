# SPDX-License-Identifier: Apache-2.0
"""Whoever does the shards, and whoever dies meanwhile: the results are the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.shards import as_numbered, shards_of, survey
from clip_seg_ros.annotation.spreading import MOST_DEATHS, InProcess, Processes
from clip_seg_ros.sources.frames import open_frames
from written_sources import write_bag


@pytest.fixture(scope="module")
def job(tmp_path_factory, moving):
    bag = write_bag(tmp_path_factory.mktemp("recorded") / "bag", moving[:12])
    return Job(
        "",
        (Source("bag", str(bag)),),
        (Phrase("cup"),),
        model="clipseg-pocket",
        engine="eager",
        precision="float32",
        shard_frames=3,
    )


@pytest.fixture(scope="module")
def shards(job):
    return list(shards_of(job, 0, survey(as_numbered(open_frames(job.sources[0].spec)))))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, job, shards):
    """The files of a run in this process."""
    folder = tmp_path_factory.mktemp("wanted")
    InProcess().run(replace(job, out=str(folder)), shards, lambda report: None)
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def kill_workers() -> int:
    """Kills the processes that do shards; returns how many there were."""
    there = multiprocessing.active_children()
    for process in there:
        os.kill(process.pid, signal.SIGKILL)
    return len(there)


def test_two_processes_of_which_one_dies_give_the_same_bytes(tmp_path, job, shards, wanted):
    assert len(shards) == 4
    reports, killed = [], []

    def on_report(report):
        if not reports:
            killed.append(kill_workers())
        reports.append(report)

    Processes(2).run(replace(job, out=str(tmp_path)), iter(shards), on_report)
    assert killed[0] >= 1
    assert sorted(report.shard.number for report in reports) == [0, 1, 2, 3]
    assert [report.fault for report in reports] == [""] * 4
    assert files_of(tmp_path) == wanted
    assert not multiprocessing.active_children()


def test_a_shard_that_its_workers_die_of_is_reported_and_fails_nothing_else(tmp_path, job, shards, wanted):
    reports, over = [], threading.Event()

    def kill_until_over():
        while not over.wait(0.05):
            kill_workers()

    def on_report(report):
        over.set()
        reports.append(report)

    killer = threading.Thread(target=kill_until_over)
    killer.start()
    Processes(1).run(replace(job, out=str(tmp_path)), shards, on_report)
    killer.join()
    assert [report.shard.number for report in reports] == [0, 1, 2, 3]
    assert reports[0].fault.startswith(f"{MOST_DEATHS} workers died of it")
    assert [report.fault for report in reports[1:]] == [""] * 3
    missing = {name for name in wanted if name not in files_of(tmp_path) and not name.startswith("images")}
    assert missing == {"shards/bag/0000.json", "shards/bag/0000.jsonl"}


def test_what_concerns_all_shards_ends_the_run(tmp_path, job, shards):
    wrong = replace(job, out=str(tmp_path), model="nobody-knows")
    with pytest.raises(ValueError, match="there is no model"):
        Processes(2).run(wrong, shards, lambda report: None)
    assert not multiprocessing.active_children()
