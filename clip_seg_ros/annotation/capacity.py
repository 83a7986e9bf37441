# SPDX-License-Identifier: Apache-2.0
"""How long many recordings take on many workers, and what becomes the limit first: a calculation.

A run has three parts. It looks at each recording (reads it once, for its hash and the times of its images), does the
shards, and writes the data set in one process. A machine copies a recording that lies at an address before its workers
begin with it; a path of a network is read while they work. What many share (storage, the driver) has room for so many
bytes, files or shards a second, which bounds the number of workers that it can feed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from clip_seg_ros.annotation.job import SHARD_FRAMES
from clip_seg_ros.annotation.shards import WARM_UP

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Assumptions:
    """What the calculation rests on. Those that say "measured" are figures of ``clip-seg bench annotate``."""

    recorded_h: float = 1000.0
    """Hours of recordings."""
    recording_h: float = 1.0
    """Hours of one recording."""
    recording_gb: float = 20.0
    """An hour of recording in 10^9 bytes: colour as JPEG and depth as PNG, 640x480, 30 images a second."""
    images_hz: float = 10.0
    """Images that are annotated, a second of recording."""
    workers: int = 100
    workers_a_machine: int = 8
    images_s: float = 5.0
    """Images a second of a worker: measured (rate_per_core), for one core; a GPU does some ten times as many."""
    shard_frames: int = SHARD_FRAMES
    is_copied: bool = True
    """Whether recordings lie at addresses, and are copied before they are read."""
    is_look_spread: bool = True
    """Whether the workers list the cameras and look at the recordings, and not the driver alone."""
    storage_gb_s: float = 5.0
    """What the storage of the recordings gives to all machines together."""
    network_gb_s: float = 1.25
    """What one machine can take: 10 Gbit/s."""
    hash_gb_s: float = 1.0
    """What one process can read and hash."""
    picture_kb: float = 40.0
    """A kept picture."""
    results_kb: float = 1.5
    """The objects of one image as a line of JSON."""
    write_gb_s: float = 1.0
    """What the storage of the results takes from all."""
    files_s: float = 2000.0
    """How many new files a second the storage of the results takes; NFS takes some thousands, a bucket of S3 3,500."""
    driver_ms: float = 5.0
    """The driver's processor time for a shard: measured (ray.driver)."""
    format_ms: float = 0.3
    """The time to write one image into the data set, in one process: measured (format)."""
    start_s: float = 30.0
    """The start of Ray, of a worker and of its model: measured (ray.start)."""


@dataclass(frozen=True)
class Load:
    """What one part of a run asks of what it uses."""

    name: str
    seconds: float
    """How long it would take if it were all that there is to do."""
    is_serial: bool
    """Whether nothing else goes on meanwhile, so that it adds to the whole."""


@dataclass(frozen=True)
class Plan:
    """What the calculation gives."""

    hours: float
    """How long the run takes."""
    efficiency: float
    """What workers would take that never wait, as a share of that, 0..1."""
    bottleneck: str
    """What becomes the limit first when workers are added."""
    bottleneck_workers: float
    """The number of workers from which on it takes as long as the work itself."""
    work_s: float
    """The time in which workers do shards, with the copies."""
    loads: tuple[Load, ...]
    """Everything that is shared, the slowest first."""


def planned(assumed: Assumptions) -> Plan:
    """Calculates a run."""
    images = assumed.recorded_h * _HOUR_S * assumed.images_hz
    warm = 1 + WARM_UP / assumed.shard_frames
    compute_s = images * warm / assumed.images_s
    loads = sorted(_loads(assumed, images), key=lambda load: -load.seconds)
    shared_s = max(load.seconds for load in loads if not load.is_serial)
    machines = max(1.0, assumed.workers / assumed.workers_a_machine)
    work_s = max((compute_s / assumed.workers) + _copying_s(assumed, machines), shared_s) + _tail_s(assumed, machines)
    whole_s = assumed.start_s + work_s + sum(load.seconds for load in loads if load.is_serial)
    ideal_s = compute_s / warm / assumed.workers
    slowest = loads[0]
    return Plan(
        hours=whole_s / _HOUR_S,
        efficiency=ideal_s / whole_s,
        bottleneck=slowest.name,
        bottleneck_workers=compute_s / slowest.seconds,
        work_s=work_s,
        loads=tuple(loads),
    )


def makespan_s(costs_s: Iterable[float], workers: int) -> float:
    """Returns when the last of several workers is done, each of whom takes the next piece when it is free, in seconds.

    Args:
        costs_s: How long each piece takes.
        workers: Their number.
    """
    free_s = [0.0] * workers
    for cost_s in costs_s:
        heapq.heappush(free_s, heapq.heappop(free_s) + cost_s)
    return max(free_s)


def predicted_speedup(images_s: float, images: int, shard_frames: int, workers: int) -> float:
    """Returns how much faster several workers do a recording than one, if only the sizes of shards matter.

    Args:
        images_s: Images a second of one worker.
        images: The images of the recording.
        shard_frames: Those of a shard.
        workers: The number of workers.
    """
    costs_s = []
    for begin in range(0, images, shard_frames):
        warm_up = min(begin, WARM_UP)
        costs_s.append((min(shard_frames, images - begin) + warm_up) / images_s)
    return sum(costs_s) / makespan_s(costs_s, workers)


def changed(assumed: Assumptions, changes: Sequence[str]) -> Assumptions:
    """Returns assumptions with others put in, such as "workers=20".

    Raises:
        ValueError: There is no such assumption, or the value is none for it; the message says so.
    """
    kinds = {field.name: type(getattr(assumed, field.name)) for field in fields(assumed)}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise ValueError(f"there is no assumption {name}: use {', '.join(kinds)}")
        try:
            value = text == "True" if kinds[name] is bool and text in ("True", "False") else kinds[name](float(text))
        except ValueError as error:
            raise ValueError(f"{change!r} sets no number") from error
        if value < 0 or (value == 0 and kinds[name] is not bool and not name.endswith(("_ms", "_kb", "start_s"))):
            raise ValueError(f"{change!r}: it must be above 0")
        assumed = replace(assumed, **{name: value})
    return assumed


def described(assumed: Assumptions) -> list[str]:
    """Returns the assumptions, one in a line."""
    return [f"assumed: {field.name} = {getattr(assumed, field.name):g}" for field in fields(assumed)]


def told(plan: Plan) -> list[str]:
    """Returns what the shared parts of a run ask for, one in a line."""
    lines = [f"{'work, with copies':<44} {plan.work_s / _HOUR_S:9.3f} h"]
    for load in plan.loads:
        words = f"{load.name}{', while nothing else goes on' if load.is_serial else ''}"
        lines.append(f"{words:<60} {load.seconds / _HOUR_S:9.3f} h")
    return lines


def _loads(assumed: Assumptions, images: float) -> list[Load]:
    total_gb = assumed.recorded_h * assumed.recording_gb
    written_gb = images * (assumed.picture_kb + assumed.results_kb) / 1e6
    shards = images / assumed.shard_frames
    lookers = assumed.workers if assumed.is_look_spread else 1
    machines = max(1.0, lookers / assumed.workers_a_machine)
    look_gb_s = min(assumed.storage_gb_s, assumed.network_gb_s * machines, assumed.hash_gb_s * lookers)
    return [
        # Which cameras a recording has is known when there is a copy; of a path, the driver reads the index alone.
        Load("listing the cameras of copies", total_gb / look_gb_s if assumed.is_copied else 0.0, True),
        Load("looking at the recordings", total_gb / look_gb_s, True),
        Load("reading from the storage", total_gb / assumed.storage_gb_s, False),
        Load("bytes written", written_gb / assumed.write_gb_s, False),
        # A picture for each image, and two files for each shard.
        Load("files written", (images + 2 * shards) / assumed.files_s, False),
        Load("the driver's part in shards", shards * assumed.driver_ms / 1e3, False),
        Load("writing the data set", images * assumed.format_ms / 1e3, True),
    ]


def _copying_s(assumed: Assumptions, machines: float) -> float:
    """Returns how long the workers of a machine wait for copies in all."""
    if not assumed.is_copied:
        return 0.0
    return assumed.recorded_h / assumed.recording_h / machines * _copy_s(assumed, machines)


def _copy_s(assumed: Assumptions, machines: float) -> float:
    """Returns how long a copy takes when all machines copy at once."""
    speed_gb_s = min(assumed.network_gb_s, assumed.storage_gb_s / machines)
    return assumed.recording_h * assumed.recording_gb / speed_gb_s


def _tail_s(assumed: Assumptions, machines: float) -> float:
    """Returns how long some wait in the end while others do their last shard: a copy to help with, and a shard."""
    copy_s = _copy_s(assumed, machines) if assumed.is_copied else 0.0
    return copy_s + (assumed.shard_frames + WARM_UP) / assumed.images_s
