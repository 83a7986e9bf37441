# SPDX-License-Identifier: Apache-2.0
"""``clip-seg say``: gives a node a command and prints its statuses, without the ``ros2`` command."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from clip_seg_ros.commands.awaited import AwaitedStatuses
from clip_seg_ros.tools.processes import ChildDied
from clip_seg_ros.tools.simulation import NoRos
from clip_seg_ros.tools.talking import Talk, add_arguments, nobody, seconds, status_line, topic_name

NOT_FOUND, REFUSED, NOBODY, NO_OUTCOME = 1, 2, 3, 4
"""The exit codes other than 0, which says that an object was found or a command was done."""
_CODES = {"found": 0, "not found": NOT_FOUND, "failed": NOT_FOUND, "rejected": REFUSED}


def add_parser(subparsers: Any) -> None:
    """Adds ``say`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "say",
        help="give a running node a command, and print its answers",
        description='Gives a running node a command, for example "segment the red cup", and prints its answers. '
        "ROS_DOMAIN_ID names the ROS domain.",
        epilog="exit codes: 0 found, or done; 1 not found, or failed; 2 rejected; 3 no node listens; 4 accepted, and "
        "no outcome in time",
    )
    parser.set_defaults(run=run)
    parser.add_argument("text", nargs="+", metavar="TEXT", help="the command")
    add_arguments(parser)
    parser.add_argument(
        "--topic",
        type=topic_name,
        default="command",
        metavar="TOPIC",
        help="topic of the commands (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds to wait for the outcome (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Gives the command and waits for its outcome; returns the exit code."""
    text = " ".join(args.text)
    # The form with "=" is used because a text may begin with a dash.
    arguments = ["--namespace", args.namespace, "--topic", args.topic, f"--say={text}"]
    try:
        with Talk("clip-seg say", arguments) as talk:
            return _converse(talk, args, AwaitedStatuses(text))
    except (NoRos, ChildDied) as error:
        return _fail(str(error), NOBODY)
    except KeyboardInterrupt:
        return 130


def _converse(talk: Talk, args: argparse.Namespace, wanted: AwaitedStatuses) -> int:
    deadline_s = None
    accepted = False
    while (event := talk.next(deadline_s)) is not None:
        if event["event"] == "nobody":
            return _fail(nobody(event, os.environ.get("ROS_DOMAIN_ID")), NOBODY)
        if event["event"] == "connected":
            deadline_s = time.monotonic() + args.timeout
        elif event["event"] == "status":
            accepted = True
            print(status_line(event), flush=True)
            if wanted.take(event):
                return _CODES[wanted.verdict]
    if not accepted:
        return _fail(f"no answer within {args.timeout:g} s, although a node listens on {args.topic}", NO_OUTCOME)
    if "done" in wanted.missing:
        return _fail(f"the model is not ready after {args.timeout:g} s; --timeout waits longer", NO_OUTCOME)
    return _fail(f"no image was answered within {args.timeout:g} s: does a camera send any?", NO_OUTCOME)


def _fail(message: str, code: int) -> int:
    print(f"clip-seg say: {message}", file=sys.stderr)
    return code
