# SPDX-License-Identifier: Apache-2.0
"""The options of ``clip-seg annotate``, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clip_seg_ros.annotation.formats import FORMATS
from clip_seg_ros.annotation.job import SHARD_FRAMES, Job, Selection
from clip_seg_ros.annotation.naming import Listing, cameras_here, sources_of
from clip_seg_ros.annotation.prompts import read_prompts
from clip_seg_ros.annotation.storage import is_address
from clip_seg_ros.sources.frames import KINDS
from clip_seg_ros.tools.engine_options import add_engine_options

_T = TypeVar("_T", int, float)
RAY_HERE = "here"
"""The address of a Ray that is started for the run."""
DEFAULT_FORMATS = ("coco", "labels")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help=f"{KINDS.replace('the number of a webcam such as 0, or', 'or')}")
    add(
        "--prompts",
        nargs="+",
        required=True,
        metavar="PHRASE",
        help='what to find: phrases, or a file with one on each line; "box = 0.6" sets a threshold, "not white box" '
        "leaves something out",
    )
    add("--out", required=True, metavar="DIR", help="the folder of the data set")
    add("--topic", action="append", default=[], help="a topic of colour images of bags (default: all that there are)")
    add(
        "--formats",
        default=",".join(DEFAULT_FORMATS),
        metavar="A,B",
        help=f"how the data set is written: {', '.join(FORMATS)} (default: %(default)s)",
    )
    _add_selection(parser.add_argument_group("which images"))
    _add_answers(parser.add_argument_group("how they are answered"))
    _add_workers(parser.add_argument_group("who does it"))


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--every", type=_count, default=1, metavar="N", help="one of N images (default: %(default)d)")
    group.add_argument(
        "--least-change",
        type=_share,
        default=0.0,
        metavar="X",
        help="leave out images that differ by less from the last one that was kept: the mean difference of small grey "
        "copies, 0..1, such as 0.02 (default: keep all)",
    )
    group.add_argument(
        "--pictures",
        choices=("jpg", "png"),
        default="jpg",
        help="how images of videos and bags are kept (jpg)",
    )


def _add_answers(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", default="auto", help="name of a model or path of a weight file (default: auto)")
    group.add_argument(
        "--second-model", metavar="MODEL", help="a model whose answers are compared; where both differ, it is doubtful"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add_engine_options(group)
    group.add_argument(
        "--sure-from", type=_share, default=0.75, metavar="S", help="objects count as sure from this score on (0.75)"
    )
    group.add_argument(
        "--smoothing", type=_strength, default=0.6, metavar="S", help="of masks over time, 0 to 0.99 (default: 0.6)"
    )
    group.add_argument(
        "--min-area", type=_share, default=0.0, metavar="X", help="smallest object as a share of the image (default: 0)"
    )
    group.add_argument("--coarse-edges", action="store_true", help="do not fit masks to the edges of the image")
    group.add_argument("--keep-together", action="store_true", help="do not take apart objects that touch")


def _add_workers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="processes of this machine (default: 1), or workers of Ray (default: as many as there is room for)",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const=RAY_HERE,
        metavar="ADDRESS",
        help=f'workers of the Ray cluster "auto", HOST:PORT or ray://HOST:PORT; "{RAY_HERE}" or nothing: of a Ray that '
        "is started on this machine (the extra ray)",
    )
    group.add_argument(
        "--ray-cpus", type=_amount, default=1.0, metavar="N", help="processors of a worker of Ray (default: 1)"
    )
    group.add_argument(
        "--ray-gpus", type=_amount, default=0.0, metavar="N", help="GPUs of a worker of Ray, such as 0.5 (default: 0)"
    )
    group.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of each (default: 1)")
    group.add_argument(
        "--shard-frames",
        type=_count,
        default=SHARD_FRAMES,
        metavar="N",
        help="images that a worker does at a time, and about what is lost if it is stopped (default: %(default)d)",
    )


def job_of(args: argparse.Namespace, listing: Listing = cameras_here) -> Job:
    """Returns what the options ask for. Raises DataError if a source or a phrase is not understood."""
    phrases, negatives = read_prompts(args.prompts)
    return Job(
        out=args.out,
        sources=sources_of(args.sources, args.topic, listing),
        phrases=phrases,
        negatives=negatives,
        selection=Selection(args.every, args.least_change),
        sure_from=args.sure_from,
        model=args.model,
        second_model=args.second_model,
        device=args.device,
        engine=args.engine,
        precision=args.precision,
        threads=args.threads,
        refine_edges=not args.coarse_edges,
        separate_touching=not args.keep_together,
        smoothing=args.smoothing,
        min_area_fraction=args.min_area,
        picture_suffix=f".{args.pictures}",
        shard_frames=args.shard_frames,
    )


def require_shared_paths(args: argparse.Namespace) -> None:
    """Raises ValueError if a path is another one on other machines of a cluster, each of which has its own folders."""
    if args.ray in (None, RAY_HERE):
        return
    paths = [args.out, *args.sources]
    paths += [each for each in (args.model, args.second_model) if each and Path(each).expanduser().is_file()]
    for path in paths:
        if not is_address(path) and not path.isdecimal() and not Path(path).is_absolute():
            raise ValueError(
                f"{path} is another path on the other machines of a cluster: name one that begins with / and is the "
                "same on all of them, or an address such as s3://bucket/run"
            )


def formats_of(args: argparse.Namespace) -> list[str]:
    """Returns the formats that are asked for, in the order of ``FORMATS``. Raises ValueError if one is unknown."""
    wanted = {name.strip() for name in args.formats.split(",")} - {""}
    if unknown := sorted(wanted - set(FORMATS)):
        raise ValueError(f"there is no format {', '.join(unknown)}: use {', '.join(FORMATS)}")
    return [name for name in FORMATS if name in wanted]


def _count(text: str) -> int:
    return _number(text, int, 1, 1 << 30)


def _share(text: str) -> float:
    return _number(text, float, 0.0, 1.0)


def _amount(text: str) -> float:
    return _number(text, float, 0.0, 1024.0)


def _strength(text: str) -> float:
    return _number(text, float, 0.0, 0.99)


def _number(text: str, kind: Callable[[str], _T], least: _T, most: _T) -> _T:
    wrong = argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} to {most:g}")
    try:
        value = kind(text)
    except ValueError:
        raise wrong from None
    if not least <= value <= most:
        raise wrong
    return value
