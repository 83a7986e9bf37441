# SPDX-License-Identifier: Apache-2.0
"""Children end with their parent's work, whatever they do about it."""

import os
import time

import pytest

from clip_seg_ros.tools.processes import ChildDied, ChildProcesses

SLEEP = "import time\ntime.sleep(600)\n"
STUBBORN = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\ntime.sleep(600)\n"
)
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\ntime.sleep(600)\n"
)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start(tmp_path):
    """Starts a program, given as text, as a child."""

    def start(children: ChildProcesses, name: str, program: str, talks: bool = True):
        (tmp_path / f"{name}_module.py").write_text(program)
        return children.start(name, f"{name}_module", talks=talks)

    return start


@pytest.fixture
def children(tmp_path):
    with ChildProcesses(tmp_path, os.environ | {"PYTHONPATH": str(tmp_path)}) as children:
        yield children


def test_all_end_when_the_block_is_left_by_an_error(tmp_path, start):
    started = []

    def fail_within_the_block():
        with ChildProcesses(tmp_path, os.environ | {"PYTHONPATH": str(tmp_path)}) as children:
            started.extend(start(children, f"child{index}", SLEEP) for index in range(2))
            raise KeyError

    with pytest.raises(KeyError):
        fail_within_the_block()
    assert len(started) == 2
    assert all(child.poll() is not None for child in started)


def test_a_stubborn_child_is_killed(start, children):
    child = start(children, "stubborn", STUBBORN)
    assert child.stdout.readline() == "ready\n"
    children.stop()
    assert child.returncode == -9


def test_grandchildren_end_too(start, children):
    grandchild = int(start(children, "parent", PARENT).stdout.readline())
    assert is_alive(grandchild)
    children.stop()
    deadline = time.monotonic() + 120
    while is_alive(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dead_child_is_named_with_its_last_words(start, children):
    child = start(children, "camera", "import sys\nsys.exit('no light')\n", talks=False)
    child.wait()
    with pytest.raises(ChildDied, match=r"(?s)camera ended with exit code 1.*no light"):
        children.check()
    children.stop()
    children.check()
