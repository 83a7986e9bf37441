# SPDX-License-Identifier: Apache-2.0
"""``clip-seg review DIR``: a page to decide about what ``clip-seg annotate`` found; ``--write`` writes the data set."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from clip_seg_ros.config import WebViewConfig
from clip_seg_ros.tools import serving_options
from clip_seg_ros.tools.view import TOKEN_VARIABLE, open_page
from clip_seg_ros.viewer.needed import missing_package

_WRONG = 2
"""The exit code for wrong arguments."""


def add_parser(subparsers: Any) -> None:
    """Adds ``review`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "review",
        help="look at what clip-seg annotate found, the doubtful first, and decide about it in the browser",
        description="Opens a page in the browser that shows the images of a data set, the doubtful ones first, where "
        "objects are accepted, rejected, renamed and given better masks. What is decided is in DIR/decisions.jsonl, "
        "apart from what was found. Nothing leaves this machine.",
        epilog="exit codes: 1 it cannot be shown or written; 2 wrong arguments; 130 Ctrl-C, which ends it",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder that clip-seg annotate wrote")
    parser.add_argument(
        "--write",
        action="store_true",
        help="open no page, but write the data set anew with what was decided, in the formats in which it is there",
    )
    parser.add_argument(
        "--formats", metavar="NAMES", help="with --write: other formats, separated by commas, as of clip-seg annotate"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="the model that finds better masks (default: that of clip-seg annotate)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    serving_options.add_arguments(parser, TOKEN_VARIABLE, "what the address must hold as ?token=TEXT")
    parser.add_argument(
        "--port",
        type=serving_options.port,
        default=WebViewConfig.port,
        metavar="PORT",
        help="its port; 0: any (default: %(default)s)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")


def run(args: argparse.Namespace) -> int:
    """Writes the data set, or serves the page until Ctrl-C; returns the exit code."""
    # Imported here, because help and wrong arguments need none of it.
    from clip_seg_ros.data.samples import DataError

    if args.formats is not None and not args.write:
        return _fail("--formats is for --write", _WRONG)
    try:
        return _write(args) if args.write else _serve(args)
    except DataError as error:
        return _fail(str(error))
    except ValueError as error:
        return _fail(str(error), _WRONG)
    except OSError as error:
        return _fail(f"{error.filename or args.folder}: {error.strerror or error}")


def _write(args: argparse.Namespace) -> int:
    from clip_seg_ros.annotation.formats import FORMATS
    from clip_seg_ros.annotation.review import damage_words
    from clip_seg_ros.annotation.reviewed import formats_of, write_reviewed

    names = formats_of(args.folder) if args.formats is None else [each.strip() for each in args.formats.split(",")]
    if args.formats is not None and (unknown := [name for name in names if name not in FORMATS]):
        return _fail(f"there is no format {unknown[0]!r}; there are {', '.join(FORMATS)}", _WRONG)
    for name in write_reviewed(args.folder, names):
        print(f"clip-seg review: {name} is written", flush=True)
    if fault := damage_words(args.folder):
        print(f"clip-seg review: {fault}", file=sys.stderr)
    return 0


def _serve(args: argparse.Namespace) -> int:
    if missing := missing_package():
        return _fail(missing)
    from clip_seg_ros.annotation.manifest import read_job
    from clip_seg_ros.annotation.review import Review
    from clip_seg_ros.viewer.review_pointing import MaskMaker
    from clip_seg_ros.viewer.review_serving import ReviewServer

    model = args.model or read_job(args.folder).model
    print(f"clip-seg review: reading {args.folder}", file=sys.stderr, flush=True)
    review = Review(args.folder)
    server = ReviewServer(review, MaskMaker(model, args.device), args.host, args.port, args.token)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        address = server.start()
        print(f"clip-seg review: {args.folder} at {address} (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            open_page("review", address)
        threading.Event().wait()
    except OSError as error:
        return _fail(f"{args.host}:{args.port} cannot be listened on: {error.strerror or error}; choose another --port")
    finally:
        server.stop()
        review.close()
    return 0


def _fail(message: str, code: int = 1) -> int:
    print(f"clip-seg review: {message}", file=sys.stderr)
    return code
