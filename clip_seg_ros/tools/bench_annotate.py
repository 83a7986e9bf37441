# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench annotate``: how fast recordings are annotated, by one worker and by two, with Ray and without.

Each measurement is a process of its own, and they take turns. What is timed is from the first shard to the last report;
the start of Ray and the loading of models are told apart from it. The recording is a video that is drawn here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.annotation import capacity
from clip_seg_ros.annotation.job import SHARD_FRAMES, Job, Phrase, ShardReport, Source
from clip_seg_ros.evaluation.suite import Figure

_PHRASES = ("red box", "blue cup", "green ball", "table")
_SIZE = (320, 240)
_RATE_HZ = 10.0
_LONGER = 10
_KINDS = ("workers", "ray")


class BenchError(Exception):
    """A measurement failed; the message says which."""


@dataclass(frozen=True)
class Measured:
    """What one process measured."""

    whole_s: float
    """From the beginning of the spreading to the last report, with the start of workers and of Ray."""
    work_s: float
    """From the time when the first shard was begun to the last report."""
    images: int
    worker_s: float
    """The time that workers took for shards, together."""
    driver_s: float
    """The processor time of this process meanwhile, in seconds."""
    shards: int
    format_s: float
    """The time to write the data set; 0 if it was not written."""
    peak_mib: float
    """The largest memory of this process."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench annotate``."""
    add = parser.add_argument
    add("--frames", type=int, default=2000, metavar="N", help="images of a measurement (default: %(default)s)")
    add("--turns", type=int, default=3, metavar="N", help="number of turns (default: %(default)s)")
    add("--shard-frames", type=int, default=SHARD_FRAMES, metavar="N", help="images of a shard (default: %(default)s)")
    add("--no-memory", action="store_true", help=f"leave out the memory for a recording {_LONGER} times as long")
    add("--plan", action="store_true", help="calculate 1,000 hours on 100 workers, and measure nothing")
    add("--assume", nargs="*", default=[], metavar="NAME=VALUE", help="other assumptions for --plan, which prints them")
    add("--json", type=Path, metavar="FILE", help='figures as a list of {"name", "value", "unit"}')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures or calculates and prints each figure once it is known; returns the exit code."""
    figures: list[Figure] = []

    def note(name: str, value: float, unit: str, what: str) -> None:
        figures.append(Figure(f"annotate.{name}", round(value, 4), unit))
        print(f"{value:10.3f} {unit:<8} {what}", flush=True)

    try:
        if args.plan:
            _plan(args.assume, note)
        else:
            _measure(args, note)
    except (BenchError, ValueError, OSError) as error:
        print(f"clip-seg bench annotate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if args.json:
        args.json.write_text(json.dumps([each.to_dict() for each in figures], indent=2) + "\n", encoding="utf-8")
    return 0


def _plan(changes: Sequence[str], note: Callable[..., None]) -> None:
    assumed = capacity.changed(capacity.Assumptions(), changes)
    for line in capacity.described(assumed):
        print(line)
    plan = capacity.planned(assumed)
    for line in capacity.told(plan):
        print(line)
    note("plan.hours", plan.hours, "h", f"for {assumed.recorded_h:g} hours on {assumed.workers} workers")
    note("plan.efficiency", 100 * plan.efficiency, "%", "of what workers without any waiting would do")
    note("plan.bottleneck_workers", plan.bottleneck_workers, "workers", f"until {plan.bottleneck} is the limit")


def _measure(args: argparse.Namespace, note: Callable[..., None]) -> None:
    with tempfile.TemporaryDirectory(prefix="clip_seg_bench_annotate_") as name:
        folder = Path(name)
        video = draw_video(folder / "recording.mp4", args.frames)
        found: dict[tuple[str, int], list[Measured]] = {(kind, count): [] for kind in _KINDS for count in (1, 2)}
        for turn in range(args.turns):
            order = list(found) if turn % 2 == 0 else list(reversed(found))
            for kind, count in order:
                out = folder / f"{kind}_{count}_{turn}"
                found[kind, count].append(_child(kind, count, video, out, args.shard_frames, writes=False))
        _rates(found, args, note)
        if not args.no_memory:
            _memory(folder, args, note)


def _rates(found: dict[tuple[str, int], list[Measured]], args: argparse.Namespace, note: Callable[..., None]) -> None:
    rate = {key: statistics.median(each.images / each.work_s for each in those) for key, those in found.items()}
    whole_s = {key: statistics.median(each.whole_s for each in those) for key, those in found.items()}
    for (kind, count), value in rate.items():
        note(f"{kind}.rate_{count}", value, "1/s", f"images with {count} of {kind}")
    for kind in _KINDS:
        note(f"{kind}.speedup_2", rate[kind, 2] / rate[kind, 1], "", f"times as fast with 2 of {kind} as with 1")
    note("ray.of_plain_2", 100 * rate["ray", 2] / rate["workers", 2], "%", "of the rate of 2 plain workers, with Ray")
    for count in (1, 2):
        plain, ray = whole_s["workers", count], whole_s["ray", count]
        text = f"longer with Ray, its start included, for {args.frames} images and {count} workers"
        note(f"ray.overhead_{count}", 100 * (ray / plain - 1), "%", text)
    work = 100 * (rate["workers", 2] / rate["ray", 2] - 1)
    note("ray.overhead_work", work, "%", "longer with Ray, without the start, for 2 workers")
    one = found["workers", 1]
    image_s = statistics.median(each.worker_s / each.images for each in one)
    note("rate_per_core", 1 / image_s, "1/s", "images a second and core")
    note("core_hours", image_s * _RATE_HZ, "h", f"of a core for an hour of recording, {_RATE_HZ:g} images a second")
    starts = [each.whole_s - each.work_s for each in found["ray", 2]]
    note("ray.start", statistics.median(starts), "s", "until the first shard begins, with Ray")
    drivers = [1e3 * each.driver_s / each.shards for each in found["ray", 2]]
    note("ray.driver", statistics.median(drivers), "ms", "of the driver's processor for a shard, its start included")
    expected = capacity.predicted_speedup(rate["workers", 1], args.frames, args.shard_frames, 2)
    note("plan.speedup_2", expected, "", "times as fast with 2 workers, by the calculation of --plan")
    measured = rate["ray", 2] / rate["ray", 1]
    note("plan.error", 100 * (expected / measured - 1), "%", "that the calculation is above what was measured with Ray")


def _memory(folder: Path, args: argparse.Namespace, note: Callable[..., None]) -> None:
    peaks = []
    for count in (max(1, args.frames // _LONGER), args.frames):
        video = draw_video(folder / f"memory_{count}.mp4", count)
        measured = _child("alone", 1, video, folder / f"memory_{count}", args.shard_frames, writes=True)
        peaks.append(measured.peak_mib)
        note(f"memory_{len(peaks)}", measured.peak_mib, "MiB", f"at most for {count} images, with the data set written")
    note("format", 1e3 * measured.format_s / measured.images, "ms", "to write an image in COCO's format")
    note("memory_growth", 100 * (peaks[1] / peaks[0] - 1), "%", f"more memory for a recording {_LONGER} times as long")


def draw_video(file: Path, count: int) -> Path:
    """Writes a video of boxes, balls and cups that move over a table; returns the file. Raises BenchError."""
    width, height = _SIZE
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), _RATE_HZ, _SIZE)
    if not writer.isOpened():
        raise BenchError("OpenCV cannot write videos here")
    grain = np.random.default_rng(1).integers(-12, 12, (height, width, 1))
    table = np.clip(np.array((110, 140, 160)) + grain, 0, 255).astype(np.uint8)
    for number in range(count):
        picture, shift = table.copy(), 40 * np.sin(number / 20)
        x = int(60 + shift)
        cv2.rectangle(picture, (x, 60), (x + 60, 110), (30, 30, 190), -1)
        cv2.circle(picture, (220, int(80 + shift / 2)), 25, (40, 160, 40), -1)
        cv2.rectangle(picture, (180 - x // 2, 150), (220 - x // 2, 210), (190, 70, 30), -1)
        writer.write(picture)
    writer.release()
    return file


def _child(kind: str, count: int, video: Path, out: Path, shard_frames: int, writes: bool) -> Measured:
    asked = {"kind": kind, "count": count, "video": str(video), "out": str(out), "shard_frames": shard_frames}
    command = [sys.executable, "-m", __spec__.name, json.dumps({**asked, "writes": writes})]
    # One thread a worker, as on a machine that is full of them.
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode:
        raise BenchError(f"{count} of {kind} failed:\n{result.stderr[-2000:]}")
    return Measured(**json.loads(result.stdout.splitlines()[-1]))


def measured_here(kind: str, count: int, video: str, out: str, shard_frames: int, writes: bool) -> Measured:
    """Annotates a video in this process or from it, and measures that.

    Args:
        kind: "alone", "workers" or "ray".
        count: The number of workers.
        video: The video.
        out: The folder of the run, which must not exist.
        shard_frames: Images of a shard.
        writes: Whether the data set is written, too.

    Raises:
        BenchError: A shard failed.
    """
    from clip_seg_ros.annotation.running import prepare, write_data_set
    from clip_seg_ros.annotation.serving import forget_models
    from clip_seg_ros.annotation.storage import open_storage

    job = Job(
        out=out,
        sources=(Source("recording", video),),
        phrases=tuple(Phrase(text) for text in _PHRASES),
        device="cpu",
        engine="eager",
        shard_frames=shard_frames,
    )
    reports: list[ShardReport] = []
    times_s: list[float] = []

    def on_report(report: ShardReport) -> None:
        reports.append(report)
        times_s.append(time.monotonic())

    with open_storage(out) as storage:
        prepared = prepare(job, storage)
        if kind != "alone":
            forget_models()
        begun_s, cpu_s = time.monotonic(), time.process_time()
        _executor(kind, count).run(prepared.job, prepared.shards(), on_report)
        driver_s, ended_s = time.process_time() - cpu_s, time.monotonic()
        if writes:
            write_data_set(prepared, storage, ["coco"])
    if faults := [report.fault for report in reports if report.fault]:
        raise BenchError("; ".join(faults[:3]))
    work_s = times_s[-1] - min(time_s - report.seconds for time_s, report in zip(times_s, reports, strict=True))
    images, worker_s = sum(each.images for each in reports), sum(each.seconds for each in reports)
    format_s = time.monotonic() - ended_s if writes else 0.0
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(times_s[-1] - begun_s, work_s, images, worker_s, driver_s, len(reports), format_s, peak_mib)


def _executor(kind: str, count: int):
    from clip_seg_ros.annotation.ray_joining import RayOptions
    from clip_seg_ros.annotation.ray_spreading import RaySpreading
    from clip_seg_ros.annotation.spreading import InProcess, Processes

    return {
        "alone": InProcess,
        "workers": lambda: Processes(count),
        "ray": lambda: RaySpreading(RayOptions(workers=count)),
    }[kind]()


if __name__ == "__main__":
    print(json.dumps(asdict(measured_here(**json.loads(sys.argv[1])))))
