# SPDX-License-Identifier: Apache-2.0
"""The options of commands that serve something over the network."""

from __future__ import annotations

import argparse
import os

from clip_seg_ros.config import WebViewConfig
from clip_seg_ros.viewer.loopback import LOOPBACK


def add_arguments(parser: argparse.ArgumentParser, variable: str, what: str, note: str = "") -> None:
    """Adds ``--host`` and ``--token``.

    Args:
        parser: Parser of the command.
        variable: Of the environment, which has the token where the option is missing.
        what: What must bring the token, and how, such as "what the address must hold as ?token=TEXT".
        note: When both options count; empty: always.
    """
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="HOST",
        help=f"address to listen on{note} (default: %(default)s, this machine alone; any other needs a token)",
    )
    parser.add_argument(
        "--token",
        type=token,
        default=os.environ.get(variable) or None,
        metavar="TEXT",
        help=f"{what}{note} (default: {variable}, which other users of the machine do not see; for other hosts than "
        "this machine one is made up and printed)",
    )


def port(text: str) -> int:
    """Reads a port; 0 stands for any that is free. Raises ArgumentTypeError if it is none."""
    if not (text.isdecimal() and 0 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0, which stands for any that is free, to 65535")
    return int(text)


def token(text: str) -> str:
    """Reads a token, which an address or a header can hold. Raises ArgumentTypeError if it is none."""
    try:
        return WebViewConfig(token=text or " ").token
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
