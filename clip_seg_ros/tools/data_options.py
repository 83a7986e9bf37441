# SPDX-License-Identifier: Apache-2.0
"""The description of a data set on the command line, ``--data``, and how its images are resized."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clip_seg_ros.data import phrasecut_plus
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.maskclip import model as maskclip


class WrongCall(ValueError):
    """The arguments do not fit together; the message is written for the user."""


def exit_code_of(evaluate: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Runs an evaluation; says what went wrong and returns the exit code: 2 for wrong arguments, 1 for other errors."""
    try:
        evaluate(args)
    except WrongCall as error:
        print(f"clip-seg evaluate: {error}", file=sys.stderr)
        return 2
    except (DataError, WeightsError, ValueError, OSError) as error:
        print(f"clip-seg evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def templates_of(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Returns the sentences of ``--templates``, or those that a name stands for; ``None`` without it."""
    if args.templates is None or len(args.templates) != 1:
        return None if args.templates is None else tuple(args.templates)
    named = {"none": ("{}",), "clipseg": phrasecut_plus.TEMPLATES, "maskclip": maskclip.TEMPLATES}
    return named.get(args.templates[0], tuple(args.templates))


def antialias_of(args: argparse.Namespace) -> bool | None:
    """Returns whether ``--antialias`` is on or off; ``None`` without it."""
    return {"on": True, "off": False}.get(args.antialias)


def parse_data(text: str) -> Mapping[str, Any]:
    """Parses ``DATA.yaml`` or ``KIND:ROOT[:SPLIT][:OPTION=VALUE]...`` into a mapping for ``data.catalog.open_dataset``.

    Raises:
        WrongCall: The text is neither.
        DataError: The YAML file cannot be read.
    """
    if text.endswith((".yaml", ".yml")):
        try:
            values = yaml.safe_load(Path(text).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{text} cannot be read: {error}") from error
        if not isinstance(values, Mapping):
            raise DataError(f"{text} describes no data set: it needs lines such as `kind: folder` and `root: FOLDER`")
        return values
    kind, *rest = text.split(":")
    if not kind or not rest or not rest[0]:
        raise WrongCall(f'--data must be a .yaml file or KIND:ROOT[:SPLIT][:OPTION=VALUE], got "{text}"')
    values = {"kind": kind, "root": rest[0]}
    for part in rest[1:]:
        name, equals, value = part.partition("=")
        name, value = (name, value) if equals else ("split", part)
        if not name or not value or name in values:
            raise WrongCall(f'--data "{text}": "{part}" is no split and no OPTION=VALUE, or is there twice')
        values[name] = yaml.safe_load(value) if equals else value
    return values
