# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.sim.absences import INTERVAL_NS, LOOKS, absence
from clip_seg_ros.sim.scene import shape_set
from clip_seg_ros.sim.sequences import CLEARANCE_M

SEEDS = range(4000, 4006)
SIZE = (160, 120)


@pytest.fixture(scope="module")
def sequences():
    return {seed: list(absence(seed, SIZE)) for seed in SEEDS}


def test_the_camera_looks_at_the_table_away_and_back(sequences):
    for frames in sequences.values():
        assert [frame.phase for frame in frames] == [phase for phase, count in LOOKS.items() for _ in range(count)]
        assert [frame.stamp_ns for frame in frames] == [INTERVAL_NS * index for index in range(len(frames))]
        for frame in frames:
            assert frame.view.labels.any() == (frame.phase != "away")
            assert bool(frame.positions_m) == (frame.phase != "away")
        first, last = (frame.view.camera_to_world[:2, 3] for frame in (frames[0], frames[-1]))
        cosine = first @ last / np.linalg.norm(first) / np.linalg.norm(last)
        assert cosine < np.cos(np.radians(40)), "the other side is at least 60 degrees away, but for the arcs"


def test_things_change_only_while_the_camera_looks_away(sequences):
    for frames in sequences.values():
        groups = {phase: [frame for frame in frames if frame.phase == phase] for phase in LOOKS}
        assert len({frame.view.objects for frame in groups["before"]}) == 1
        assert len({frame.view.objects for frame in groups["away"] + groups["back"]}) == 1
        before, after = groups["before"][0], groups["back"][0]
        pairs = zip(before.view.objects, after.view.objects, strict=True)
        assert {label for label, (old, new) in enumerate(pairs, start=1) if old != new} == after.moved | after.taken
        assert not before.moved | before.taken
        assert len(after.moved | after.taken) <= 2
        assert not any((frame.view.labels == label).any() for frame in groups["back"] for label in frame.taken)
    assert any(frames[-1].moved for frames in sequences.values())
    assert any(frames[-1].taken for frames in sequences.values())
    assert any(not frames[-1].moved | frames[-1].taken for frames in sequences.values())


def test_moved_objects_keep_clear_of_all_others(sequences):
    for seed, frames in sequences.items():
        shapes = shape_set(seed // 25)
        frame = frames[-1]
        there = [(label, item) for label, item in enumerate(frame.view.objects, start=1) if label not in frame.taken]
        for label, item in there:
            if label in frame.moved:
                for other_label, other in there:
                    if other_label != label:
                        reach = sum(shapes[one.kind][one.slot].footprint_radius for one in (item, other))
                        gap = np.hypot(*np.subtract(item.position, other.position)[:2]) - reach
                        assert gap > CLEARANCE_M - 1e-9


def test_true_positions_stay_in_the_world_while_the_camera_moves(sequences):
    for frames in sequences.values():
        one, other = frames[0].positions_m, frames[1].positions_m
        moves = [np.linalg.norm(np.subtract(one[label], other[label])) for label in one.keys() & other.keys()]
        assert np.median(moves) < 0.02


def test_a_seed_gives_the_same_sequence_again(sequences):
    for before, again in zip(sequences[4000], absence(4000, SIZE), strict=True):
        np.testing.assert_array_equal(before.view.rgb, again.view.rgb)
        np.testing.assert_array_equal(before.view.depth_m, again.view.depth_m)
