# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of a process that runs for months from growing, whatever the sizes of its images are."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable
from functools import lru_cache

from clip_seg_ros.runtime.capturing import CAPTURING

KERNELS = 256
"""The number of kernels that torch and oneDNN each keep; a kernel is made for one shape. By default both keep 1,024,
which took 90 MB when measured. A model needs 50 to 100 for each size of image that it sees."""
HEAPS = 1
"""The number of heaps that glibc shares between the threads of a process. By default it makes one for nearly every
thread that asks for memory, and each of them has gaps. With five heaps a node held 90 MB more,
and grew by a fifth over 100,000 hostile messages."""
_M_ARENA_MAX = -8
"""The number of glibc's option for ``mallopt`` that limits the heaps."""
PAUSE_S = 2.0
"""The shortest time between two releases of memory, because pages that are used again must be fetched again."""
REST_S = 4.0
"""The time without a change after which the sizes count as settled."""


def limit_caches() -> None:
    """Limits the caches of torch and MKL, unless the user set them; call it before the process's first convolution.

    By default MKL keeps buffers of 10 to 40 MB for every thread that ever ran a model, without being any faster.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(KERNELS))
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def limit_heaps() -> None:
    """Makes all threads share ``HEAPS`` heaps, unless the user set their number; only glibc has this.

    Call it before the first thread starts: heaps that are there already are kept, and threads that start later use them
    in turn.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, HEAPS)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    # Only glibc has this function.
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back() -> None:
    """Returns to the system and to the GPU the memory that was freed, but kept for later use."""
    torch = sys.modules.get("torch")  # torch takes seconds to import, and without it nothing is on a GPU
    if torch is not None and torch.cuda.is_available():
        with CAPTURING:
            torch.cuda.empty_cache()
    trim = _trim()
    if trim is not None:
        # glibc keeps the gaps between the blocks in use, and a heap for each thread.
        trim(0)


class SizeWatch:
    """Gives memory back while the sizes of the images change, and once more when they have settled.

    Blocks of new sizes do not fit into the gaps that earlier blocks left, and these gaps can take as much memory as the
    models. If the sizes stay the same, as those of cameras do, the gaps fit and nothing is done. It is safe to use
    from any thread.

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
        """Notes the size of an image that was just worked on.

        Args:
            source: Where the image came from. It must be one of the program's own names, because all are remembered.
            size: Size of the image.
        """
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
