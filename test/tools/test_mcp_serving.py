# SPDX-License-Identifier: Apache-2.0
"""`clip-seg mcp` over HTTP, with and without a token, and how it ends; test_mcp.py has its tools."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="there is no ROS 2")
pytest.importorskip("mcp", reason="the package mcp is not installed: pip install .[mcp]")

from assistants import MCP, PATIENCE_S, HttpServer, over_http
from domains import own_domain_environment


def test_http_with_a_token(tmp_path: Path) -> None:
    server = HttpServer(own_domain_environment(), tmp_path / "errors", "--token", "right-token")
    try:
        assert server.status_without() == 401
        assert server.status_without(Authorization="Bearer wrong-token") == 401
        assert server.status_without(Authorization="Basic right-token") == 401
        assert server.status_without(Authorization="Bearer right-token") != 401
        with over_http(server, "right-token") as robot:
            tools = robot.portal.call(robot.client.list_tools).tools
            assert "find" in {tool.name for tool in tools}
            assert "ros2 launch clip_seg_ros seg.launch.py" in robot.error("find", phrase="red cup")
    finally:
        code = server.end()
    assert code in (0, 130)
    assert "Traceback" not in server.said()


def test_other_hosts_need_a_token_that_is_printed(tmp_path: Path) -> None:
    server = HttpServer(own_domain_environment(), tmp_path / "errors", "--host", "0.0.0.0")
    try:
        token = server.said().split("Authorization: Bearer ")[1].split("'")[0]
        assert len(token) >= 32
        assert server.status_without() == 401
        assert server.status_without(Authorization=f"Bearer {token}") != 401
    finally:
        server.end()


def test_loopback_needs_no_token_and_refuses_other_sites(tmp_path: Path) -> None:
    server = HttpServer(own_domain_environment(), tmp_path / "errors")
    try:
        assert "Bearer" not in server.said()
        assert server.status_without() != 401
        assert server.status_without(Origin="http://evil.example") == 403
    finally:
        server.end()


def ended_at_once(*arguments: str, hide: str = "") -> subprocess.CompletedProcess:
    hidden = f"sys.modules[{hide!r}] = None; " if hide else ""
    program = f"import sys; {hidden}from clip_seg_ros.tools.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, "mcp", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_a_missing_package_is_named_with_how_to_install_it() -> None:
    run = ended_at_once(hide="mcp")
    assert run.returncode == 1
    assert "pip install clip_seg_ros[mcp]" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--http", "http"], ["--http", "70000"], ["--token", "short"], ["--host", "0.0.0.0"], ["--namespace", "a b"]],
)
def test_wrong_arguments(arguments: list[str]) -> None:
    run = ended_at_once(*arguments)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    server = HttpServer(own_domain_environment(), tmp_path / "errors")
    try:
        run = ended_at_once("--http", server.url.split(":")[2].split("/")[0])
    finally:
        server.end()
    assert run.returncode == 1
    assert "Address already in use" in run.stderr
    assert "Traceback" not in run.stderr


def test_it_ends_with_its_input(tmp_path: Path) -> None:
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, *MCP], input="", env=own_domain_environment(), capture_output=True, text=True, cwd=os.sep
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert time.monotonic() - start < PATIENCE_S
