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
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""The numbers of glibc's options for ``mallopt``."""
_LARGEST_IN_HEAP, _MOST_AT_END = 2**25, 2**27
"""The size in bytes from which on a block gets pages of its own, and how much free memory the heap keeps at its end.
By default the pages of every large image are fetched anew: the model beside that took 37 ms for an image of 1920x1080,
and takes 33 so."""
PAUSE_S = 2.0
"""The shortest time between two releases of memory, because pages that are used again must be fetched again."""
REST_S = 4.0
"""The time without a change after which the sizes count as settled."""
EVERY_S = 10.0
"""The longest time between two releases while images come: gaps also grow slowly where no size changes."""


def limit_caches() -> None:
    """Limits the caches of torch and MKL, unless the user set them; call it before the process's first convolution.

    By default MKL keeps buffers of 10 to 40 MB for every thread that ever ran a model, without being any faster.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(KERNELS))
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def set_up_heap() -> None:
    """Makes all threads share ``HEAPS`` heaps that keep what was freed at hand; only glibc has this.

    What they keep is given back by ``close_gaps``. Options that the user set in the environment stay. Call it before
    the first thread starts: heaps that are there already are kept, and threads that start later use them in turn.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for variable, option, value in (
            ("MALLOC_ARENA_MAX", _M_ARENA_MAX, HEAPS),
            ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGEST_IN_HEAP),
            ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, _MOST_AT_END),
        ):
            if variable not in os.environ:
                mallopt(option, value)


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
    close_gaps()


def close_gaps() -> None:
    """Returns to the system the gaps between the blocks of memory that are in use, which glibc keeps."""
    trim = _trim()
    if trim is not None:
        trim(0)


class SizeWatch:
    """Gives memory back while the sizes of the images change, once more when they have settled, and then now and then.

    Blocks of new sizes do not fit into the gaps that earlier blocks left, and these gaps can take as much memory as the
    models. If the sizes stay the same, as those of cameras do, most gaps fit, and ``EVERY_S`` is often enough. It is
    safe to use from any thread.

    Args:
        act: Called to give memory back when sizes change.
        act_anyway: Called for the same if ``act`` was not called for ``EVERY_S``. By default the GPU's memory stays:
            its blocks fit as long as sizes do, and to ask for new ones takes long.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        act: Callable[[], None] = give_back,
        act_anyway: Callable[[], None] = close_gaps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._act, self._act_anyway, self._clock = act, act_anyway, clock
        self._sizes: dict[str, Hashable] = {}
        self._due_s: tuple[float, ...] = ()
        self._last_s = clock() - PAUSE_S
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
            waited_s = now_s - self._last_s
            if len(to_come) < len(self._due_s) and waited_s >= PAUSE_S:
                act, self._due_s = self._act, to_come
            elif waited_s >= EVERY_S:
                act = self._act_anyway
            else:
                return
            self._last_s = now_s
        act()
