# SPDX-License-Identifier: Apache-2.0
"""Writes the session of ``docs/mcp.md`` and its picture: the official client asks a real server, node and camera.

python docs/tools/write_mcp_session.py
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters

from clip_seg_ros.tools.processes import ChildProcesses
from clip_seg_ros.tools.simulation import environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mcp.md"
PICTURE = ROOT / "docs" / "images" / "mcp_session.jpg"
BEGIN, END = "<!-- docs/tools/write_mcp_session.py writes this session -->", "<!-- end of the session -->"
SEED, NAMES = 1, ["red cup", "green cup", "blue box"]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("describe", {}),
    ("find", {"phrase": "the cup left of the blue box"}),
    ("segment", {"phrases": ["cups", "blue box"], "picture": True}),
    ("recall", {"phrase": "cup"}),
    ("find", {"phrase": "white ball", "timeout_s": 1.0}),
    ("segment", {"phrases": ["segmnt teh redcup"]}),
    ("command", {"text": "stop"}),
]
NUMBERS = re.compile(r"\[[-\s\d.,]+\]")
TIMED, TIMES = ("find", {"phrase": "the cup left of the blue box"}), 50


def start_world(children: ChildProcesses, logs: Path) -> None:
    """Starts the camera and the node, and returns when both are ready."""
    of_camera = ["-p", f"seed:={SEED}", "-p", f"required:={json.dumps(NAMES)}"]
    # Not while the engines are being measured, as they are at a first start. The camera does not move, so that things
    # may be remembered in its frame.
    of_memory = ["-p", "target_frame:=camera_color_optical_frame", "-p", "remember:=always"]
    of_node = ["-p", "engine:=eager", *of_memory]
    for name, arguments, until in (("sim_camera", of_camera, "scene of"), ("referring", of_node, "commands:")):
        namespace = [] if name == "sim_camera" else ["-r", "__ns:=/clip_seg"]
        children.start(name, f"clip_seg_ros.nodes.{name}", ["--ros-args", *arguments, *namespace])
        while until not in (logs / f"{name}.log").read_text():
            children.check()
            time.sleep(0.1)


async def session(env: dict[str, str]) -> str:
    """Returns the session as Markdown."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "clip_seg_ros.tools.cli", "mcp"], env=env)
    async with Client(server) as client:
        parts = [await _told(client, tool, arguments) for tool, arguments in CALLS]
        times_ms = []
        for _ in range(TIMES):
            begun_s = time.perf_counter()
            await client.call_tool(*TIMED)
            times_ms.append((time.perf_counter() - begun_s) * 1e3)
    slowest = statistics.quantiles(times_ms, n=20)[-1]
    timed = (
        f"`{TIMED[0]}` was then asked {TIMES} times over stdin and stdout: the median was "
        f"{statistics.median(times_ms):.0f} ms and the 95th percentile {slowest:.0f} ms. The camera, which sends 10 "
        f"images a second, the node and the server shared {len(os.sched_getaffinity(0))} processor core(s) of a "
        f"machine with {os.cpu_count()} and a load average of {os.getloadavg()[0]:.0f}; a goal waits for the next "
        "image."
    )
    return "\n\n".join([*parts, timed])


async def _told(client: Client, tool: str, arguments: dict[str, Any]) -> str:
    result = await client.call_tool(tool, arguments)
    pictures = [base64.b64decode(each.data) for each in result.content if each.type == "image"]
    text, language = NUMBERS.sub(_on_one_line, json.dumps(result.structured_content, indent=2)), "json"
    if result.is_error:
        text, language = result.content[0].text, "text"
    block = f"**{tool}** `{json.dumps(arguments)}`\n\n```{language}\n{text}\n```"
    for picture in pictures:
        PICTURE.write_bytes(picture)
        block += f"\n\n![The table with the cups and the box outlined, named and scored](images/{PICTURE.name})"
    return block


def _on_one_line(numbers: re.Match[str]) -> str:
    return re.sub(r"\s+", " ", numbers[0]).replace("[ ", "[").replace(" ]", "]")


def main() -> None:
    """Writes the page."""
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        sys.exit(f"{PAGE} needs the lines {BEGIN} and {END}")
    env = environment()
    with tempfile.TemporaryDirectory() as folder, ChildProcesses(Path(folder), env) as children:
        start_world(children, Path(folder))
        text = asyncio.run(session(env))
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
