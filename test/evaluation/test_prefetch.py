# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from clip_seg_ros.evaluation.prefetch import read_ahead, spread


class Numbers:
    """Remembers what was read, and by whom."""

    def __init__(self, broken: int | None = None) -> None:
        self.read: list[int] = []
        self.threads: set[str] = set()
        self.broken = broken

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        self.threads.add(threading.current_thread().name)
        if index == self.broken:
            raise OSError("broken file")
        return index * index


def test_samples_come_in_order_from_another_thread() -> None:
    numbers = Numbers()
    assert list(read_ahead(numbers, [3, 1, 7, 0, 2, 19])) == [(3, 9), (1, 1), (7, 49), (0, 0), (2, 4), (19, 361)]
    assert numbers.read == [3, 1, 7, 0, 2, 19]
    assert threading.current_thread().name not in numbers.threads


def test_no_more_than_a_few_samples_are_held() -> None:
    numbers = Numbers()
    samples = read_ahead(numbers, range(20), ahead=2)
    next(samples)
    samples.close()
    assert len(numbers.read) <= 3


def test_an_error_comes_at_the_turn_of_its_sample() -> None:
    samples = read_ahead(Numbers(broken=1), range(5))
    assert next(samples) == (0, 0)
    with pytest.raises(OSError, match="broken file"):
        next(samples)


def test_nothing_to_read() -> None:
    assert list(read_ahead(Numbers(), [])) == []


def test_a_limit_spreads_over_the_whole_data_set() -> None:
    assert spread(4) == spread(4, 9) == [0, 1, 2, 3]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(100, 3) == [0, 33, 66]
