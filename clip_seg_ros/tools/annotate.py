# SPDX-License-Identifier: Apache-2.0
"""``clip-seg annotate``: makes a data set of recordings, videos and pictures, with masks of what is named."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from tqdm import tqdm

from clip_seg_ros.annotation.files import write_whole
from clip_seg_ros.annotation.job import Job, ShardReport
from clip_seg_ros.annotation.layout import TIME
from clip_seg_ros.annotation.naming import cameras_here
from clip_seg_ros.annotation.ray_joining import RayFailed, RayOptions, joined
from clip_seg_ros.annotation.ray_spreading import RaySpreading
from clip_seg_ros.annotation.review import damage_words
from clip_seg_ros.annotation.running import Prepared, Progress, looked_here, missing_shards, prepare, write_data_set
from clip_seg_ros.annotation.serving import cautions, check_names, forget_models, resolved, resolved_for_gpus
from clip_seg_ros.annotation.shards import selected
from clip_seg_ros.annotation.spreading import Executor, InProcess, Processes
from clip_seg_ros.annotation.storage import Storage, open_storage
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.tools.annotate_options import RAY_HERE, add_options, formats_of, job_of, require_shared_paths

_SHOWN = 10
"""The most notes and faults that are printed."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``annotate`` subcommand."""
    parser = subparsers.add_parser(
        "annotate",
        help="make a data set of recordings: masks of what you name, without labelling",
        description="Finds what you name in pictures, videos and ROS bags, and writes a data set with masks, ids that "
        "last, and positions where there is depth. Stopped at any moment, the same command goes on where it was.",
        epilog="exit codes: 0; 1 a part of the recordings could not be annotated; 2 wrong arguments; 130 interrupted",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    try:
        formats = formats_of(args)
        require_shared_paths(args)
        options = _ray_options(args)
        with joined(options) if options else nullcontext(), open_storage(args.out) as storage:
            return _annotate(args, storage, formats)
    except ValueError as error:  # DataError and OtherRun are
        return _fail(str(error), 2)
    except (WeightsError, RayFailed, OSError) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        print("\nclip-seg annotate: interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130


def _annotate(args: argparse.Namespace, storage: Storage, formats: Sequence[str]) -> int:
    started_s = time.monotonic()
    executor = _executor(args)
    listing, looking = cameras_here, looked_here
    if isinstance(executor, RaySpreading):
        listing, looking = executor.cameras, executor.look
    check_names(asked := job_of(args, listing))
    is_for_gpus = args.ray is not None and args.ray_gpus > 0 and args.device != "cpu"
    with tqdm(desc="look", unit="B", unit_scale=True, leave=False) as bar:
        prepared = prepare(asked, storage, bar.update, looking, resolved_for_gpus if is_for_gpus else resolved)
    for note in [*cautions(prepared.job), *prepared.notes][:_SHOWN]:
        print(f"note: {note}")
    if not isinstance(executor, InProcess):
        forget_models()  # the workers have their own
    progress = _done(prepared, executor)
    if progress.images == 0 and progress.faults:
        _say_faults(progress)
        return 1
    counts = write_data_set(prepared, storage, formats, lambda name: print(f"writing {name}", flush=True))
    for shard in missing_shards(prepared, storage):
        if shard not in progress.failed:
            fault = f"it was done, but is not in {args.out}: does each worker see the same folder?"
            progress.add(ShardReport(shard, 0, 0, 0.0, fault=fault), prepared.job)
    _say(prepared.job, progress, counts, args.out)
    if fault := damage_words(storage.folder):
        print(f"note: {fault}")
    spent_s = time.monotonic() - started_s
    _keep_time(storage, progress, spent_s, args.workers or (1 if args.ray is None else None))
    _say_faults(progress)
    return 1 if progress.faults else 0


def _executor(args: argparse.Namespace) -> Executor:
    if (options := _ray_options(args)) is not None:
        return RaySpreading(options, tqdm.write)
    return InProcess() if args.workers in (None, 1) else Processes(args.workers)


def _ray_options(args: argparse.Namespace) -> RayOptions | None:
    if args.ray is None:
        return None
    return RayOptions(None if args.ray == RAY_HERE else args.ray, args.workers, args.ray_cpus, args.ray_gpus)


def _done(prepared: Prepared, executor: Executor) -> Progress:
    """Has all shards done, and shows how far they are and how long they will take."""
    job, progress = prepared.job, Progress(faults=prepared.faults)
    with tqdm(total=prepared.images, desc="annotate", unit="image") as bar:

        def on_report(report: ShardReport) -> None:
            progress.add(report, job)
            count = selected(job, report.shard.begin, report.shard.end)
            if report.seconds == 0.0 and not report.fault:
                # What was done at an earlier time must not make the rest look quick.
                bar.initial += count
            bar.update(count)

        executor.run(job, prepared.shards(), on_report)
    return progress


def _say(job: Job, progress: Progress, counts: dict[str, Any], out: str) -> None:
    print(f"{counts['images']} images, {counts['objects']} objects, {counts['doubtful']} of them doubtful")
    for name, count in counts["objects_of"].items():
        tracks = counts["tracks_of"][name]
        print(f"  {name}: {count} objects" + (f", {tracks} tracks" if tracks else ""))
    if progress.new_images and progress.seconds:
        rate = progress.new_images / progress.seconds / job.threads
        words = f"{rate:.2f} images a second and core"
        if counts["recorded_s"] and progress.new_images == progress.images:
            hours = progress.seconds * job.threads / counts["recorded_s"]
            words += f", {hours:.2f} core hours for an hour of recording"
        print(words)
    for note in progress.notes[:_SHOWN]:
        print(f"note: {note}")
    if len(progress.notes) > _SHOWN:
        print(f"note: {len(progress.notes) - _SHOWN} more in the shards of {out}")


def _say_faults(progress: Progress) -> None:
    for fault in progress.faults[:_SHOWN]:
        print(f"clip-seg annotate: not annotated: {fault}", file=sys.stderr)
    if len(progress.faults) > _SHOWN:
        print(f"clip-seg annotate: and {len(progress.faults) - _SHOWN} more stretches", file=sys.stderr)
    if progress.faults:
        print("clip-seg annotate: the same command tries these again", file=sys.stderr)


def _keep_time(storage: Storage, progress: Progress, spent_s: float, workers: int | None) -> None:
    """Keeps how long the last run took, apart from all that is the same in each run."""
    kept = {
        "seconds": round(spent_s, 3),
        "worker_seconds": round(progress.seconds, 3),
        "images": progress.new_images,
        "workers": workers,
    }
    write_whole(storage.folder / TIME, (json.dumps(kept, indent=2) + "\n").encode())
    storage.publish(TIME)


def _fail(message: str, code: int) -> int:
    print(f"clip-seg annotate: {message}", file=sys.stderr)
    return code
