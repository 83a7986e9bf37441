# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import numpy as np
import pytest

from clip_seg_ros.training import distributed
from clip_seg_ros.training.recipes.sampling import EpochSampler, SampleLoader, sample_rngs


@pytest.mark.parametrize(("count", "batch"), [(10, 5), (10, 4), (7, 3), (3, 8), (1, 1)])
def test_every_sample_comes_once_an_epoch(count: int, batch: int) -> None:
    sampler = EpochSampler(count, batch, 3)
    epochs = 6
    stream = np.concatenate([sampler.indices(number) for number in range(sampler.batches(epochs))])
    assert len(stream) < epochs * count + batch
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_an_epoch_may_end_with_its_last_whole_batch() -> None:
    sampler = EpochSampler(11, 4, 3, drop_last=True)
    assert sampler.batches(50) == 100
    left_out = set()
    for epoch in range(20):
        shown = np.concatenate([sampler.indices(2 * epoch + part) for part in range(2)])
        assert len(set(shown)) == 8
        left_out |= set(range(11)) - set(shown)
    assert left_out == set(range(11)), "others each time"
    assert EpochSampler(42_404, 64, 0, drop_last=True).batches(50) == 33_100, "CRIS on RefCOCO"
    with pytest.raises(ValueError, match="3 samples has no whole batch of 4"):
        EpochSampler(3, 4, 0, drop_last=True)


def test_epochs_and_seeds_differ_in_order_and_a_batch_depends_on_nothing_else() -> None:
    sampler = EpochSampler(50, 50, 0)
    first, second = sampler.indices(0), sampler.indices(1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, EpochSampler(50, 50, 1).indices(0))
    assert np.array_equal(EpochSampler(50, 50, 0).indices(1), second)
    assert abs(np.corrcoef(first, np.arange(50))[0, 1]) < 0.5


def test_a_batch_may_be_changed_by_its_owner() -> None:
    sampler = EpochSampler(5, 5, 0)
    kept = sampler.indices(0).copy()
    sampler.indices(0)[:] = 0
    assert np.array_equal(sampler.indices(0), kept)


def test_nothing_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="batches of 2 out of 0 samples"):
        EpochSampler(0, 2, 0)


def test_generators_of_samples_do_not_depend_on_each_other() -> None:
    one, two = sample_rngs(np.random.default_rng(5), 4), sample_rngs(np.random.default_rng(5), 4)
    one[0].random(1000)
    assert [rng.random() for rng in one[1:]] == [rng.random() for rng in two[1:]]
    assert len({rng.random() for rng in two}) == 4


class Drawn:
    """Samples that are (index, a random number), and a count of how often they were drawn."""

    def __init__(self, count: int) -> None:
        self.count, self.drawn, self.threads = count, [], set()

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, rng: np.random.Generator) -> tuple[int, float]:
        if index == 99:
            raise OSError("sample 99 is missing")
        self.drawn.append(index)
        self.threads.add(threading.get_ident())
        return index, float(rng.random())


def test_batches_do_not_depend_on_threads_nor_on_what_was_loaded_before() -> None:
    sampler = EpochSampler(20, 6, 4)
    loaders = [SampleLoader(Drawn(20), sampler, threads, ahead) for threads, ahead in ((1, 0), (4, 3))]
    one, four = ([loader.load(number) for number in range(7)] for loader in loaders)
    assert one == four
    assert [index for index, _ in one[2]] == sampler.indices(2).tolist()
    assert len({value for batch in one for _, value in batch}) == 42, "each sample of each batch has its own chance"
    resumed = SampleLoader(Drawn(20), sampler, 2)
    assert resumed.load(5) == one[5]
    assert resumed.load(6) == one[6]
    assert resumed.load(0) == one[0]
    for loader in (*loaders, resumed):
        loader.close()


def test_processes_share_the_batch_of_one(monkeypatch) -> None:
    def load(rank: int, processes: int) -> list:
        monkeypatch.setattr(distributed, "world_size", lambda: processes)
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        loader = SampleLoader(Drawn(20), EpochSampler(20, 6, 4))
        samples = loader.load(3)
        loader.close()
        return samples

    whole = load(0, 1)
    assert [sample for rank in range(3) for sample in load(rank, 3)] == whole


def test_samples_are_drawn_once_and_not_by_the_caller() -> None:
    data = Drawn(40)
    loader = SampleLoader(data, EpochSampler(40, 4, 0), 2, ahead=2)
    for number in range(8):
        loader.load(number)
    loader.close()
    assert threading.get_ident() not in data.threads
    assert len(data.drawn) == len(set(data.drawn))
    assert 32 <= len(data.drawn) <= 40


def test_what_a_sample_raises_reaches_the_caller() -> None:
    loader = SampleLoader(Drawn(100), EpochSampler(100, 100, 0))
    with pytest.raises(OSError, match="sample 99 is missing"):
        loader.load(0)
    loader.close()


def test_a_sampler_for_other_data_is_refused() -> None:
    with pytest.raises(ValueError, match="made for 5 samples, but there are 4"):
        SampleLoader(Drawn(4), EpochSampler(5, 2, 0))
