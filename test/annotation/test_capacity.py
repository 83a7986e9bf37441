# SPDX-License-Identifier: Apache-2.0
"""The calculation of many recordings on many workers."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.capacity import (
    Assumptions,
    changed,
    described,
    makespan_s,
    planned,
    predicted_speedup,
    told,
)

FREE = Assumptions(
    recording_gb=1e-9, picture_kb=0, results_kb=0, files_s=1e12, driver_ms=0, format_ms=0, start_s=0, is_copied=False
)
"""Nothing but the work itself takes time."""


def test_without_anything_shared_it_is_the_work_alone() -> None:
    plan = planned(FREE)

    # 36 million images at 5 a second on 100 workers, 68 of which are answered for 64, and a last shard.
    assert plan.hours == pytest.approx(36e6 / 5 / 100 * 68 / 64 / 3600 + 68 / 5 / 3600, rel=1e-6)


def test_twice_the_workers_take_half_the_time() -> None:
    assert planned(changed(FREE, ["workers=200"])).hours == pytest.approx(planned(FREE).hours / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "bottleneck"),
    [
        ("driver_ms=1000", "the driver's part in shards"),
        ("format_ms=1000", "writing the data set"),
        ("files_s=10", "files written"),
        ("picture_kb=1e6", "bytes written"),
        ("hash_gb_s=1e-3", "listing the cameras of copies"),
    ],
)
def test_what_is_slow_is_the_limit(change: str, bottleneck: str) -> None:
    plan = planned(changed(Assumptions(), [change]))

    assert plan.bottleneck == bottleneck
    assert plan.loads[0].name == bottleneck


def test_from_the_limit_on_it_takes_as_long_as_the_work() -> None:
    assumed = changed(FREE, ["driver_ms=100"])
    limit = planned(assumed).bottleneck_workers

    few, many = (planned(changed(assumed, [f"workers={factor * limit:.0f}"])).hours for factor in (0.5, 4))

    assert few == pytest.approx(2 * many, rel=0.01)


def test_looking_alone_takes_longer_than_looking_together() -> None:
    assert planned(changed(Assumptions(), ["is_look_spread=False"])).hours > planned(Assumptions()).hours


def test_copies_make_workers_wait() -> None:
    assert planned(changed(Assumptions(), ["is_copied=False"])).hours < planned(Assumptions()).hours


def test_who_is_free_takes_the_next_piece() -> None:
    assert makespan_s([3, 1, 1, 1], 2) == 3
    assert makespan_s([1, 1, 3], 2) == 4


def test_pieces_that_do_not_share_out_evenly_cost_speed() -> None:
    assert predicted_speedup(5, 640, 64, 2) == pytest.approx(2, rel=0.01)
    assert predicted_speedup(5, 192, 64, 2) == pytest.approx((64 + 68 + 68) / (64 + 68), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "complaint"), [("speed=1", "no assumption speed"), ("workers=x", "no number"), ("workers=0", "above 0")]
)
def test_a_wrong_assumption_is_named(change: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        changed(Assumptions(), [change])


def test_all_assumptions_and_loads_are_printed() -> None:
    assert "assumed: workers = 100" in described(Assumptions())
    assert any("writing the data set" in line for line in told(planned(Assumptions())))
