# SPDX-License-Identifier: Apache-2.0
import pytest

from clip_seg_ros.nodes.common.faults import FIRST_REST_S, LONGEST_REST_S, MAX_FAULTS, MAX_LINES, FaultLog
from clip_seg_ros.nodes.common.log_limits import MAX_LINE, WINDOW_S


class Clock:
    """Monotonic time that tests set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def faults(said, clock) -> FaultLog:
    return FaultLog(said.append, clock)


def test_once_until_it_clears(faults, said, clock):
    for _ in range(3):
        faults.report("image", "empty", "it is empty")
        faults.report("image", "encoding", "unknown")
        faults.report("depth", "empty", "it is empty")
    assert said == ["image: it is empty", "image: unknown", "depth: it is empty"]

    faults.clear("image")
    clock.now_s += FIRST_REST_S
    faults.report("image", "empty", "again")
    faults.report("depth", "empty", "still")
    assert said[3:] == ["image: again"]


@pytest.mark.parametrize("period_s", [1 / 30, 1.0, 5.0])
def test_what_comes_and_goes_is_told_a_few_times_only(faults, said, clock, period_s):
    for _ in range(round(600 / period_s)):
        faults.report("depth", "unmatched", "there is no depth")
        clock.now_s += period_s / 2
        faults.clear("depth")
        clock.now_s += period_s / 2
    assert len(said) == (1 if period_s / 2 < FIRST_REST_S else 2)


def test_a_fault_that_was_gone_for_long_is_news_as_at_first(faults, said, clock):
    for _ in range(4):
        faults.report("depth", "unmatched", "there is no depth")
        faults.clear("depth")
        clock.now_s += LONGEST_REST_S
    assert len(said) == 4
    faults.report("depth", "unmatched", "there is no depth")
    faults.clear("depth")
    clock.now_s += FIRST_REST_S
    faults.report("depth", "unmatched", "there is no depth")
    assert len(said) == 6


def test_what_somebody_asked_for_is_news_each_time(faults, said):
    for _ in range(3):
        faults.report("model", "nothing", "there is no such model", always=True)
    assert said == ["model: there is no such model"] * 3


def test_endless_different_faults_meet_a_ceiling(faults, said, clock):
    for minute in range(3):
        for number in range(1000):
            faults.report("image", f"fault {minute} {number}", f"wrong in way {number}")
        assert len(said) == (MAX_LINES + 1) * minute + MAX_LINES
        # Another source has a ceiling of its own.
        faults.report("depth", str(minute), "wrong")
        assert said.pop() == "depth: wrong"
        clock.now_s += WINDOW_S
        faults.standing()
        assert said[-1] == f"image: and {1000 - MAX_LINES} more faults in the last minute"
    faults.standing()
    assert len(said) == 3 * (MAX_LINES + 1)


def test_standing_faults_are_listed_until_they_clear(faults, clock):
    faults.report("image", "empty", "it is empty")
    faults.report("depth", "unmatched", "there is none")
    assert faults.standing() == ["image: it is empty", "depth: there is none"]
    faults.clear("image")
    assert faults.standing() == ["depth: there is none"]
    faults.report("image", "empty", "it is empty")  # not logged, but it stands again
    assert faults.standing() == ["image: it is empty", "depth: there is none"]


def test_what_is_listed_stays_bounded(faults):
    for number in range(10_000):
        faults.report("image", f"{number} {'x' * 10_000}", f"{number} {'y' * 10_000}")
    standing = faults.standing()
    assert len(standing) == MAX_FAULTS + 1
    assert max(map(len, standing)) < MAX_LINE + 50
    assert standing[-1] == f"image: and {10_000 - MAX_FAULTS} more faults"
    assert standing[-2].startswith("image: 9999 ")
    faults.clear("image")
    assert faults.standing() == []


def test_nobody_forges_a_line(faults, said):
    faults.report("image", "encoding", "unknown encoding a\nb\x1b[2J")
    assert said == ["image: unknown encoding a\\nb\\x1b[2J"] == faults.standing()
