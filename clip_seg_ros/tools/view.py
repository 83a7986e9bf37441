# SPDX-License-Identifier: Apache-2.0
"""``clip-seg view SOURCE``: shows pictures, a video, a webcam or a bag in the browser, and takes commands; no ROS."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import webbrowser
from typing import Any

from clip_seg_ros.config import AUTO, ENGINE_NAMES, WebViewConfig
from clip_seg_ros.tools import serving_options
from clip_seg_ros.tools.source_options import SOURCE, add_model_options
from clip_seg_ros.viewer.needed import missing_package

TOKEN_VARIABLE = "CLIP_SEG_VIEW_TOKEN"


def add_parser(subparsers: Any) -> None:
    """Adds ``view`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "view",
        help="see pictures, a video, a webcam or a bag answered live in the browser, without ROS",
        description="Opens a page in the browser that shows SOURCE with what was found in it, and takes commands, "
        "settings and clicks. Nothing leaves this machine.",
        epilog="exit codes: 1 it cannot be shown; 2 wrong arguments; 130 Ctrl-C, which ends it",
    )
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--command", default="", metavar="TEXT", help='begin with it, such as "segment the red cup"')
    add_model_options(parser)
    parser.add_argument("--engine", choices=ENGINE_NAMES, default=AUTO, help="what runs it (default: the fastest)")
    parser.add_argument("--topic", metavar="TOPIC", help="topic of the colour images, of a bag with several")
    parser.add_argument("--loop", action="store_true", help="begin anew at the end")
    serving_options.add_arguments(parser, TOKEN_VARIABLE, "what the address must hold as ?token=TEXT")
    parser.add_argument(
        "--port",
        type=serving_options.port,
        default=WebViewConfig.port,
        metavar="PORT",
        help="its port; 0: any (default: %(default)s)",
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="print the address, and open no browser; none is opened with a token, which the list of processes would "
        "show",
    )


def run(args: argparse.Namespace) -> int:
    """Shows the source until Ctrl-C; returns the exit code."""
    if missing := missing_package():
        return _fail(missing)
    # Imported here, because the command line runs without them, and some take seconds.
    from clip_seg_ros.data.samples import DataError
    from clip_seg_ros.models.checkpoints import WeightsError
    from clip_seg_ros.sources.frames import open_frames
    from clip_seg_ros.viewer.library_source import LibrarySource
    from clip_seg_ros.viewer.serving import ViewServer

    try:
        frames = open_frames(args.source, args.topic)
    except (DataError, OSError) as error:
        return _fail(str(error))
    source = LibrarySource(frames, args.model, args.command, args.loop, args.device, args.engine)
    server = ViewServer(source, args.host, args.port, args.token)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"clip-seg view: loading the model for {frames.title}", file=sys.stderr, flush=True)
    try:
        address = server.start()
        print(f"clip-seg view: {frames.title} at {address} (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            open_page("view", address)
        threading.Event().wait()
    except (ValueError, WeightsError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{args.host}:{args.port} cannot be listened on: {error.strerror or error}; choose another --port")
    finally:
        server.stop()
    return 0


def open_page(command: str, address: str) -> None:
    """Opens a page of a command where there is a display, unless that would show its token to other users of the
    machine, in the list of processes."""
    if not _has_display():
        return
    if "?token=" in address:
        print(f"clip-seg {command}: open this address in your browser, with its token", file=sys.stderr, flush=True)
    else:
        webbrowser.open(address)


def _has_display() -> bool:
    """Returns whether a browser could open a window here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _fail(message: str) -> int:
    print(f"clip-seg view: {message}", file=sys.stderr)
    return 1
