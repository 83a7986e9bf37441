# SPDX-License-Identifier: Apache-2.0
"""Which shard a free worker does next."""

from __future__ import annotations

from collections.abc import Iterator

from clip_seg_ros.annotation.job import Shard
from clip_seg_ros.annotation.shard_queue import ShardQueue


def shards(*counts: int) -> Iterator[Shard]:
    for source, count in enumerate(counts):
        yield from (Shard(source, number, number, number + 1) for number in range(count))


def taken(queue: ShardQueue, machine: str) -> tuple[int, int]:
    shard = queue.take(machine)
    assert shard is not None
    return shard.source, shard.number


def test_each_machine_has_a_recording_of_its_own() -> None:
    queue = ShardQueue(shards(3, 3))

    assert [taken(queue, machine) for machine in "abab"] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_workers_of_one_machine_share_a_recording() -> None:
    queue = ShardQueue(shards(3, 3))

    assert [taken(queue, "a") for _ in range(4)] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_a_machine_without_a_recording_helps_where_most_is_left() -> None:
    queue = ShardQueue(shards(2, 4))
    assert [taken(queue, machine) for machine in "ab"] == [(0, 0), (1, 0)]

    assert taken(queue, "c") == (1, 1)


def test_all_shards_are_handed_out_once() -> None:
    queue, found = ShardQueue(shards(3, 1, 5)), []
    while (shard := queue.take("abc"[len(found) % 3])) is not None:
        found.append(shard)

    assert sorted(found, key=lambda shard: (shard.source, shard.number)) == list(shards(3, 1, 5))


def test_what_comes_back_is_handed_out_again() -> None:
    queue = ShardQueue(shards(1))
    shard = queue.take("a")
    assert shard is not None
    assert queue.take("a") is None

    queue.put_back(shard)

    assert queue.take("b") == shard


def test_the_recording_of_a_machine_that_is_gone_is_free_again() -> None:
    queue = ShardQueue(shards(3, 3))
    assert [taken(queue, machine) for machine in "ab"] == [(0, 0), (1, 0)]

    queue.forget("a")

    assert taken(queue, "c") == (0, 1)


def test_only_what_is_needed_of_many_shards_is_held() -> None:
    read = []

    def noted() -> Iterator[Shard]:
        for shard in shards(*[10] * 1000):
            read.append(shard)
            yield shard

    queue = ShardQueue(noted())

    assert queue.at_least(15) == 15
    assert len(read) <= 21


def test_it_says_how_many_are_left() -> None:
    queue = ShardQueue(shards(2, 1))

    assert queue.at_least(10) == 3
    queue.take("a")
    assert queue.at_least(10) == 2
