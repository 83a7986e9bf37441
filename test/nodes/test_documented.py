# SPDX-License-Identifier: Apache-2.0
"""docs/nodes.md against the nodes: what it lists exists, and what exists is listed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from rclpy.node import Node

from clip_seg_ros import resources
from clip_seg_ros.nodes.outputs import detections
from clip_seg_ros.viewer.needed import missing_package
from ros_harness import NodeProcess, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "nodes.md"
OF_ANY_NODE = re.compile(
    r"/rosout|/parameter_events|.*/transition_event|.*/(get|set|list|describe)_parameter.*|"
    r".*/(change|get)_state|.*/get_(available|transition).*|.*/get_type_description|.*/_action/.*|"
    r".*/_\w+"  # hidden, by ROS's convention: for the nodes among themselves
)


def section(node: str) -> str:
    """The part of the page about a node."""
    return PAGE.read_text().split(f"\n## {node}: ")[1].split("\n## ")[0]


def rows(node: str, header: str) -> list[list[str]]:
    """The cells of the tables that begin with ``header``."""
    tables = section(node).split(f"| {header} |")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented(node: str, header: str) -> dict[str, str]:
    """Full name -> type, of the topics or services that the page lists and that can be there on this machine."""
    found = {}
    for name, kind, _ in rows(node, header):
        if "vision_msgs" in kind and not detections.AVAILABLE:
            continue
        name = name.split("`")[1]
        found[name if name.startswith("/") else f"/clip_seg/{name}"] = kind.split()[0].replace("/", "/{}/")
    return found


def named(pairs: list[tuple[str, list[str]]]) -> dict[str, str]:
    return {name: kinds[0] for name, kinds in pairs if not OF_ANY_NODE.fullmatch(name)}


@pytest.fixture(scope="module")
def semantic(ros: None, tmp_path_factory: pytest.TempPathFactory):
    node = NodeProcess(
        "semantic", tmp_path_factory.mktemp("semantic") / "log", files=[resources.config_dir() / "semantic.yaml"]
    )
    node.wait_said("commands:")
    yield node
    node.end()


@pytest.fixture(scope="module")
def sim_camera(ros: None, tmp_path_factory: pytest.TempPathFactory):
    node = NodeProcess("sim_camera", tmp_path_factory.mktemp("sim_camera") / "log", ["rate_hz:=1"])
    yield node
    node.end()


@pytest.fixture(scope="module")
def web_view(ros: None, tmp_path_factory: pytest.TempPathFactory):
    if missing := missing_package():
        pytest.skip(missing)
    node = NodeProcess("web_view", tmp_path_factory.mktemp("web_view") / "log", ["port:=0"])
    yield node
    node.end()


@pytest.mark.parametrize(
    ("node", "namespace"),
    [("web_view", "/clip_seg"), ("referring", "/clip_seg"), ("semantic", "/clip_seg"), ("sim_camera", "/")],
)
def test_topics_services_and_actions_are_those_of_the_page(node: str, namespace: str, newcomer: Node, request) -> None:
    request.getfixturevalue(node)
    where = (node, namespace)
    wait_until(lambda: where in newcomer.get_node_names_and_namespaces(), node)
    topics = {name: kind.format("msg") for name, kind in documented(node, "topic").items()}

    def there() -> dict[str, str]:
        return named(newcomer.get_publisher_names_and_types_by_node(*where)) | {
            name: kind
            for name, kind in named(newcomer.get_subscriber_names_and_types_by_node(*where)).items()
            if name.startswith("/clip_seg/")  # the others are the camera's
        }

    services = documented(node, "service or action")
    calls = {name: kind.format("srv") for name, kind in services.items() if not name.endswith("find_object")}
    actions = {name: kind.format("action") for name, kind in services.items() if name not in calls}

    def answering() -> list[tuple[str, list[str]]]:
        return newcomer.get_service_names_and_types_by_node(*where)

    def acting() -> set[str]:
        return {name.split("/_action/")[0] for name, _ in answering() if "/_action/" in name}

    def all_known() -> bool:
        there_now = there().keys() | named(answering()).keys() | acting()
        return topics.keys() | calls.keys() | actions.keys() <= there_now

    with suppress(AssertionError):  # the next lines say better what is missing
        wait_until(all_known, f"all of {node}")
    assert there() == topics
    assert named(answering()) == calls
    assert acting() == actions.keys()
    assert set(actions.values()) <= {"clip_seg_ros/action/FindObject"}
