# SPDX-License-Identifier: Apache-2.0
"""The executor that several threads share."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from clip_seg_ros.nodes.life.process import _Executor
from clip_seg_ros.pipeline.memory import HEAPS
from ros_harness import NodeProcess


@pytest.fixture
def node(ros):
    node = Node("process_test")
    yield node
    node.destroy_node()


def spin(node: Node, seconds: float) -> list[object]:
    """Spins for so long on two threads; returns the callback of every turn."""
    executor = _Executor(2)
    executor.add_node(node)
    wait, handed_over = executor.wait_for_ready_callbacks, []

    def noted(*args, **kwargs):
        ready = wait(*args, **kwargs)
        handed_over.append(ready[0])
        return ready

    executor.wait_for_ready_callbacks = noted
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        executor.spin_once(0.1)
    executor.shutdown()
    return handed_over


def test_a_callback_is_handed_over_once(node):
    calls = []
    timer = node.create_timer(0.01, lambda: calls.append(1))
    handed_over = spin(node, 1.0)
    timer.destroy()
    assert len(calls) >= 10
    # A thread that is slow to begin because others have the processor may be offered its callback once more.
    assert len(handed_over) <= 1.5 * len(calls)


def test_callbacks_go_on_while_every_thread_was_busy(node):
    calls = []

    def slow():
        calls.append(1)
        time.sleep(0.1)

    group = ReentrantCallbackGroup()
    timers = [node.create_timer(0.03, slow, callback_group=group) for _ in range(3)]
    handed_over = spin(node, 1.0)
    for timer in timers:
        timer.destroy()
    assert len(calls) >= 6
    # Three want to run where two can: the third is offered, but with pauses in between.
    assert len(handed_over) <= len(calls) + 150


HEAPS_OF_NODE = """
from clip_seg_ros.nodes.common import early
early.begin()
import ctypes, threading
import numpy
from rclpy.node import Node
from clip_seg_ros.nodes.life.process import run_node

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
together = threading.Barrier(12)

def work():
    together.wait()
    libc.malloc(100_000)
    together.wait()

def create():
    node = Node("heaps")
    threads = [threading.Thread(target=work) for _ in range(12)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    file = libc.fopen(b"/dev/stdout", b"w")
    libc.malloc_info(0, file)
    libc.fclose(file)
    raise RuntimeError("that was all")

raise SystemExit(run_node("heaps", create))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_info"), reason="glibc alone has it"
)
def test_the_threads_of_dds_and_all_others_share_heaps(ros):
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    said = subprocess.run([sys.executable, "-c", HEAPS_OF_NODE], capture_output=True, text=True, env=environment)
    assert "that was all" in said.stderr
    assert 1 <= said.stdout.count("<heap nr=") <= HEAPS


def segments_of(process: Path) -> set[Path]:
    """Fast DDS's shared memory that a process has mapped, its own and that of whom it talks to."""
    try:
        maps = (process / "maps").read_text().splitlines()
    except OSError:  # it has ended, or is another user's
        return set()
    return {Path(line.split()[-1]) for line in maps if "/dev/shm/fastrtps_" in line and "_port" not in line}


@pytest.mark.parametrize(
    ("name", "ready"), [("referring", "commands:"), ("semantic", "commands:"), ("sim_camera", "scene")]
)
def test_a_node_leaves_no_shared_memory_behind(ros, log, name, ready):
    node = NodeProcess(name, log, namespace="gone")
    node.wait_said(ready)
    segments = segments_of(Path(f"/proc/{node.process.pid}"))
    assert any(segment.exists() for segment in segments)
    assert node.end() == 0
    others = set().union(*map(segments_of, Path("/proc").glob("[0-9]*")))
    assert [segment for segment in segments - others if segment.exists()] == []


BUSY_NODE = """
import threading, torch
from rclpy.node import Node
from clip_seg_ros.nodes.life.process import run_node

class Busy(Node):
    def __init__(self):
        super().__init__("busy")
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        image, kernel = torch.ones(1, 64, 256, 256), torch.ones(64, 64, 3, 3)
        print("at work", flush=True)
        while True:
            torch.conv2d(image, kernel)

raise SystemExit(run_node("busy", Busy))
"""


@pytest.mark.parametrize(
    ("name", "arguments", "code", "words"),
    [
        ("referring", ["--help"], 0, ["usage: {}", "--ros-args", "NAME:=VALUE", "docs/nodes.md"]),
        ("semantic", ["--help"], 0, ["usage: {}"]),
        ("sim_camera", ["--ros-args", "--help"], 0, ["usage: {}"]),
        ("sim_camera", ["--seed", "3"], 2, ["{}: error: unknown argument --seed", "follow --ros-args"]),
        ("sim_camera", ["--ros-args", "--seed"], 2, ["{}: error: ROS does not understand", "--seed"]),
    ],
)
def test_a_program_tells_its_usage_and_refuses_arguments_that_nobody_reads(name, arguments, code, words):
    ended = subprocess.run(
        [sys.executable, "-m", f"clip_seg_ros.nodes.{name}", *arguments], capture_output=True, text=True, timeout=300
    )
    said = ended.stdout if code == 0 else ended.stderr
    assert ended.returncode == code
    assert all(word.format(name) in said for word in words), said


def test_a_process_ends_quietly_while_a_thread_is_at_work():
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY_NODE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout.readline() == "at work\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert said == "", said
