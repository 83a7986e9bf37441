# SPDX-License-Identifier: Apache-2.0
import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from clip_seg_ros.pipeline.memory import EVERY_S, KERNELS, PAUSE_S, REST_S, SizeWatch, give_back
from clip_seg_ros.pipeline.model_host import ModelHost

USAGE = """
import ctypes

class Usage(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Usage
"""
KEPT_BY_THREADS = f"""{USAGE}
import threading
from clip_seg_ros.pipeline.model_host import ModelHost

ModelHost(lambda name: None, print, print)
import torch
torch.set_num_threads(1)
left, right = torch.ones(1024, 768), torch.ones(768, 1024)
end = threading.Event()
def work(done):
    torch.mm(left, right).sum()
    done.set()
    end.wait()
for _ in range(9):
    done = threading.Event()
    threading.Thread(target=work, args=(done,), daemon=True).start()
    done.wait()
    print(libc.mallinfo2().uordblks)
end.set()
"""

LARGE_BLOCKS = f"""{USAGE}
import numpy as np
from clip_seg_ros.pipeline.memory import set_up_heap
set_up_heap()
before = libc.mallinfo2().hblks
blocks = [np.ones(4 * 2**20, np.uint8) for _ in range(8)]
print(libc.mallinfo2().hblks - before)
"""


def run(program: str, *unset: str) -> str:
    """What a program prints where none of the variables is set."""
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    ).stdout


class Clock:
    """Monotonic time that tests set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_memory_is_given_back_when_sizes_change_but_not_always():
    clock, times, others = Clock(), [], []
    watch = SizeWatch(lambda: times.append(clock.now_s), lambda: others.append(clock.now_s), clock)
    for number in range(100):  # two cameras whose sizes stay
        watch.saw(f"camera {number % 2}", (480 + number % 2, 640))
        clock.now_s += 1.0
    assert times == []
    assert np.diff(others).tolist() == [EVERY_S] * (len(others) - 1), "gaps also grow slowly where no size changes"
    assert len(others) == 100 // EVERY_S
    for number in range(1, 101):  # another size each time
        watch.saw("camera 0", (480, 640 + number))
        clock.now_s += PAUSE_S / 4
    assert times == [100.0 + PAUSE_S * each for each in range(25)]
    # What changed within the pause is made up for after it, and once more at rest.
    clock.now_s += PAUSE_S
    watch.saw("camera 0", (480, 740))
    assert len(times) == 26
    for _ in range(100):
        clock.now_s += REST_S / 4
        watch.saw("camera 0", (480, 740))
    assert len(times) == 27
    assert np.diff(sorted(times + others)).max() <= EVERY_S


GLIBC = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone keeps it"
)


@GLIBC
def test_a_thread_that_ran_a_model_keeps_no_buffers():
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library does not count what is in use")
    used = [int(line) for line in run(KEPT_BY_THREADS, "MKL_DISABLE_FAST_MM").split()]
    assert len(used) == 9
    assert used[-1] - used[0] < 8 * 1e6


@GLIBC
@pytest.mark.parametrize(("given", "apart"), [({}, 0), ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, 8)])
def test_large_blocks_stay_in_the_heap_unless_the_user_chose(monkeypatch, given, apart):
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library does not count what is in use")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    unset = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} - set(given)
    assert int(run(LARGE_BLOCKS, *unset)) == apart


@GLIBC
def test_what_was_freed_is_returned():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # Below what glibc maps by itself, and the last one keeps the others from the heap's end.
    blocks = [np.ones(100_000, np.uint8) for _ in range(1000)]
    last = blocks.pop()
    full = resident()
    del blocks
    give_back()
    assert full - resident() > 50_000_000
    assert last.all()


@pytest.mark.parametrize(("given", "expected"), [(None, str(KERNELS)), ("64", "64")])
def test_whoever_serves_models_bounds_what_torch_keeps_for_shapes(monkeypatch, given, expected):
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    for name in names:
        monkeypatch.setenv(name, given or "")
        if given is None:
            monkeypatch.delenv(name)
    ModelHost(lambda name: None, print, print)
    assert [os.environ[name] for name in names] == [expected] * 2
