# SPDX-License-Identifier: Apache-2.0
"""Reads a file of ROS parameters as a node does, for launch files that must know the parameters of a node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_PARAMETERS = "ros__parameters"


def sections(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the sections of a file of parameters: pattern of node names, such as "/**" -> name -> value.

    Raises:
        ValueError: The file is not a YAML file, or not a file of parameters.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not a file of ROS parameters: it needs a section such as /**: {_PARAMETERS}:")
    return dict(_sections(content, ""))


def parameters_of(found: Mapping[str, Mapping[str, Any]], node: str) -> dict[str, Any] | None:
    """Returns the parameters in ``sections`` of the node with a full name such as "/clip_seg/referring".

    If a parameter is in several sections, the last one counts, as for the node. ``None`` if no section is for the node.
    """
    fitting = [values for pattern, values in found.items() if _fits(pattern, node)]
    return {name: value for values in fitting for name, value in values.items()} if fitting else None


def _sections(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in content.items():
        if key == _PARAMETERS:
            yield prefix, dict(value or {})
        elif isinstance(value, Mapping):
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _fits(pattern: str, node: str) -> bool:
    """Returns whether a name matches a pattern in which ** stands for any names and * for one name, as in rcl."""
    if pattern == "/**":
        return True
    words = (".*" if word == "**" else "[^/]+" if word == "*" else re.escape(word) for word in pattern.split("/"))
    return re.fullmatch("/".join(words), node) is not None
