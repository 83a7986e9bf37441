# SPDX-License-Identifier: Apache-2.0
"""The options of commands that say what runs a model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from clip_seg_ros.config import ENGINE_NAMES, PRECISION_NAMES
from clip_seg_ros.runtime.chosen import Chosen

EXACT = "eager_float32"
"""The engine and precision that all others are compared with."""


def add_engine_options(parser: Any, engine: str = "auto", precision: str = "auto", why: str = "") -> None:
    """Adds ``--engine`` and ``--precision`` to a parser or a group of it; ``why`` explains the defaults."""
    default = "default: %(default)s" + (f", {why}" if why else "")
    parser.add_argument(
        "--engine", choices=ENGINE_NAMES, default=engine, help=f"what runs the model; auto: the fastest ({default})"
    )
    parser.add_argument(
        "--precision", choices=PRECISION_NAMES, default=precision, help=f"what it computes in ({default})"
    )


def node_parameters(args: argparse.Namespace) -> dict[str, str]:
    """Returns the parameters of a node that these options set; none of those that are left to the node."""
    given = {"engine": args.engine, "precision": args.precision}
    return {name: value for name, value in given.items() if value != "auto"}


def complain(command: str, chosen: Chosen) -> None:
    """Says on stderr why the engine that was asked for does not run the model, if that is so."""
    if chosen.complaint:
        print(f"{command}: {chosen.complaint}", file=sys.stderr)
