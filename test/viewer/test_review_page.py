# SPDX-License-Identifier: Apache-2.0
"""The page of a review in a real browser, over pictures of rendered tables in which the embedded model found things."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsers import opened, spot, wait
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.review import Review, Wish
from clip_seg_ros.viewer import review_session
from clip_seg_ros.viewer.review_pointing import MaskMaker
from clip_seg_ros.viewer.review_serving import ReviewServer
from reviewed_run import write_run


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("annotated")
    write_run(out)
    return out


@pytest.fixture(scope="module")
def masks() -> MaskMaker:
    return MaskMaker("clipseg-pocket")


@pytest.fixture
def review(annotated: Path, tmp_path: Path) -> Iterator[Review]:
    shutil.copytree(annotated, tmp_path / "run")
    review = Review(tmp_path / "run")
    yield review
    review.close()


@pytest.fixture
def address(review: Review, masks: MaskMaker) -> Iterator[str]:
    server = ReviewServer(review, masks)
    yield server.start()
    server.stop()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


def said(page: Any, text: str) -> None:
    wait(page, lambda: text in page.text_content("#status"))


def chosen(page: Any) -> str:
    return page.text_content("#chosen")


def found(review: Review) -> list[AnnotatedFrame]:
    return list(review.index.frames())


def states(review: Review) -> list[str]:
    return [fate.state for image in range(len(review.index)) for fate in review.shown(image).fates]


def test_the_most_doubtful_image_is_shown_first_with_all_its_objects(page: Any, review: Review) -> None:
    first = review.images(Wish(), 0, 50)[0][0]
    frame = review.index.read(first)

    assert f"tables {frame.index}" in chosen(page)
    assert page.locator("#objects button").count() == len(frame.objects) > 0
    assert page.locator("#images button").count() == len(review.index)
    assert page.locator("#marks polygon").count() > 0
    assert "0 of" in page.text_content("#far-text")


def test_objects_are_decided_with_the_keyboard_and_a_reload_keeps_it(page: Any, review: Review) -> None:
    before = chosen(page)
    page.keyboard.press("a")
    wait(page, lambda: chosen(page) != before)
    page.keyboard.press("r")
    wait(page, lambda: states(review).count("rejected") == 1)
    page.keyboard.press("u")
    said(page, "took back")
    wait(page, lambda: states(review).count("rejected") == 0)
    page.reload()
    wait(page, lambda: page.text_content("#far-text").startswith("1 of"))

    assert states(review).count("accepted") == 1


def test_an_object_is_renamed_and_a_picture_accepted(page: Any, review: Review) -> None:
    page.keyboard.press("n")
    page.keyboard.type("mug")
    page.keyboard.press("Enter")
    wait(page, lambda: any(each.prompt == "mug" for frame in review.frames() for each in frame.objects))
    images = review.progress().decided_images
    page.keyboard.press("x")
    wait(page, lambda: review.progress().decided_images > images)

    decided = [json.loads(line) for line in (review.out / "decisions.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in decided] == ["rename", "picture"]


def test_the_slider_says_how_many_would_go_and_they_go(page: Any, review: Review) -> None:
    phrase = page.input_value("#threshold-phrase")
    page.locator("#least").fill("1")
    count = review.would_go(phrase, 1.0)
    wait(page, lambda: page.text_content("#would-go").startswith(f"{count} object"))
    page.click("#threshold button")
    wait(page, lambda: review.thresholds == {phrase: 1.0})

    assert count > 0
    assert all(each.prompt != phrase for frame in review.frames() for each in frame.objects)
    wait(page, lambda: page.locator("#objects [data-state=rejected]").count() > 0)


def test_a_click_gives_an_object_another_mask(page: Any, review: Review) -> None:
    image = review.images(Wish(), 0, 1)[0][0]
    frame = review.index.read(image)
    target = frame.objects[0]
    page.locator("#objects button", has_text=target.prompt).first.click()
    page.click("#canvas", position=spot(page, target.mask(frame.size)))
    said(page, "another mask")
    new = next(fate for fate in review.shown(image).fates if fate.state == "corrected").object
    old, mask = frame.objects[frame.objects.index(target)].mask(frame.size), new.mask(frame.size)

    assert new.prompt == target.prompt
    assert np.count_nonzero(mask & old) / np.count_nonzero(mask | old) > 0.5
    page.click("#undo")
    wait(page, lambda: "corrected" not in states(review))


def test_the_picture_is_pointed_at_with_the_keyboard_alone(page: Any, review: Review) -> None:
    page.focus("#canvas")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert page.locator("#cross path").count() == 2
    page.keyboard.press("ArrowUp")  # without Shift, a point again
    page.keyboard.press("ArrowLeft")  # in the middle again
    frame = review.index.read(review.images(Wish(), 0, 1)[0][0])
    height, width = frame.size
    x, y = frame.objects[0].centroid_px
    for ahead, back, way in (("Right", "Left", x - width / 2), ("Down", "Up", y - height / 2)):
        for _ in range(round(abs(way) / (width / 50))):
            page.keyboard.press(f"Arrow{ahead if way > 0 else back}")
    page.keyboard.press("Enter")
    wait(page, lambda: '"kind":"mask"' in (review.out / "decisions.jsonl").read_text())

    # Keys that move the cross choose no other object.
    assert page.locator("#objects button").first.get_attribute("aria-pressed") == "true"


def test_another_reviewer_hears_of_it_and_is_not_disturbed(
    browser: Any, page: Any, address: str, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = review.images(Wish(), 0, 2)[0][1]
    with opened(browser, address) as other:
        page.fill("#name", "mug")
        other.fill("#by", "ben")
        other.locator("#by").blur()
        other.keyboard.press("r")
        wait(page, lambda: "ben rejected the" in page.text_content("#status"))
        wait(page, lambda: page.locator("#objects [data-state=rejected]").count() == 1)
        wait(page, lambda: "ben" in page.text_content("#answers"))
        assert page.input_value("#name") == "mug"
        page.locator("#name").blur()

        # The next image is on its way when something is decided about this one.
        is_free, shown = threading.Event(), review.shown
        monkeypatch.setattr(review, "shown", lambda image: (image != second or is_free.wait(60)) and shown(image))
        page.keyboard.press("x")
        wait(page, lambda: "You accepted image" in page.text_content("#answers"))
        other.keyboard.press("u")
        wait(page, lambda: "ben took back" in page.text_content("#answers"))
        is_free.set()
        wait(page, lambda: f"tables {review.index.index[second]}" in chosen(page))


def test_what_is_wished_for_is_shown(page: Any, review: Review) -> None:
    page.keyboard.press("x")
    wait(page, lambda: review.progress().decided_images == 1)
    page.check("#wish-undecided")
    wait(page, lambda: page.locator("#images button").count() == len(review.index) - 1)
    page.select_option("#wish-phrase", "blue box")
    count = review.images(Wish("blue box", undecided=True), 0, 50)[1]
    wait(page, lambda: page.locator("#images button").count() == count)
    assert page.text_content("#place") == (f"Images 1 to {count} of {count}" if count else "No images")


def test_pages_of_undecided_images_leave_none_out(page: Any, review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_session, "IMAGES_AT_ONCE", 2)
    places = [f"tables {review.index.index[image]}" for image in review.images(Wish(), 0, 3)[0]]
    page.check("#wish-undecided")
    wait(page, lambda: page.locator("#images button").count() == 2)
    page.keyboard.press("x")
    wait(page, lambda: places[1] in chosen(page))
    page.keyboard.press("]")
    wait(page, lambda: places[2] in chosen(page))
    page.keyboard.press("[")
    wait(page, lambda: places[1] in chosen(page))


def test_the_page_fits_a_phone_and_every_control_has_a_name(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, canvas')]
        .filter(each => !(each.textContent || each.ariaLabel || each.labels?.[0]?.textContent || '').trim())
        .map(each => each.outerHTML)""")

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert nameless == []


def test_a_wrong_token_is_refused(review: Review, masks: MaskMaker) -> None:
    server = ReviewServer(review, masks, token="a token of the test")
    try:
        address = server.start()
        for path in ("", "picture?image=0&width=320", "?token=wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address.split("?")[0] + path)
        assert urllib.request.urlopen(address).status == 200
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("query", "code"), [("image=99&width=320", 404), ("image=-1&width=320", 404), ("image=x", 400)]
)
def test_a_picture_that_is_not_there(address: str, query: str, code: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match=str(code)):
        urllib.request.urlopen(f"{address}picture?{query}")


def test_a_picture_outside_of_the_run_is_not_given(annotated: Path, tmp_path: Path, masks: MaskMaker) -> None:
    shutil.copytree(annotated, tmp_path / "run")
    shutil.copy(annotated / "images" / "tables" / "000000.png", tmp_path / "secret.png")
    shard = tmp_path / "run" / "shards" / "tables" / "0000.jsonl"
    shard.write_text(shard.read_text().replace("images/tables/000000.png", "../secret.png"))
    review = Review(tmp_path / "run")
    server = ReviewServer(review, masks)
    try:
        address = server.start()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}picture?image=0&width=320")
    finally:
        server.stop()
        review.close()
