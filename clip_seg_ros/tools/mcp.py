# SPDX-License-Identifier: Apache-2.0
"""``clip-seg mcp``: serves the running nodes to an assistant, by the Model Context Protocol (MCP)."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import secrets
import signal
import sys
from typing import Any

from clip_seg_ros.tools.serving_options import port, token
from clip_seg_ros.tools.simulation import NoRos
from clip_seg_ros.tools.talking import add_arguments, topic_name

LOOPBACK, DEFAULT_PORT = "127.0.0.1", 8765
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
        type=port,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"serve streamable HTTP at http://HOST:PORT/mcp (default port: {DEFAULT_PORT}), not stdin and stdout",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="HOST",
        help="address to listen on, with --http (default: %(default)s, this machine alone; any other needs a token)",
    )
    parser.add_argument(
        "--token",
        type=token,
        default=os.environ.get(TOKEN_VARIABLE) or None,
        metavar="TEXT",
        help=f"what requests must bring as 'Authorization: Bearer TEXT', with --http (default: {TOKEN_VARIABLE}, which "
        "other users of the machine do not see; for other hosts than this machine one is made up and printed)",
    )


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
        if bearer is None and not _is_loopback(args.host):
            bearer = secrets.token_urlsafe(24)
            print(f"clip-seg mcp: requests need the header 'Authorization: Bearer {bearer}'", file=sys.stderr)
        return mcp_serving.serve_http(arguments, args.host, args.http, bearer)
    except (NoRos, OSError) as error:
        return _fail(str(error))


def _is_loopback(host: str) -> bool:
    """Returns whether an address is that of this machine alone; any name but "localhost" may be another's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fail(message: str) -> int:
    print(f"clip-seg mcp: {message}", file=sys.stderr)
    return 1
