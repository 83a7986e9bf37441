# SPDX-License-Identifier: Apache-2.0
"""Writes the parameter files and the tables of ``docs/nodes.md`` from ``clip_seg_ros/config.py``: make params"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from clip_seg_ros.config import ReferringConfig, SemanticConfig, SimCameraConfig, WebViewConfig
from clip_seg_ros.settings import Config, Parameter, parameters

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "nodes.md"
NODES: dict[str, type[Config]] = {
    "referring": ReferringConfig,
    "semantic": SemanticConfig,
    "sim_camera": SimCameraConfig,
    "web_view": WebViewConfig,
}
WIDTH = 120
HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# The parameters of the node `{node}` with their defaults. Those marked (live) may change while the node runs.
# To change them, copy this file, keep the lines that you change, and name the copy:
#     ros2 run clip_seg_ros {node} --ros-args --params-file my_{node}.yaml
# A list is written as ["red cup", "box"], and the empty list as [""].
# `make params` writes this file from clip_seg_ros/config.py.
/**:
  ros__parameters:
"""
INDENT = "    "

PLAIN = re.compile(r"[A-Za-z/][\w/-]*")
"""Texts that YAML reads as themselves without quotes; its words for truth and for nothing are none of ours."""
NAMES = {parameter.name for config in NODES.values() for parameter in parameters(config)}


def parameter_file(node: str) -> str:
    """Returns the file of a node's parameters: each with its default, and its description above it."""
    return HEAD.format(node=node) + "\n".join(_entry(parameter) for parameter in parameters(NODES[node]))


def _entry(parameter: Parameter) -> str:
    mark = f"{INDENT}# "
    comment = textwrap.wrap(
        _described(parameter), WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False
    )
    return "\n".join([*comment, f"{INDENT}{parameter.name}: {_yaml(parameter)}\n"])


def _yaml(parameter: Parameter) -> str:
    value = parameter.default
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) else json.dumps(value)
    # The empty list has no type in ROS.
    return json.dumps([*value] or [""] if isinstance(value, tuple) else value)


def table(node: str) -> str:
    """Returns the table of a node's parameters in Markdown."""
    return "\n".join(["| parameter | default | what |", "|---|---|---|", *_rows(node)])


def _rows(node: str) -> Iterator[str]:
    for parameter in parameters(NODES[node]):
        what = re.sub(r"\w+/[\w/.-]*\w|[\w/]*\w", _as_code, _described(parameter))
        yield f"| `{parameter.name}` | {_default(parameter)} | {what} |"


def _as_code(word: re.Match[str]) -> str:
    """Sets topics, messages and parameters as code, apart from parameters that are a word of English, too."""
    is_name = "/" in word[0] or ("_" in word[0] and word[0] in NAMES)
    return f"`{word[0]}`" if is_name else word[0]


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if value in ("", ()):
        return "(empty)"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _described(parameter: Parameter) -> str:
    notes = [parameter.allowed, "live" if parameter.live else "", "fixed at the start" if parameter.at_start else ""]
    notes = [note for note in notes if note]
    return " ".join([parameter.description, *([f"({'; '.join(notes)})"] if notes else [])])


def page(text: str) -> str:
    """Returns a page with the tables between its marks made anew.

    Raises:
        ValueError: The page lacks the marks of a table.
    """
    for node in NODES:
        begin, end = f"<!-- parameters of {node}: make params writes this table -->", "<!-- end of the table -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"docs/nodes.md needs the lines {begin} and {end} around the table")
        text = f"{before}{begin}\n\n{table(node)}\n\n{end}{after}"
    return text


def written() -> dict[Path, str]:
    """Returns what is to be written: path -> text."""
    files = {ROOT / "config" / f"{node}.yaml": parameter_file(node) for node in NODES}
    return {**files, PAGE: page(PAGE.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    for path, content in written().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
