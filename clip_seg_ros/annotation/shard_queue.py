# SPDX-License-Identifier: Apache-2.0
"""Which shard a free worker does next: one of a recording that its machine has already read, if there is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from clip_seg_ros.annotation.job import Shard


class ShardQueue:
    """Hands out each shard once, and again if it comes back.

    A recording at an address is copied by each machine that reads of it. So each machine has a recording of its own,
    and helps with another's only when no new one is left. Only the shards of the recordings that are being read are
    held.

    Args:
        shards: The shards, those of a source one after the other.
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._coming = groupby(shards, key=attrgetter("source"))
        self._open: dict[int, deque[Shard]] = {}
        self._source_of: dict[str, int] = {}

    def take(self, machine: str) -> Shard | None:
        """Returns a shard for a worker on ``machine``; ``None`` if there is none for now."""
        source = self._source_of.get(machine)
        if source not in self._open:
            source = self._next_source()
            if source is None:
                self._source_of.pop(machine, None)
                return None
            self._source_of[machine] = source
        shards = self._open[source]
        shard = shards.popleft()
        if not shards:
            del self._open[source]
        return shard

    def at_least(self, count: int) -> int:
        """Returns how many shards are left, or ``count`` if it is so many or more."""
        while sum(map(len, self._open.values())) < count and self._open_next() is not None:
            pass
        return min(count, sum(map(len, self._open.values())))

    def put_back(self, shard: Shard) -> None:
        """Takes a shard that was not done; it is handed out before others of its source."""
        self._open.setdefault(shard.source, deque()).appendleft(shard)

    def forget(self, machine: str) -> None:
        """Notes that a machine is gone."""
        self._source_of.pop(machine, None)

    def _next_source(self) -> int | None:
        """Returns a source that no machine reads, else the one with the most left, else ``None``."""
        read = set(self._source_of.values())
        for source in self._open:
            if source not in read:
                return source
        opened = self._open_next()
        if opened is not None:
            return opened
        return max(self._open, key=lambda source: len(self._open[source]), default=None)

    def _open_next(self) -> int | None:
        for source, shards in self._coming:
            self._open[source] = deque((*self._open.get(source, ()), *shards))
            return source
        return None
