# SPDX-License-Identifier: Apache-2.0
"""`clip-seg mcp` as assistants use it: servers, the official client, and a world with a camera and a node."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from clip_seg_ros.tools.processes import ChildProcesses
from clip_seg_ros.tools.simulation import shared_memory
from domains import own_domain_environment

MCP = ["-m", "clip_seg_ros.tools.cli", "mcp"]
FRAME = "camera_color_optical_frame"
SEED, NAMES = 1, ("red cup", "green cup", "blue box")
PATIENCE_S = 180.0


class Assistant:
    """The official client, whose calls wait."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self.portal, self.client = portal, client

    def start(self, tool: str, **arguments: Any) -> Future[Any]:
        """Begins a call, which may take as long as a busy machine needs."""
        return self.portal.start_task_soon(partial(self.client.call_tool, tool, {"timeout_s": 120.0} | arguments))

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.start(tool, **arguments).result(PATIENCE_S)

    def answer(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = self.call(tool, **arguments)
        assert not result.is_error, result.content
        return result.structured_content

    def error(self, tool: str, **arguments: Any) -> str:
        result = self.call(tool, **arguments)
        assert result.is_error, result.structured_content
        return result.content[0].text


@contextmanager
def assistant(transport: Any) -> Iterator[Assistant]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Client(transport)) as client:
        yield Assistant(portal, client)


@contextmanager
def over_stdio(environment: dict[str, str], errors: Path, *arguments: str) -> Iterator[Assistant]:
    server = StdioServerParameters(command=sys.executable, args=[*MCP, *arguments], env=environment)
    with errors.open("w") as stream, assistant(stdio_client(server, errlog=stream)) as found:
        yield found
    assert "Traceback" not in errors.read_text(), errors.read_text()


class World:
    """A rendered camera and a node that looks at it, in a ROS domain of their own."""

    def __init__(self, folder: Path) -> None:
        self.environment = shared_memory(own_domain_environment())
        self._folder = folder
        self._children = ChildProcesses(folder, self.environment)

    def __enter__(self) -> World:
        self.start("sim_camera", "scene of seed", f"seed:={SEED}", f"required:={json.dumps(NAMES)}")
        self.start_node()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._children.stop()

    def start_node(self) -> None:
        # The camera stands still, so that its own frame is one that does not move.
        fixed = [f"target_frame:={FRAME}", "remember:=always"]
        self.start("referring", "commands:", "engine:=eager", *fixed, "-r", "__ns:=/clip_seg")

    def start(self, name: str, until: str, *parameters: str) -> None:
        words = [word for each in parameters for word in (["-p", each] if ":=" in each and each[0] != "_" else [each])]
        self._children.start(name, f"clip_seg_ros.nodes.{name}", ["--ros-args", *words])
        log, deadline_s = self._folder / f"{name}.log", time.monotonic() + PATIENCE_S
        while until not in log.read_text():
            self._children.check()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)

    def end_node(self) -> None:
        self._children.stop("referring")


class HttpServer:
    """`clip-seg mcp --http` at a port of its own."""

    def __init__(self, environment: dict[str, str], errors: Path, *arguments: str) -> None:
        self._errors = errors
        with errors.open("w") as stream:
            command = [sys.executable, *MCP, "--http", "0", *arguments]
            self.process = subprocess.Popen(command, env=environment, stderr=stream, stdout=stream)
        deadline_s = time.monotonic() + PATIENCE_S
        while "serving at " not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.05)
        self.url = self.said().split("serving at ")[1].split()[0].replace("0.0.0.0", "127.0.0.1")

    def said(self) -> str:
        return self._errors.read_text()

    def status_without(self, **headers: str) -> int:
        """The status of a request that is no proper one but for its headers."""
        asked = urllib.request.Request(self.url, b"{}", headers | {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()


@contextmanager
def over_http(server: HttpServer, token: str) -> Iterator[Assistant]:
    with start_blocking_portal() as portal:
        headers = {"Authorization": f"Bearer {token}"}
        http = portal.wrap_async_context_manager(httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S))
        with http as client:
            transport = streamable_http_client(server.url, http_client=client)
            with portal.wrap_async_context_manager(Client(transport)) as found:
                yield Assistant(portal, found)
