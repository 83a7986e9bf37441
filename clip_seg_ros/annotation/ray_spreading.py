# SPDX-License-Identifier: Apache-2.0
"""Spreads the shards of a run over the machines of a Ray cluster.

A worker is an actor that loads the model once and does one shard at a time, so that whatever kills a worker concerns
one shard. Shards are written by the worker, whole or not at all; through Ray pass only a shard's bounds and its report.
A worker that is lost is replaced, and its shard is done again by another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

from clip_seg_ros.annotation.job import Job, Shard, ShardReport
from clip_seg_ros.annotation.manifest import SourceFacts
from clip_seg_ros.annotation.naming import Cameras, cameras_of
from clip_seg_ros.annotation.ray_joining import RayFailed, RayOptions, Versions, joined
from clip_seg_ros.annotation.running import looked_at
from clip_seg_ros.annotation.shard_queue import ShardQueue
from clip_seg_ros.annotation.shards import Survey
from clip_seg_ros.annotation.storage import is_address
from clip_seg_ros.data.samples import DataError

CRASHES = 3
"""A shard that has killed so many workers is given up."""
_LOSSES = 20
"""A shard is given up, too, that was lost so often with the machines that did it."""
_LOOK_S = 2.0
"""How often it is looked whether machines have come."""
_QUIET_LOOKS = 15
"""After so many times without any worker that has started, it is said why."""
_FAILED_STARTS = 3
_AT_ONCE = 1000
_T = TypeVar("_T")
_PAUSE_S = 5.0


class RaySpreading:
    """Does shards by workers of Ray.

    Args:
        options: Which Ray, and what a worker takes.
        warn: Takes what people should know meanwhile.
        worker: What the workers are.
    """

    def __init__(
        self, options: RayOptions, warn: Callable[[str], None] = print, worker: type[Worker] | None = None
    ) -> None:
        self.options, self._warn, self._worker = options, warn, worker or Worker

    def look(self, job: Job, on_bytes: Callable[[int], None]) -> list[tuple[SourceFacts, Survey]]:
        """Looks at the sources, as ``running.looked_here`` does, each on some machine.

        Raises:
            RayFailed: Ray cannot be used.
        """
        calls = [(job, index) for index in range(len(job.sources))]
        return self._each(_looked_at, calls, lambda found: on_bytes(found[0].size_bytes))

    def cameras(self, specs: Sequence[str], topics: Sequence[str]) -> list[Cameras]:
        """Lists the cameras of recordings, as ``naming.cameras_here`` does; those at addresses each on some machine.

        Raises:
            RayFailed: Ray cannot be used.
            DataError: Something cannot be opened.
        """
        # Of a path, only an index is read; and it may be one of this machine, which a clear error then says.
        calls = [(spec, tuple(topics)) for spec in specs if is_address(spec)]
        remote = dict(zip((spec for spec, _ in calls), self._each(cameras_of, calls, lambda _: None), strict=True))
        return [remote[spec] if spec in remote else cameras_of(spec, topics) for spec in specs]

    def _each(self, function: Callable[..., _T], calls: Sequence[tuple], on_answer: Callable[[_T], None]) -> list[_T]:
        """Returns what a function returns for each call, on some machine; some are under way at once."""
        if not calls:
            return []
        found: dict[int, _T] = {}
        with joined(self.options) as ray:
            task = ray.remote(function).options(num_cpus=self.options.cpus, max_retries=CRASHES)
            coming, waiting = iter(range(len(calls))), dict[Any, int]()
            while len(found) < len(calls):
                for index in islice(coming, _AT_ONCE - len(waiting)):
                    waiting[task.remote(*calls[index])] = index
                done, _ = ray.wait(list(waiting))
                index = waiting.pop(done[0])
                try:
                    found[index] = ray.get(done[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, DataError) else RayFailed(_told(error)) from None
                except ray.exceptions.RayError as error:
                    raise RayFailed(f"a source cannot be read: {_told(error)}") from error
                on_answer(found[index])
        return [found[index] for index in range(len(calls))]

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """Does all shards, those of a source one after the other in ``shards``.

        Args:
            job: What is to be done.
            shards: The shards.
            on_report: Takes the report of each shard, also of those that failed, in the order in which they end.

        Raises:
            RayFailed: Ray cannot be used, or no worker can start; the message says why.
            ValueError, WeightsError: What concerns all shards, such as weights that a machine does not have.
        """
        with joined(self.options) as ray:
            crew = _Crew(ray, ray.remote(self._worker), job, self.options, self._warn)
            try:
                _work(crew, ShardQueue(shards), on_report)
            finally:
                crew.dismiss()


def _looked_at(job: Job, index: int) -> tuple[SourceFacts, Survey]:
    return looked_at(job, index, lambda _: None)


class Worker:
    """What runs on a machine of the cluster.

    Args:
        job: What is to be done.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def versions(self) -> tuple[Versions, str, int]:
        """Returns what it runs, the id of its machine, and its process."""
        import ray

        return Versions.here(), ray.get_runtime_context().get_node_id(), os.getpid()

    def annotate(self, shard: Shard) -> ShardReport:
        """Does a shard."""
        from clip_seg_ros.annotation.worker import annotate_shard

        return annotate_shard(self._job, shard)

    def finish(self) -> None:
        """Removes the copies of recordings that nobody reads any more."""
        from clip_seg_ros.annotation.source_copies import own_copies

        own_copies().clear()


@dataclass
class _Member:
    """A worker as the driver knows it."""

    actor: Any
    machine: str = ""
    """The id of its machine; empty until it has started."""
    shard: Shard | None = None


class _Crew:
    """The workers of a run."""

    def __init__(
        self, ray: ModuleType, worker: Any, job: Job, options: RayOptions, warn: Callable[[str], None]
    ) -> None:
        self._ray, self._options, self._warn = ray, options, warn
        self._job = ray.put(job)
        self._made_by = worker.options(num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=0)
        self.idle: list[_Member] = []
        self._waiting: dict[Any, _Member] = {}
        """By the reference of what each is doing."""
        self._looked_s = -_LOOK_S
        self._target = 0
        self._not_before_s = 0.0
        self._failed_starts = 0
        self._warned = False
        self._quiet_looks: int | None = 0
        """How often nothing had started; ``None`` once a worker has, or once it was said."""

    def grow(self, queue: ShardQueue) -> None:
        """Makes workers while there is room for them and something to do."""
        now_s = time.monotonic()
        if now_s >= self._looked_s + _LOOK_S:
            self._looked_s, self._target = now_s, self._room()
        if now_s < self._not_before_s:
            return
        room = self._target - len(self.idle) - len(self._waiting)
        missing = queue.at_least(self._target) - len(self.idle) - (len(self._waiting) - self.working)
        for _ in range(min(room, missing)):
            member = _Member(self._made_by.remote(self._job))
            self._waiting[member.actor.versions.remote()] = member

    def give(self, member: _Member, shard: Shard) -> None:
        """Lets an idle worker do a shard."""
        member.shard = shard
        self._waiting[member.actor.annotate.remote(shard)] = member

    @property
    def working(self) -> int:
        """The number of workers that do a shard; others are starting or idle."""
        return sum(member.shard is not None for member in self._waiting.values())

    def ended(self) -> list[tuple[_Member, Any, Exception | None]]:
        """Waits for some workers, not for long, and returns them with what they returned or raised."""
        done, _ = self._ray.wait(list(self._waiting), timeout=_LOOK_S)
        if not done:
            self._say_if_busy()
        found: list[tuple[_Member, Any, Exception | None]] = []
        for reference in done:
            member = self._waiting.pop(reference)
            try:
                found.append((member, self._ray.get(reference), None))
            except self._ray.exceptions.RayTaskError as error:
                if member.shard is not None and isinstance(error.cause, Exception):
                    raise error.cause from None
                found.append((member, None, error))
            except self._ray.exceptions.RayError as error:
                found.append((member, None, error))
        return found

    def started(self, member: _Member, answer: tuple[Versions, str, int]) -> None:
        """Takes a worker that has started. Raises RayFailed if it would not do the same as others."""
        versions, member.machine, _ = answer
        if difference := Versions.here().difference(versions):
            raise RayFailed(f"a machine of the cluster has other versions: {difference}. Install the same on all")
        self._failed_starts, self._quiet_looks = 0, None
        self.idle.append(member)

    def not_started(self, error: Exception) -> None:
        """Notes that a worker could not start. Raises RayFailed if that happens again and again."""
        self._failed_starts += 1
        self._not_before_s = time.monotonic() + (_PAUSE_S if self._waiting or self.idle else 0.0)
        if self._failed_starts >= _FAILED_STARTS and not (self._waiting or self.idle):
            raise RayFailed(f"no worker can start; is clip_seg_ros[ray] installed on all machines? {_told(error)}")

    def lost(self, member: _Member) -> bool:
        """Removes a worker that has died; returns whether its machine is gone, so that the shard is not to blame."""
        # One that cannot be reached may still live.
        self._ray.kill(member.actor)
        self._looked_s = -_LOOK_S
        return member.machine not in {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def dismiss(self) -> None:
        """Ends all workers; idle ones remove the copies of their machines."""
        finishing = [member.actor.finish.remote() for member in self.idle]
        if finishing:
            self._ray.wait(finishing, num_returns=len(finishing), timeout=30.0)
        for member in (*self.idle, *self._waiting.values()):
            self._ray.kill(member.actor)
        self.idle.clear()
        self._waiting.clear()

    def _say_if_busy(self) -> None:
        if self._quiet_looks is None:
            return
        self._quiet_looks += 1
        if self._quiet_looks < _QUIET_LOOKS:
            return
        self._quiet_looks = None
        free = self._ray.available_resources()
        cpus, gpus = self._options.cpus, self._options.gpus
        self._warn(
            f"no worker has started yet: each takes {cpus:g} CPUs and {gpus:g} GPUs, and on all machines together "
            f"{free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs are free. It is waited for; if "
            "that is too little, ask for less with --ray-cpus and --ray-gpus"
        )

    def _room(self) -> int:
        """Returns for how many workers there is room, at least one."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus, gpus = self._options.cpus, self._options.gpus
        counts = []
        for node in nodes:
            rooms = [node.get(name, 0.0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
            counts.append(int(min(rooms, default=1.0) + 1e-9))
        if not sum(counts) and not self._warned:
            self._warned = True
            have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes[:10])
            text = f"no machine has room for a worker of {cpus:g} CPUs and {gpus:g} GPUs: there are {have}"
            if self._options.address is None:
                raise RayFailed(text)
            self._warn(f"{text}; waiting for one that has")
        return self._options.workers or max(1, sum(counts))


def _work(crew: _Crew, queue: ShardQueue, on_report: Callable[[ShardReport], None]) -> None:
    lost: dict[Shard, tuple[int, int]] = {}
    while queue.at_least(1) or crew.working:
        crew.grow(queue)
        while crew.idle and queue.at_least(1):
            member = crew.idle.pop()
            shard = queue.take(member.machine)
            assert shard is not None
            crew.give(member, shard)
        for member, answer, error in crew.ended():
            shard, member.shard = member.shard, None
            if shard is None:
                if error is None:
                    crew.started(member, answer)
                else:
                    crew.not_started(error)
            elif error is None:
                crew.idle.append(member)
                lost.pop(shard, None)
                on_report(answer)
            else:
                is_gone = crew.lost(member)
                if is_gone:
                    queue.forget(member.machine)
                crashes, losses = lost.pop(shard, (0, 0))
                crashes, losses = crashes + (not is_gone), losses + is_gone
                if crashes >= CRASHES or losses >= _LOSSES:
                    on_report(_given_up(shard, crashes + losses, error))
                else:
                    lost[shard] = (crashes, losses)
                    queue.put_back(shard)


def _given_up(shard: Shard, times: int, error: Exception) -> ShardReport:
    return ShardReport(shard, 0, 0, 0.0, fault=f"{times} workers were lost over it. {_told(error)}")


def _told(error: Exception) -> str:
    """Returns what an error of Ray says in a line; what comes last says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[-3:])[:500]}"
