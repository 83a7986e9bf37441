# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of a process that runs for months flat, whatever sizes of images come."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable
from functools import lru_cache

KERNELS = 256
"""Kernels that torch and oneDNN keep, each made for one shape; left alone both keep 1,024, which came to 90 MB here. A
model needs 50 to 100 for each size of image that it sees."""
HEAPS = 1
"""Heaps that glibc shares between a process's threads; left alone it makes one for nearly every thread that ever asks
for memory, and in each of them lie gaps."""
_M_ARENA_MAX = -8
PAUSE_S = 2.0
"""Between two times that memory is given back: the pages that are in use again have to be fetched anew."""
REST_S = 4.0
"""After which sizes that stay count as at rest."""


def limit_caches() -> None:
    """Bounds what torch and MKL keep, unless the user did; it takes effect before the process's first convolution.

    MKL would keep buffers of 10 to 40 MB for every thread that ever ran a model, without being any faster for it.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(KERNELS))
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def limit_heaps() -> None:
    """Lets threads that come later share ``HEAPS`` heaps, unless the user says how many, where glibc keeps them."""
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, HEAPS)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    # glibc alone has it.
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back() -> None:
    """Returns to the system, and to the GPU, what was freed and is still kept for what may come."""
    torch = sys.modules.get("torch")  # it takes seconds to import, and without it there is nothing on a GPU
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = _trim()
    if trim is not None:
        # glibc keeps the gaps between what is in use, and a heap for each thread.
        trim(0)


class SizeWatch:
    """Gives memory back while what is worked on changes its size, and once more when sizes have come to rest.

    Blocks of ever new sizes do not fit into the gaps that those before them left, and the gaps add up to as much as the
    models take. Where sizes stay, as of cameras, gaps fit, and nothing is done. It is safe to use from any thread.

    Args:
        act: Called to give memory back.
        clock: Monotonic time in seconds.
    """

    def __init__(self, act: Callable[[], None] = give_back, clock: Callable[[], float] = time.monotonic) -> None:
        self._act, self._clock = act, clock
        self._sizes: dict[str, Hashable] = {}
        self._due_s: tuple[float, ...] = ()
        self._last_s = -PAUSE_S
        self._lock = threading.Lock()

    def saw(self, source: str, size: Hashable) -> None:
        """Notes the size of what ``source``, a name of the program's own, has just brought and what was done with."""
        now_s = self._clock()
        with self._lock:
            if self._sizes.get(source, size) != size:
                self._due_s = (now_s, now_s + REST_S)
            self._sizes[source] = size
            to_come = tuple(each for each in self._due_s if each > now_s)
            if len(to_come) == len(self._due_s) or now_s - self._last_s < PAUSE_S:
                return
            self._due_s, self._last_s = to_come, now_s
        self._act()
