# SPDX-License-Identifier: Apache-2.0
"""The values of options of commands that serve something over the network."""

from __future__ import annotations

import argparse


def port(text: str) -> int:
    """Reads a port; 0 stands for any that is free. Raises ArgumentTypeError if it is none."""
    if not (text.isdecimal() and 0 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0, which stands for any that is free, to 65535")
    return int(text)


def token(text: str) -> str:
    """Reads a token, which an address or a header can hold. Raises ArgumentTypeError if it is none."""
    if not (8 <= len(text) <= 200 and text.isascii() and text.isprintable() and " " not in text):
        raise argparse.ArgumentTypeError("a token has 8 to 200 letters, digits and signs of ASCII, and no spaces")
    return text
