# SPDX-License-Identifier: Apache-2.0
"""The layout for Foxglove and Lichtblick: each panel has its settings, and every topic is one that a node publishes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_seg_ros.commands.parser import parse_command
from clip_seg_ros.resources import config_dir

DOCS = Path(__file__).parents[2] / "docs"
TOPICS = {
    "Image": "imageTopic",
    "Publish": "topicName",
    "RawMessages": "topicPath",
    "Table": "topicPath",
    "Plot": "value",
    "DiagnosticSummary": "topicToRender",
}
"""Where each kind of panel names its topics, or the paths that begin with them."""


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    return json.loads((config_dir() / "foxglove_layout.json").read_text(encoding="utf-8"))


def panels(place: str | dict[str, Any]) -> Iterator[str]:
    """Names the panels in a part of the layout, which is one panel or divided in two."""
    if isinstance(place, str):
        yield place
        return
    assert place["direction"] in ("row", "column")
    assert 0 < place["splitPercentage"] < 100
    yield from panels(place["first"])
    yield from panels(place["second"])


def values(settings: Any, key: str) -> Iterator[str]:
    """Finds what stands at ``key``, however deep."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == key and isinstance(value, str):
                yield value
            yield from values(value, key)
    elif isinstance(settings, list):
        for value in settings:
            yield from values(value, key)


def named_topics(layout: dict[str, Any]) -> set[str]:
    found = set()
    for panel, settings in layout["configById"].items():
        kind = panel.partition("!")[0]
        paths = list(settings["topics"]) if kind == "3D" else list(values(settings, TOPICS[kind]))
        assert paths, f"{panel} shows nothing"
        found |= {re.split(r"[.\[{]", path)[0] for path in paths}
    return found


def documented_topics() -> set[str]:
    """All topics in the tables of the page about the nodes, by their full names."""
    tables = re.findall(r"\| topic \| type \| what \|\n(.*?)\n\n", (DOCS / "nodes.md").read_text(), re.DOTALL)
    names = {line.split("`")[1] for table in tables for line in table.splitlines()[1:]}
    return {name if name.startswith("/") else f"/clip_seg/{name}" for name in names}


def test_each_panel_has_its_settings(layout: dict[str, Any]) -> None:
    shown = list(panels(layout["layout"]))

    assert len(shown) == len(set(shown))
    assert set(shown) == set(layout["configById"])


def test_all_topics_are_those_of_the_nodes(layout: dict[str, Any]) -> None:
    named = named_topics(layout)

    assert "/clip_seg/overlay/compressed" in named
    assert named - documented_topics() == set()


def test_the_command_is_one_that_the_nodes_understand(layout: dict[str, Any]) -> None:
    (settings,) = [value for name, value in layout["configById"].items() if name.startswith("Publish!")]

    assert settings["datatype"] == "std_msgs/msg/String"
    assert parse_command(json.loads(settings["value"])["data"]).prompts == ("red cup",)


def test_plotted_values_are_those_that_diagnostics_hold(layout: dict[str, Any]) -> None:
    source = (Path(__file__).parents[2] / "clip_seg_ros" / "nodes" / "life" / "health.py").read_text(encoding="utf-8")
    paths = [
        path["value"] for name, value in layout["configById"].items() if "paths" in value for path in value["paths"]
    ]
    keys = [re.search(r'key=="([^"]+)"', path)[1] for path in paths]

    assert len(keys) == 5
    for key in keys:
        what, _, share = key.partition(", ms, ")
        assert f'"{what}"' in source
        assert not share or f"{int(share.split('th')[0])}" in source


def test_plots_are_drawn(layout: dict[str, Any]) -> None:
    paths = [path for value in layout["configById"].values() for path in value.get("paths", [])]

    assert all(path["enabled"] for path in paths)


def test_the_page_names_the_file() -> None:
    assert "config/foxglove_layout.json" in (DOCS / "foxglove.md").read_text(encoding="utf-8")
