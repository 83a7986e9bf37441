# SPDX-License-Identifier: Apache-2.0
"""``clip-seg mcp``: serves the running nodes to an assistant, by the Model Context Protocol (MCP)."""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import signal
import sys
from typing import Any

from clip_seg_ros.tools import serving_options
from clip_seg_ros.tools.simulation import NoRos
from clip_seg_ros.tools.talking import add_arguments, topic_name
from clip_seg_ros.viewer.loopback import LOOPBACK, is_loopback

DEFAULT_PORT = 8765
TOKEN_VARIABLE = "CLIP_SEG_MCP_TOKEN"


def add_parser(subparsers: Any) -> None:
    """Adds ``mcp`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "mcp",
        help="serve running nodes to an assistant, as tools of the Model Context Protocol",
        description="Serves the running nodes to an assistant as tools of the Model Context Protocol (MCP), over "
        "stdin and stdout, as assistants start it, or over HTTP. ROS_DOMAIN_ID names the ROS domain.",
        epilog="exit codes: 0 the assistant has ended it; 1 it cannot be served; 2 wrong arguments; 130 Ctrl-C",
    )
    parser.set_defaults(run=run)
    add_arguments(parser)
    parser.add_argument(
        "--topic",
        type=topic_name,
        default="command",
        metavar="TOPIC",
        help="topic of the commands (default: %(default)s)",
    )
    parser.add_argument("--use-sim-time", action="store_true", help="tell ages by the clock of a simulation")
    parser.add_argument(
        "--http",
        type=serving_options.port,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"serve streamable HTTP at http://HOST:PORT/mcp (default port: {DEFAULT_PORT}), not stdin and stdout",
    )
    what = "what requests must bring as 'Authorization: Bearer TEXT'"
    serving_options.add_arguments(parser, TOKEN_VARIABLE, what, ", with --http")


def run(args: argparse.Namespace) -> int:
    """Serves until the assistant ends it, or Ctrl-C; returns the exit code."""
    if args.http is None and args.host != LOOPBACK:
        print("clip-seg mcp: --host is for --http; without it, the assistant is at stdin and stdout", file=sys.stderr)
        return 2
    if importlib.util.find_spec("mcp") is None:
        return _fail(
            "the Python package mcp is missing: type `pip install clip_seg_ros[mcp]`, or in a clone `pip install "
            '".[mcp]"`; where colcon has built the package, `pip install mcp`'
        )
    # Imported here, because the package runs without mcp.
    from clip_seg_ros.tools import mcp_serving

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = ["--namespace", args.namespace, "--topic", args.topic]
    arguments += ["--use-sim-time"] if args.use_sim_time else []
    try:
        if args.http is None:
            return mcp_serving.serve_stdio(arguments)
        bearer = args.token
        if bearer is None and not is_loopback(args.host):
            bearer = secrets.token_urlsafe(24)
            print(f"clip-seg mcp: requests need the header 'Authorization: Bearer {bearer}'", file=sys.stderr)
        return mcp_serving.serve_http(arguments, args.host, args.http, bearer)
    except (NoRos, OSError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"clip-seg mcp: {message}", file=sys.stderr)
    return 1
