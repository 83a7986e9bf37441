# SPDX-License-Identifier: Apache-2.0
"""What was built for the sizes of images that came last; others are built in the background, and never too many."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Size = tuple[int, int]

_COUNTED_SIZES = 64
"""The number of sizes whose images are counted, and of those that are known to be hopeless."""
_LOG = logging.getLogger(__name__)


class BuiltSizes(Generic[T]):
    """Builds what an engine needs for a size of images, and keeps it for the few sizes that were used last.

    To build takes seconds to minutes, in which images of that size must be answered otherwise. A size is built after
    ``patience`` images of it, one at a time, so that a camera that is switched gets it soon, and images of
    ever-changing sizes never do. It takes the place of another size only if that was not used for ``unused_for``
    images. It is safe to use from several threads.

    Args:
        build: Builds what belongs to a size; it may raise anything.
        capacity: The number of sizes that are kept.
        patience: The number of images of a size before it is built.
        unused_for: The number of images in which a size was not used, after which another one may take its place.
    """

    def __init__(self, build: Callable[[Size], T], capacity: int = 4, patience: int = 3, unused_for: int = 100) -> None:
        self._build = build
        self._capacity, self._patience, self._unused_for = capacity, patience, unused_for
        self._lock = threading.Lock()
        # The size that was used last is at the end.
        self._built: OrderedDict[Size, T] = OrderedDict()
        self._used_at: dict[Size, int] = {}
        self._asked: OrderedDict[Size, int] = OrderedDict()
        self._hopeless: set[Size] = set()
        self._images = 0
        self._builder: threading.Thread | None = None

    def get(self, size: Size) -> T | None:
        """Returns what was built for an image of ``size``, or ``None`` while there is nothing."""
        with self._lock:
            self._images += 1
            if size in self._built:
                self._built.move_to_end(size)
                self._used_at[size] = self._images
                return self._built[size]
            if self._is_wanted(size):
                self._builder = threading.Thread(target=self._build_late, args=(size,), name="engine builder")
                self._builder.start()
            return None

    def prepare(self, size: Size) -> T:
        """Builds what belongs to ``size`` unless it is there, and returns it; raises what ``build`` raises."""
        with self._lock:
            found = self._built.get(size)
        if found is None:
            found = self._build(size)
            self._keep(size, found)
        return found

    def values(self) -> tuple[T, ...]:
        """Returns everything that is kept, that which was used last first."""
        with self._lock:
            return tuple(reversed(self._built.values()))

    def wait(self) -> None:
        """Waits until nothing is being built."""
        builder = self._builder
        if builder is not None:
            builder.join()

    def _is_wanted(self, size: Size) -> bool:
        """Counts an image of a size that is not built; returns whether to build it now."""
        if size in self._hopeless:
            return False
        self._asked[size] = self._asked.pop(size, 0) + 1
        while len(self._asked) > _COUNTED_SIZES:
            self._asked.popitem(last=False)
        busy = self._builder is not None and self._builder.is_alive()
        if busy or self._asked[size] < self._patience:
            return False
        if len(self._built) < self._capacity:
            return True
        oldest = next(iter(self._built))
        return self._images - self._used_at[oldest] > self._unused_for

    def _build_late(self, size: Size) -> None:
        try:
            self._keep(size, self._build(size))
        except Exception as error:
            with self._lock:
                if len(self._hopeless) >= _COUNTED_SIZES:
                    self._hopeless.clear()
                self._hopeless.add(size)
            _LOG.warning("images of %dx%d stay with the slower engine: %s", size[1], size[0], error)

    def _keep(self, size: Size, value: T) -> None:
        with self._lock:
            self._built[size] = value
            self._used_at[size] = self._images
            self._asked.pop(size, None)
            while len(self._built) > self._capacity:
                dropped, _ = self._built.popitem(last=False)
                del self._used_at[dropped]
