# SPDX-License-Identifier: Apache-2.0
"""``clip-seg segment SOURCE... --prompts "red cup"``: finds what is named in pictures, videos, webcams and bags."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_seg_ros.tools.engine_options import add_engine_options, complain
from clip_seg_ros.tools.source_options import SOURCE, add_model_options

if TYPE_CHECKING:
    from clip_seg_ros.annotation.segment_run import Run

COMMAND = "clip-seg segment"
NOTHING, WRONG, IN_PART, STOPPED = 1, 2, 3, 130
"""The exit codes other than 0."""


def add_parser(subparsers: Any) -> None:
    """Adds ``segment`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "segment",
        help="find what you name in pictures, a video, a webcam or a bag",
        description="Finds what you name, and writes pictures or a video with what was found, masks, and the objects "
        "as lines of JSON, with positions in metres where a bag has depth. Neither ROS nor a robot is needed.",
        epilog="exit codes: 0 all was answered; 1 nothing could be; 2 wrong arguments; 3 a part could not be read; 130 "
        "Ctrl-C, which ends it with what is there",
    )
    parser.set_defaults(run=run)
    parser.add_argument("source", nargs="*", metavar="SOURCE", help=f"{SOURCE}; or several of these")
    asked = parser.add_argument_group("what to look for")
    asked.add_argument(
        "--prompts",
        nargs="+",
        default=[],
        metavar="TEXT",
        help='such as "red cup" "bowl"; or a file with one on each line, as for annotate',
    )
    asked.add_argument(
        "--command", default="", metavar="TEXT", help='in a sentence, such as "find the cup left of the blue box"'
    )
    asked.add_argument(
        "--threshold",
        type=_share,
        metavar="P",
        help="a pixel belongs to it above this, 0..1 (default: the model's own)",
    )
    _add_selection(parser.add_argument_group("which pictures"))
    _add_output(parser.add_argument_group("what is written"))
    model = parser.add_argument_group("the model")
    add_model_options(model)
    add_engine_options(model)


def _add_selection(group: Any) -> None:
    group.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="TOPIC",
        help="a topic of the colour images of bags (default: all that there are)",
    )
    group.add_argument("--every", type=_count, default=1, metavar="N", help="only one of N pictures (default: all)")
    group.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="only the first S seconds of a webcam, video or bag (default: all)",
    )
    group.add_argument(
        "--frame",
        default="",
        metavar="FRAME",
        help="frame of positions, such as map, by the tf in a bag (default: the camera's)",
    )


def _add_output(group: Any) -> None:
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: segmented, then segmented_2, ...)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run in --out")
    group.add_argument("--video", action="store_true", help="write a video of bags, too, instead of pictures")
    group.add_argument("--no-overlay", action="store_true", help="write no pictures and no video")
    group.add_argument("--no-masks", action="store_true", help="write no masks")


def run(args: argparse.Namespace) -> int:
    """Answers the sources; returns the exit code."""
    if not args.source:
        named = [each for each in args.prompts if Path(each).exists()]
        hint = f": {named[0]} was taken for something to look for, name sources first" if named else ""
        return _fail(f'no SOURCE{hint}, for example clip-seg segment photo.jpg --prompts "red cup"', WRONG)
    for variable, value in (("OPENCV_LOG_LEVEL", "OFF"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        os.environ.setdefault(variable, value)  # of what is damaged, our own words tell
    # Imported here, because help needs none of it, and torch takes seconds.
    _say("loading the model")
    from clip_seg_ros.annotation.segment_run import Options, Run
    from clip_seg_ros.data.samples import DataError
    from clip_seg_ros.models.checkpoints import WeightsError

    options = Options(
        sources=tuple(args.source),
        topics=tuple(args.topic),
        prompts=tuple(args.prompts),
        command=args.command,
        threshold=args.threshold,
        every=args.every,
        seconds=args.seconds,
        frame=args.frame,
        out=args.out,
        overwrite=args.overwrite,
        video=args.video,
        overlays=not args.no_overlay,
        masks=not args.no_masks,
        model=args.model,
        device=args.device,
        engine=args.engine,
        precision=args.precision,
    )
    try:
        work = Run(options)
        work.load()
        complain(COMMAND, work.predictor.chosen)
        for text in work.cautions():
            _say(text)
        with _stopping() as is_stopped:
            work.run(is_stopped)
    except (DataError, WeightsError, OSError) as error:
        return _fail(str(error), NOTHING)
    except ValueError as error:
        return _fail(str(error), WRONG)
    return _end(work)


def _end(work: Run) -> int:
    for line in work.report():
        print(line)
    for fault in work.faults:
        _say(fault)
    if work.was_stopped:
        _say("stopped; what was answered before is there")
        return STOPPED
    if not work.images:
        return _fail("no picture was answered", NOTHING)
    return IN_PART if work.faults else 0


@contextmanager
def _stopping() -> Iterator[Any]:
    """Yields whether Ctrl-C was pressed, or the process was asked to end; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def on_signal(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _say(message: str) -> None:
    print(f"{COMMAND}: {message}", file=sys.stderr, flush=True)


def _fail(message: str, code: int) -> int:
    _say(message)
    return code
