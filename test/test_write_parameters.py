# SPDX-License-Identifier: Apache-2.0
"""What users read of the nodes' parameters is what ``clip_seg_ros/config.py`` describes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from clip_seg_ros.parameter_file import parameters_of, sections
from clip_seg_ros.settings import parameters

ROOT = Path(__file__).parents[1]
PROGRAM = runpy.run_path(str(ROOT / "docs" / "tools" / "write_parameters.py"))
NODES = PROGRAM["NODES"]
WRITTEN = PROGRAM["written"]()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_what_is_checked_in_is_what_the_configuration_describes(path: Path) -> None:
    name = path.relative_to(ROOT)

    assert path.read_text(encoding="utf-8") == WRITTEN[path], f"{name} is not up to date: type `make params`"


@pytest.mark.parametrize("node", NODES)
def test_a_parameter_file_tells_a_node_its_defaults(node: str) -> None:
    told = parameters_of(sections(ROOT / "config" / f"{node}.yaml"), f"/anywhere/{node}")

    assert list(told) == [parameter.name for parameter in parameters(NODES[node])]
    assert NODES[node].from_mapping(told) == NODES[node]()
    # rclpy takes a value of another type for a mistake.
    for parameter in parameters(NODES[node]):
        assert type(told[parameter.name]) is (list if parameter.type is tuple else parameter.type), parameter.name


@pytest.mark.parametrize("node", NODES)
def test_a_parameter_file_fits_the_width_of_a_terminal(node: str) -> None:
    assert max(map(len, PROGRAM["parameter_file"](node).splitlines())) <= PROGRAM["WIDTH"]


@pytest.mark.parametrize("node", NODES)
def test_range_and_when_it_may_change_stand_beside_the_description(node: str) -> None:
    _, _, *rows = PROGRAM["table"](node).splitlines()

    for parameter, row in zip(parameters(NODES[node]), rows, strict=True):
        assert f"| `{parameter.name}` |" in row
        assert ("live) |" in row) == parameter.live, row
        assert ("(fixed at the start) |" in row) == parameter.at_start, row
        assert parameter.allowed in row


def test_a_table_that_was_changed_by_hand_is_made_anew() -> None:
    right = PROGRAM["page"](PROGRAM["PAGE"].read_text(encoding="utf-8"))
    changed = right.replace("| `threshold` | `-1.0` |", "| `threshold` | `0.5` |")

    assert changed != right
    assert PROGRAM["page"](changed) == right


def test_a_page_without_the_marks_of_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines <!-- parameters of referring"):
        PROGRAM["page"]("# The nodes\n")
