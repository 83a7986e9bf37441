# SPDX-License-Identifier: Apache-2.0
"""Spreads the shards of a run over workers. What comes out does not depend on how they are spread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from clip_seg_ros.annotation.job import Job, Shard, ShardReport
from clip_seg_ros.annotation.worker import annotate_shard

MOST_DEATHS = 3
"""A shard that so many workers died of is given up."""


class Executor(Protocol):
    """Does the shards of a job."""

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """Does all shards, each with ``worker.annotate_shard``, and returns when they are done.

        Args:
            job: A job whose models are known (``serving.resolved``).
            shards: The shards; there may be many, so that they are taken one by one, as workers become free.
            on_report: Called on this thread with the report of each shard, in any order. A shard whose worker dies is
                tried again, and reported with a fault when that does not help.

        Raises:
            ValueError, WeightsError: What concerns all shards, such as a model that cannot be loaded.
        """


class InProcess:
    """Does one shard after the other in this process."""

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """See ``Executor``."""
        for shard in shards:
            on_report(annotate_shard(job, shard))


class Processes:
    """Does shards in several processes of this machine. Each has one shard at a time, so that one dies of its own.

    Args:
        count: The number of processes, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """See ``Executor``."""
        crew = _Crew(self._count)
        coming, again = iter(shards), deque[Shard]()
        deaths: dict[Shard, int] = {}
        try:
            while True:
                while crew.has_idle and (shard := again.popleft() if again else next(coming, None)) is not None:
                    crew.give(job, shard)
                ended = crew.ended()
                if not ended:
                    return
                for shard, report in ended:
                    if report is not None:
                        deaths.pop(shard, None)
                        on_report(report)
                        continue
                    deaths[shard] = deaths.get(shard, 0) + 1
                    if deaths[shard] < MOST_DEATHS:
                        again.append(shard)
                    else:
                        why = f"{deaths.pop(shard)} workers died of it: is there enough memory?"
                        on_report(ShardReport(shard, 0, 0, 0.0, fault=why))
        finally:
            crew.dismiss()


class _Crew:
    """Processes of which each does one shard at a time; one that dies is replaced."""

    def __init__(self, count: int) -> None:
        self._idle = [_new_pool() for _ in range(count)]
        self._working: dict[Future[ShardReport], tuple[ProcessPoolExecutor, Shard]] = {}

    @property
    def has_idle(self) -> bool:
        """Whether a process has nothing to do."""
        return bool(self._idle)

    def give(self, job: Job, shard: Shard) -> None:
        """Lets an idle process do a shard."""
        pool = self._idle.pop()
        try:
            future = pool.submit(annotate_shard, job, shard)
        except BrokenProcessPool:  # it died while it had nothing to do
            pool.shutdown(wait=False)
            pool = _new_pool()
            future = pool.submit(annotate_shard, job, shard)
        self._working[future] = (pool, shard)

    def ended(self) -> list[tuple[Shard, ShardReport | None]]:
        """Waits for a process to end a shard; returns all that did, ``None`` for a report if the process died.

        Raises:
            Exception: What ``annotate_shard`` raised.
        """
        done = wait(self._working, return_when=FIRST_COMPLETED).done
        found: list[tuple[Shard, ShardReport | None]] = []
        for future in done:
            pool, shard = self._working.pop(future)
            try:
                found.append((shard, future.result()))
                self._idle.append(pool)
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                self._idle.append(_new_pool())
                found.append((shard, None))
            except BaseException:
                self._idle.append(pool)
                raise
        return found

    def dismiss(self) -> None:
        """Ends all processes at once; what they were doing is done again another time."""
        for pool in [*self._idle, *(pool for pool, _ in self._working.values())]:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)


def _begin() -> None:
    """Prepares a worker: Ctrl-C is for the first process alone, and a worker ends with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="end with the run", daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
