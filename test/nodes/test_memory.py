# SPDX-License-Identifier: Apache-2.0
"""What large messages cost a node for ever: nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.srv import Segment
from ros_harness import NodeProcess, Watcher, wait_until

CALLS, SIDE = 16, 2000
LARGE_MB = 3 * SIDE**2 / 1e6
NAMESPACE = "memory"


@pytest.fixture
def caller(ros):
    node = Watcher(NAMESPACE)
    yield node
    node.close()


def test_the_memory_of_large_calls_that_waited_comes_back(caller, tmp_path):
    node = NodeProcess("referring", tmp_path / "log", namespace=NAMESPACE)
    try:
        node.wait_said("commands:")
        client = caller.create_client(Segment, "segment")
        wait_until(client.service_is_ready, "the service")

        def call(side: int):
            image = Image(height=side, width=side, step=3 * side, encoding="rgb8", data=bytes(3 * side**2))
            return client.call_async(Segment.Request(image=image, prompts=["red cup"]))

        def own_mb() -> float:
            # A call that is small and alone: whatever was left is given back when sizes change.
            assert wait_until(call(100).done, "an answer")
            status = Path(f"/proc/{node.process.pid}/status").read_text()
            return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024 / 1e6

        wait_until(call(SIDE).done, "the first large answer")
        before = own_mb()
        futures = [call(SIDE) for _ in range(CALLS)]
        wait_until(lambda: all(future.done() for future in futures), "all answers")

        wait_until(lambda: own_mb() < before + 6 * LARGE_MB, "the memory to come back")
    finally:
        assert node.end() == 0, node.said()
