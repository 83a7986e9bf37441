# SPDX-License-Identifier: Apache-2.0
"""``clip-seg watch``: prints the statuses and objects of nodes, without the ``ros2`` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from clip_seg_ros.tools.processes import ChildDied
from clip_seg_ros.tools.simulation import NoRos
from clip_seg_ros.tools.talking import Changes, Talk, add_arguments, nobody, objects_lines, seconds, status_line

NOTHING, NOBODY = 1, 3
"""The exit codes other than 0."""


def add_parser(subparsers: Any) -> None:
    """Adds ``watch`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "watch",
        help="print what running nodes answer and find, as it changes",
        description="Prints the answers to commands, and the objects that are found as they come, go and move, until "
        "Ctrl-C. ROS_DOMAIN_ID names the ROS domain.",
        epilog="exit codes: 0; with --once: 1 no objects came in time, 3 no node runs",
    )
    parser.set_defaults(run=run)
    add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="end after the objects of one image")
    parser.add_argument("--json", action="store_true", help="print every event as a line of JSON")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds that --once waits for objects (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Watches until Ctrl-C; returns the exit code."""
    try:
        with Talk("clip-seg watch", ["--namespace", args.namespace]) as talk:
            return _watch(talk, args)
    except (NoRos, ChildDied) as error:
        return _fail(str(error), NOBODY)
    except KeyboardInterrupt:
        return 130 if args.once else 0


def _watch(talk: Talk, args: argparse.Namespace) -> int:
    changes, deadline_s = Changes(), None
    while (event := talk.next(deadline_s)) is not None:
        if event["event"] == "nobody":
            words = nobody(event, os.environ.get("ROS_DOMAIN_ID"))
            if args.once:
                return _fail(words, NOBODY)
            print(f"clip-seg watch: {words}. Still waiting (Ctrl-C ends)", file=sys.stderr, flush=True)
        elif event["event"] == "connected":
            deadline_s = time.monotonic() + args.timeout if args.once else None
        elif event["event"] == "status":
            _print(event, [f"command {event['id']} {event['command']!r}: {status_line(event)}"], args.json)
        elif changes.is_new(event):
            _print(event, objects_lines(event), args.json)
            if args.once:
                return 0
    where = f"/{args.namespace.strip('/')}"
    return _fail(
        f"no objects came within {args.timeout:g} s: does a camera send images, and has the node in {where} something "
        'to look for? Type: clip-seg say "segment the red cup"',
        NOTHING,
    )


def _print(event: dict[str, Any], lines: list[str], as_json: bool) -> None:
    for line in [json.dumps(event)] if as_json else lines:
        print(line, flush=True)


def _fail(message: str, code: int) -> int:
    print(f"clip-seg watch: {message}", file=sys.stderr)
    return code
