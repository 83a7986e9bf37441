# SPDX-License-Identifier: Apache-2.0
"""What is decided, and the data set that follows from both."""

from __future__ import annotations

import resource
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.annotation.decisions import read_decisions
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.review import Review, ReviewError, Wish, mask_of, with_decisions
from clip_seg_ros.data.samples import DataError
from small_review import BOX, CUP, SIZE, SOURCE, decide, image, names, region, reviewed, states, thing, write


def test_accepted_rejected_and_renamed_objects_say_so(review: Review) -> None:
    decide(review, "accept", 0)
    decide(review, "reject", 1)
    decide(review, "rename", 2, name="mug")
    first, second, third, *others = review.frames()

    assert [(each.prompt, each.decided) for each in first.objects] == [("red cup", "accepted"), ("blue box", "guessed")]
    assert second.objects == (BOX,)
    assert [(each.prompt, each.decided) for each in third.objects] == [("mug", "corrected"), ("blue box", "guessed")]
    assert others == [image(3, CUP, BOX), image(4, CUP, BOX)]


def test_a_whole_track_is_decided(review: Review) -> None:
    decide(review, "rename", 2, track=1, name="mug")
    decide(review, "reject", 4, object=1, track=2)

    assert [names(review, index) for index in range(5)] == [["mug"]] * 5
    assert review.progress().decided_objects == 10


def test_a_track_is_one_through_all_shards(tmp_path: Path) -> None:
    """Each shard counts its tracks by itself."""
    frames = [image(index, CUP, BOX) for index in range(3)]
    review = reviewed(tmp_path, [*frames, *(image(index, thing("red cup", 7), BOX) for index in (3, 4))])
    decide(review, "rename", 4, track=1, name="mug")

    assert [names(review, index) for index in range(5)] == [["mug", "blue box"]] * 5
    assert [fate.object.track for fate in review.shown(4).fates] == [1, 2]


def test_a_later_decision_about_one_object_holds_against_its_track(review: Review) -> None:
    decide(review, "reject", 0, track=1)
    decide(review, "accept", 3)

    assert [states(review, index)[0] for index in range(5)] == ["rejected"] * 3 + ["accepted", "rejected"]


def test_a_threshold_drops_what_nobody_decided_about(review: Review) -> None:
    assert review.would_go("red cup", 0.6) == 1
    decide(review, "accept", 2)
    assert review.would_go("red cup", 0.6) == 0
    decide(review, "threshold", name="blue box", threshold=0.95)

    assert names(review, 2) == ["red cup"]
    assert states(review, 2) == ["accepted", "rejected"]
    assert review.thresholds == {"blue box": 0.95}
    review.undo("anna")
    assert names(review, 2) == ["red cup", "blue box"]


def test_what_a_threshold_dropped_stays_dropped_when_the_picture_is_accepted(review: Review) -> None:
    decide(review, "threshold", name="red cup", threshold=0.6)
    decide(review, "picture", 2, None)
    assert names(review, 2) == ["blue box"]
    assert states(review, 2) == ["rejected", "accepted"]

    decide(review, "threshold", name="red cup", threshold=None)
    assert names(review, 2) == ["red cup", "blue box"]


@pytest.mark.parametrize("more", [{"kind": "accept"}, {"kind": "rename", "name": "mug"}])
def test_what_a_threshold_dropped_stays_dropped_when_its_track_is_decided(review: Review, more) -> None:
    decide(review, "threshold", name="red cup", threshold=0.6)
    decide(review, index=0, track=1, **more)
    assert names(review, 2) == ["blue box"]
    assert review.progress().decided_objects == 5

    decide(review, index=2, track=1, **more)  # somebody chose it
    assert len(names(review, 2)) == 2


def test_what_was_corrected_says_so_after_reject_and_accept(review: Review) -> None:
    for kind, more in (("rename", {"name": "mug"}), ("reject", {}), ("accept", {})):
        decide(review, kind, 0, **more)

    assert (states(review)[0], names(review)[0]) == ("corrected", "mug")


def test_another_mask_is_kept(review: Review) -> None:
    better = region("thing", (10, 3), 8, 0.8)
    decide(review, "mask", 0, mask=mask_of(better))
    changed = next(iter(review.frames())).objects[0]

    assert (changed.prompt, changed.track, changed.score, changed.decided) == ("red cup", 1, 0.9, "corrected")
    assert np.array_equal(changed.mask(SIZE), better.mask)
    assert changed.box_px == (3, 10, 11, 18)


def test_an_object_is_added_renamed_and_rejected(review: Review) -> None:
    number = -decide(review, "add", 1, None, name="bowl", mask=mask_of(region("thing", (10, 3)))).number
    assert names(review, 1) == ["red cup", "blue box", "bowl"]
    decide(review, "rename", 1, number, name="plate")
    assert names(review, 1) == ["red cup", "blue box", "plate"]
    decide(review, "reject", 1, number)
    assert names(review, 1) == ["red cup", "blue box"]


def test_a_whole_picture_is_accepted_but_for_what_was_rejected(review: Review) -> None:
    decide(review, "reject", 0, 1)
    decide(review, "picture", 0)

    assert states(review) == ["accepted", "rejected"]
    assert review.progress().decided_images == 1


def test_a_picture_without_objects_is_decided_when_it_is_accepted(tmp_path: Path) -> None:
    review = reviewed(tmp_path, [image(0), image(1, CUP)])
    assert review.progress().decided_images == 0
    decide(review, "picture", 0)

    assert review.images(Wish(undecided=True), 0, 50) == ([1], 1)


def test_undo_takes_back_ones_own_newest_decision(review: Review) -> None:
    decide(review, "accept", 0, by="anna")
    decide(review, "rename", 0, by="anna", name="mug")
    decide(review, "reject", 1, by="ben")
    assert review.undo("anna").kind == "rename"
    assert (names(review), states(review, 1)[0]) == (["red cup", "blue box"], "rejected")
    review.undo("anna")

    assert states(review) == ["guessed", "guessed"]
    with pytest.raises(ReviewError, match="nothing to take back"):
        review.undo("anna")


def test_a_decision_about_a_track_reads_its_image_alone_and_is_as_if_all_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = thing("red cup", 1, score=0.52)
    review = reviewed(tmp_path, [image(index, low if index % 3 else CUP, BOX) for index in range(9)])
    read: list[int] = []
    original = review.index.read
    monkeypatch.setattr(review.index, "read", lambda number: read.append(number) or original(number))
    steps = [
        lambda: decide(review, "threshold", name="red cup", threshold=0.6),
        lambda: decide(review, "accept", 0, track=1),
        lambda: decide(review, "rename", 3, track=1, name="mug", by="ben"),
        lambda: decide(review, "reject", 4, by="carl"),
        lambda: decide(review, "reject", 6, track=1),
        lambda: decide(review, "accept", 1, track=1, by="carl"),
        lambda: review.undo("carl"),
        lambda: review.undo("ben"),
        lambda: review.undo("anna"),
    ]
    for step in steps:
        read.clear()
        step()
        assert len(read) <= 1 + len(review._decisions.about_image(SOURCE, 4))
        told, columns = review.progress(), (review._states.state.copy(), review._states._corrected.copy())
        review._states.update(range(9))
        review._states.recount()
        assert (review.progress(), review._states.state.tolist(), review._states._corrected.tolist()) == (
            told,
            *(each.tolist() for each in columns),
        )
    review.close()


def test_what_was_decided_outlives_the_review(run: Path, review: Review) -> None:
    decide(review, "rename", 0, track=1, name="mug")
    decide(review, "accept", 1, 1)
    decide(review, "reject", 2, 1)
    review.undo("anna")
    before, version = list(review.frames()), review.progress()
    review.close()
    again = Review(run)

    assert list(again.frames()) == before
    assert again.progress() == version
    again.close()


def test_what_was_found_is_never_changed(run: Path, review: Review) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.jsonl") if path.parent != run}
    decide(review, "reject", 0)
    decide(review, "accept", 1)

    assert {path: path.read_bytes() for path in run.rglob("*.jsonl") if path.parent != run} == before
    lines = (run / "decisions.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert '"was":{"prompt":"red cup","score":0.9,"state":"guessed"}' in lines[0]


def test_a_damaged_last_line_is_left_out_and_stays(run: Path, review: Review) -> None:
    decide(review, "reject", 0)
    review.close()
    file = run / "decisions.jsonl"
    broken = file.read_text() + '{"kind":"reject","by":"an'
    file.write_text(broken)
    again = Review(run)
    assert (again.damaged, states(again)) == (1, ["rejected", "guessed"])
    decide(again, "accept", 1)
    again.close()
    last = Review(run)

    assert file.read_text().startswith(broken)
    assert states(last, 1) == ["accepted", "guessed"]
    last.close()


def test_what_cannot_be_written_whole_is_not_decided_later_either(run: Path, review: Review) -> None:
    decide(review, "reject", 0)
    before = (run / "decisions.jsonl").read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))  # as on a disk that is nearly full
    try:
        with pytest.raises(OSError, match="too large"):
            decide(review, "reject", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (states(review, 1)[0], (run / "decisions.jsonl").read_bytes()) == ("guessed", before)
    decide(review, "accept", 2)
    review.close()

    decisions, damaged = read_decisions(run / "decisions.jsonl")
    assert ([(each.kind, each.index, each.number) for each in decisions], damaged) == (
        [("reject", 0, 1), ("accept", 2, 2)],
        0,
    )


def test_two_reviews_at_once_are_refused(run: Path, review: Review) -> None:
    with pytest.raises(DataError, match="another review of this data set runs"):
        Review(run)


def test_decisions_about_what_is_no_longer_found_are_left_out(run: Path, review: Review) -> None:
    decide(review, "reject", 0)
    decide(review, "reject", 1)
    other = replace(CUP, score=0.8)
    frames = list(with_decisions(run, lambda: iter([image(0, other, BOX), image(1, CUP, BOX)]))())

    assert frames == [image(0, other, BOX), image(1, BOX)]


def test_a_track_is_found_again_when_tracks_are_numbered_anew(tmp_path: Path) -> None:
    """Images that were missing hold another cup, which is now the first one."""
    other = thing("red cup", 1, (16, 2), score=0.8)
    later = [image(index, replace(CUP, track=2)) for index in (2, 3)]
    review = reviewed(tmp_path / "before", [replace_track(each, 1) for each in later])
    decide(review, "rename", 2, track=1, name="mug")
    review.close()
    run = write(tmp_path / "after", [image(0, other), image(1, other), *later])
    (run / "decisions.jsonl").write_bytes((tmp_path / "before" / "decisions.jsonl").read_bytes())
    again = Review(run)

    expected = [["red cup"], ["red cup"], ["mug"], ["mug"]]
    assert [[each.prompt for each in frame.objects] for frame in again.frames()] == expected
    assert [states(again, number)[0] for number in range(4)] == ["guessed"] * 2 + ["corrected"] * 2
    frames = with_decisions(run, again.index.frames)()
    assert [[each.prompt for each in frame.objects] for frame in frames] == expected
    again.close()


def replace_track(frame: AnnotatedFrame, track: int) -> AnnotatedFrame:
    return frame.with_objects([replace(each, track=track) for each in frame.objects])


def test_a_track_whose_object_is_found_no_more_is_left_out(tmp_path: Path) -> None:
    review = reviewed(tmp_path, [image(index, CUP) for index in range(3)])
    decide(review, "reject", 1, track=1)
    review.close()
    frames = [image(0, CUP), image(1), image(2, CUP)]

    assert list(with_decisions(tmp_path, lambda: iter(frames))()) == frames


def test_without_decisions_images_are_as_they_were(tmp_path: Path) -> None:
    frames = [image(0, CUP), image(1)]
    assert list(with_decisions(tmp_path, lambda: iter(frames))()) == frames


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("accept", {"index": 9}, "there is no image 9"),
        ("accept", {"object": 5}, "no such object"),
        ("rename", {"name": "  "}, "a name has"),
        ("reject", {"track": 2}, "this object has no track"),
        ("mask", {}, "a mask is missing"),
        ("threshold", {"name": "teapot", "threshold": 0.5}, "there is no phrase 'teapot'"),
        ("threshold", {"name": "red cup", "threshold": 1.5}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_decided_is_refused_and_not_written(review: Review, run: Path, kind, more, why) -> None:
    with pytest.raises(ReviewError, match=why):
        decide(review, kind, **more)
    assert (run / "decisions.jsonl").read_text() == ""


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no run of clip-seg annotate"):
        Review(tmp_path)


def test_a_damaged_shard_is_named(run: Path) -> None:
    file = run / "shards" / SOURCE / "0001.jsonl"
    file.write_text(file.read_text() + "{")
    with pytest.raises(DataError, match=r"0001.jsonl, line 3"):
        Review(run)
