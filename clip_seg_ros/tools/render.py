# SPDX-License-Identifier: Apache-2.0
"""``clip-seg render FOLDER``: renders images with phrases, classes and objects, as an example of a training folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from clip_seg_ros.data.rendered_folder import THINGS, write_rendered_folder
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sim.renderer import RendererUnavailable

_PICTURES = 200


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``render`` subcommand."""
    parser = subparsers.add_parser(
        "render",
        help="render a folder of pictures with phrases, classes and objects, an example to train on",
        description="Renders pictures of a table and writes them as a folder that `clip-seg train` and `clip-seg "
        "evaluate --data` read: with phrases and masks (folder:FOLDER), a class for every pixel "
        "(labelled_folder:FOLDER) and objects (coco:FOLDER:task=instances). Things of a workshop are named, which the "
        "embedded weights do not know.",
    )
    parser.add_argument("folder", type=Path, help="folder to write; it must be new or empty")
    parser.add_argument("--pictures", type=int, default=_PICTURES, metavar="N", help=f"how many (default: {_PICTURES})")
    parser.add_argument(
        "--things",
        choices=list(THINGS),
        default="workshop",
        help="what is named: " + "; ".join(f"{name}: {', '.join(kinds)}" for name, kinds in THINGS.items()),
    )
    parser.add_argument("--held-out", action="store_true", help="other scenes and shapes, to measure with")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Renders the folder; returns the exit code."""
    if args.pictures < 1:
        print(f"clip-seg render: --pictures must be at least 1, got {args.pictures}", file=sys.stderr)
        return 2
    try:
        with tqdm(total=args.pictures, desc="render", unit="picture") as bar:
            for ready in write_rendered_folder(args.folder, args.pictures, args.things, args.held_out):
                bar.update(ready - bar.n)
    except (DataError, RendererUnavailable, OSError) as error:
        print(f"clip-seg render: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"clip-seg render: stopped; {args.folder} is not complete: remove it", file=sys.stderr)
        return 130
    print(f"pictures, masks, phrases.csv, labels, classes.txt and annotations written to {args.folder}")
    return 0
