# SPDX-License-Identifier: Apache-2.0
"""Chooses the samples and random numbers of a step by the seed and the step alone, so that runs can be resumed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np

from clip_seg_ros.training.distributed import share

Sample = TypeVar("Sample", covariant=True)


class DrawnSamples(Protocol[Sample]):
    """Samples with random crops, negatives or example images; all randomness comes from the generator."""

    def __len__(self) -> int: ...

    def draw(self, index: int, rng: np.random.Generator) -> Sample: ...


@dataclass(frozen=True)
class EpochSampler:
    """Batches of indices in which every sample comes once in each epoch, in a new random order.

    A batch that does not fit into an epoch is filled from the next one: no sample is left out or seen twice. With
    ``drop_last``, each epoch ends with its last whole batch instead, and some samples are left out, others each time.
    """

    count: int
    """The number of samples in the data set."""
    batch: int
    """The number of samples in a batch, over all processes."""
    seed: int
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"batches of {self.batch} out of {self.count} samples: both must be at least 1")
        if self.drop_last and self.count < self.batch:
            raise ValueError(f"an epoch of {self.count} samples has no whole batch of {self.batch}")

    def indices(self, number: int) -> np.ndarray:
        """Returns the (batch,) int64 indices of batch ``number``, counted from 0 over all epochs."""
        if self.drop_last:
            epoch, within = divmod(number, self.count // self.batch)
            order = _order(self.count, self.seed, epoch)
            return order[within * self.batch : (within + 1) * self.batch].copy()
        places = np.arange(number * self.batch, (number + 1) * self.batch)
        epochs, within = np.divmod(places, self.count)
        chosen = np.empty(self.batch, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = _order(self.count, self.seed, int(epoch))[within[here]]
        return chosen

    def batches(self, epochs: float) -> int:
        """Returns how many batches show every sample ``epochs`` times, the last one full."""
        if self.drop_last:
            return int(np.ceil(epochs * (self.count // self.batch)))
        return int(np.ceil(epochs * self.count / self.batch))


# A batch may belong to two epochs, and drawing the order of a large data set takes long.
@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(count)
    order.setflags(write=False)
    return order


def sample_rngs(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Returns a generator for each sample of a batch.

    The random numbers of a sample then depend neither on those of the others nor on the process or thread: make the
    generators for the whole batch, and take ``distributed.share`` of them.
    """
    return [np.random.default_rng(seed) for seed in rng.integers(2**63, size=count)]


class SampleLoader(Generic[Sample]):
    """Draws the samples of batches in threads, ahead of the steps that need them.

    The content of a batch depends only on the seed and its number, not on the number of threads and processes. Threads
    are sufficient, because reading and decoding images mostly runs outside Python's global lock.

    Args:
        data: The samples; their ``draw`` is called from several threads at once.
        sampler: Chooses the samples of a batch, over all processes.
        threads: The number of threads.
        ahead: The number of batches that are drawn ahead.

    Raises:
        ValueError: The sampler is made for another number of samples.
    """

    def __init__(self, data: DrawnSamples[Sample], sampler: EpochSampler, threads: int = 4, ahead: int = 2) -> None:
        if len(data) != sampler.count:
            raise ValueError(f"the sampler is made for {sampler.count} samples, but there are {len(data)}")
        self._data, self._sampler, self._ahead = data, sampler, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="samples")
        self._begun: dict[int, list[Future[Sample]]] = {}

    def load(self, number: int) -> list[Sample]:
        """Returns this process's share of batch ``number``. Raises what ``draw`` raised."""
        for wanted in range(number, number + self._ahead + 1):
            if wanted not in self._begun:
                self._begun[wanted] = self._begin(wanted)
        for old in [begun for begun in self._begun if not number <= begun <= number + self._ahead]:
            _cancel(self._begun.pop(old))
        return [future.result() for future in self._begun.pop(number)]

    def close(self) -> None:
        """Cancels pending batches and ends the threads."""
        for futures in self._begun.values():
            _cancel(futures)
        self._begun = {}
        self._pool.shutdown()

    def _begin(self, number: int) -> list[Future[Sample]]:
        indices = share(self._sampler.indices(number))
        # The third number makes these differ from the generators for the order of epochs.
        rngs = sample_rngs(np.random.default_rng([self._sampler.seed, number, 1]), self._sampler.batch)
        return [
            self._pool.submit(self._data.draw, int(index), rng) for index, rng in zip(indices, share(rngs), strict=True)
        ]


def _cancel(futures: list[Future]) -> None:
    for future in futures:
        future.cancel()
