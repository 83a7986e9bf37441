# SPDX-License-Identifier: Apache-2.0
"""``clip-seg view SOURCE``: shows pictures, a video, a webcam or a bag in the browser, and takes commands; no ROS."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
import webbrowser
from typing import Any

from clip_seg_ros.config import AUTO, ENGINE_NAMES
from clip_seg_ros.tools.serving_options import port, token

PACKAGES = ("viser", "starlette", "uvicorn", "websockets")
"""What the viewer needs beside the package."""
LOOPBACK, DEFAULT_PORT = "127.0.0.1", 8088
TOKEN_VARIABLE = "CLIP_SEG_VIEW_TOKEN"
_MISSING = (
    'type `pip install "clip_seg_ros[web]"`, or in a clone `pip install ".[web]"`; where colcon has built the package, '
    f"`pip install {' '.join(PACKAGES)}`"
)


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
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a picture, a folder of pictures, a pattern such as 'photos/*.jpg', a video, the number of a webcam such "
        "as 0, or a bag of ROS 1 or ROS 2",
    )
    parser.add_argument("--command", default="", metavar="TEXT", help='begin with it, such as "segment the red cup"')
    parser.add_argument(
        "--model",
        default=AUTO,
        metavar="NAME",
        help="name or weight file of the model (default: the best one here)",
    )
    parser.add_argument("--engine", choices=ENGINE_NAMES, default=AUTO, help="what runs it (default: the fastest)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--topic", metavar="TOPIC", help="topic of the colour images, of a bag with several")
    parser.add_argument("--loop", action="store_true", help="begin anew at the end")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="HOST",
        help="address to listen on (default: %(default)s, this machine alone; any other needs a token)",
    )
    parser.add_argument(
        "--port", type=port, default=DEFAULT_PORT, metavar="PORT", help="its port; 0: any (default: %(default)s)"
    )
    parser.add_argument(
        "--token",
        type=token,
        default=os.environ.get(TOKEN_VARIABLE) or None,
        metavar="TEXT",
        help=f"what the address must hold as ?token=TEXT (default: {TOKEN_VARIABLE}, which other users of the machine "
        "do not see; for other hosts than this machine one is made up and printed with the address)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")


def run(args: argparse.Namespace) -> int:
    """Shows the source until Ctrl-C; returns the exit code."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        return _fail(f"the Python packages for the view are missing ({', '.join(missing)}): {_MISSING}")
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
        if not args.no_browser and _has_display():
            webbrowser.open(address)
        threading.Event().wait()
    except (ValueError, WeightsError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{args.host}:{args.port} cannot be listened on: {error.strerror or error}; choose another --port")
    finally:
        server.stop()
    return 0


def _has_display() -> bool:
    """Returns whether a browser could open a window here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _fail(message: str) -> int:
    print(f"clip-seg view: {message}", file=sys.stderr)
    return 1
