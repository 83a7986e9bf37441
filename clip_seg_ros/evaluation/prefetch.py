# SPDX-License-Identifier: Apache-2.0
"""Reads samples of a data set ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

Sample = TypeVar("Sample", covariant=True)


class Dataset(Protocol, Generic[Sample]):
    """A data set whose samples are read by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def spread(length: int, limit: int | None = None) -> list[int]:
    """Returns the indices of all samples, or of ``limit`` of them, spread evenly and the same in every run."""
    if limit is None or limit >= length:
        return list(range(length))
    return [index * length // limit for index in range(limit)]


def read_ahead(dataset: Dataset[Sample], indices: Sequence[int], ahead: int = 4) -> Iterator[tuple[int, Sample]]:
    """Yields (index, sample) in the order of ``indices``; one thread reads the next ``ahead`` samples meanwhile.

    What the data set raises is raised here, when the turn of that sample comes.
    """
    waiting: deque[tuple[int, Future[Sample]]] = deque()
    left = iter(indices)
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead")
    try:
        while True:
            for index in left:
                waiting.append((index, reader.submit(dataset.__getitem__, index)))
                if len(waiting) > ahead:
                    break
            if not waiting:
                return
            index, future = waiting.popleft()
            yield index, future.result()
    finally:
        reader.shutdown(cancel_futures=True)
