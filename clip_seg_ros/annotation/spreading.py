# SPDX-License-Identifier: Apache-2.0
"""Spreads the shards of a run over workers. What comes out does not depend on how they are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from clip_seg_ros.annotation.job import Job, Shard, ShardReport
from clip_seg_ros.annotation.worker import annotate_shard


class Executor(Protocol):
    """Does the shards of a job."""

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """Does all shards, each with ``worker.annotate_shard``, and returns when they are done.

        Args:
            job: A job whose models are known (``serving.resolved``).
            shards: The shards; there may be many, so that they are taken one by one, as workers become free.
            on_report: Called on this thread with the report of each shard, in any order. A shard whose worker dies is
                tried again, and reported with a fault when that does not help.

        Raises:
            ValueError, WeightsError: What concerns all shards, such as a model that cannot be loaded.
        """


class InProcess:
    """Does one shard after the other in this process."""

    def run(self, job: Job, shards: Iterable[Shard], on_report: Callable[[ShardReport], None]) -> None:
        """See ``Executor``."""
        for shard in shards:
            on_report(annotate_shard(job, shard))
