# SPDX-License-Identifier: Apache-2.0
"""What is doubtful, and in which order images are reviewed."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.annotation.review import Review, Wish
from small_review import BOX, CUP, SOURCE, about, decide, image, reviewed, thing


def test_the_least_sure_image_comes_first_and_says_why(review: Review) -> None:
    order, count = review.images(Wish(), 0, 50)

    assert (order[0], count) == (2, 5)
    assert about(review, 2) == ["its score 0.52 is hardly above the threshold (margin 0.04)"]
    assert about(review, 0) == []


def test_what_comes_and_goes_is_doubtful(tmp_path: Path) -> None:
    frames = [image(index, CUP) for index in range(6)]
    frames[1] = image(1, CUP, BOX)
    frames[3] = image(3)
    review = reviewed(tmp_path, frames)

    assert about(review, 1) == ["it is in this image alone"]
    assert about(review, 2) == about(review, 4) == ["it is missing in a neighbouring image"]
    assert about(review, 3) == ["an object of the images before and after is missing"]
    assert sorted(review.images(Wish(reason="flicker"), 0, 50)[0]) == [1, 2, 3, 4]


def test_what_jumps_is_doubtful_unless_it_enters_the_picture(tmp_path: Path) -> None:
    grown, moved = thing("red cup", 1, side=9), thing("blue box", 2, (2, 24))
    entering = [thing("bowl", 3, (0, 0), side) for side in (3, 6)]
    review = reviewed(tmp_path, [image(0, CUP, BOX, entering[0]), image(1, grown, moved, entering[1])])

    assert about(review, 1) == ["its size jumps to 2.2 times", "it jumps to another place"]


def test_what_leaves_for_long_does_not_flicker(tmp_path: Path) -> None:
    frames = [image(index, *([CUP] if index < 3 or index > 20 else [])) for index in range(24)]
    review = reviewed(tmp_path, frames)

    assert review.images(Wish(reason="flicker"), 0, 50)[1] == 0


def test_images_that_have_nothing_to_do_with_each_other_do_not_flicker(tmp_path: Path) -> None:
    frames = [image(index, *([thing("red cup", 0)] if index % 2 else [])) for index in range(6)]
    review = reviewed(tmp_path, frames)

    assert review.images(Wish(reason="flicker"), 0, 50)[1] == 0


def test_a_second_model_that_disagrees_is_a_reason(tmp_path: Path) -> None:
    review = reviewed(tmp_path, [image(0, CUP, agreement=0.95), image(1, agreement=0.2)])

    assert review.images(Wish(), 0, 50)[0] == [1, 0]
    assert about(review, 1) == ["the second model agrees to 20% only"]
    assert review.images(Wish(reason="second model"), 0, 50) == ([1], 1)


def test_sources_are_apart_and_chosen(tmp_path: Path) -> None:
    frames = [image(0, CUP), image(1), image(0, source="yard"), image(1, BOX, source="yard"), image(2, source="yard")]
    review = reviewed(tmp_path, frames)

    assert review.images(Wish(source="yard"), 0, 50)[1] == 3
    assert review.images(Wish(phrase="blue box"), 0, 50) == ([3], 1)
    assert about(review, 0) == []
    assert [each.source for each in review.frames()] == [SOURCE, SOURCE, "yard", "yard", "yard"]


def test_images_come_in_pages(review: Review) -> None:
    whole = review.images(Wish(), 0, 50)[0]

    assert review.images(Wish(), 2, 2) == (whole[2:4], 5)
    assert review.images(Wish(), 40, 2) == ([], 5)


def test_the_place_of_an_image_among_those_that_are_wished_for(review: Review) -> None:
    order = review.images(Wish(), 0, 50)[0]
    decide(review, "picture", int(review.index.index[order[1]]))

    assert [review.before(Wish(), image) for image in order] == [0, 1, 2, 3, 4]
    assert [review.before(Wish(undecided=True), image) for image in order] == [0, 1, 1, 2, 3]
