# SPDX-License-Identifier: Apache-2.0
"""Images come at their own speed, one by one, or not at all, as whoever looks wishes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.viewer.playback import Playback, Shown
from written_sources import write_video

LONGEST_S = 60.0
GREYS = (10, 60, 110, 160)


class Watched:
    """A playback with what it has shown and told."""

    def __init__(self, spec: Path, loops: bool) -> None:
        self.images: queue.Queue[Shown] = queue.Queue()
        self.ends: queue.Queue[str] = queue.Queue()
        self.playback = Playback(open_frames(str(spec)), self.images.put, self.ends.put, loops)

    def next(self) -> int:
        """Waits for the next image; returns which of ``GREYS`` it is."""
        grey = self.images.get(timeout=LONGEST_S).frame.rgb.mean()
        return int(np.argmin([abs(grey - each) for each in GREYS]))

    def end(self) -> str:
        return self.ends.get(timeout=LONGEST_S)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(spec: Path, loops: bool = False, is_watched: bool = True) -> Watched:
        one = Watched(spec, loops)
        one.playback.watch(is_watched)
        one.playback.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.playback.stop()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [np.full((64, 64, 3), grey, np.uint8) for grey in GREYS]
    return write_video(tmp_path_factory.mktemp("videos") / "greys.avi", pictures, 10.0, "MJPG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for index, grey in enumerate(GREYS):
        cv2.imwrite(str(path / f"{index}.png"), np.full((8, 8), grey, np.uint8))
    return path


def test_a_video_is_no_faster_than_it_was_taken_and_tells_its_end(watch, video):
    begin_s = time.monotonic()
    watched = watch(video)
    assert [watched.next() for _ in GREYS] == [0, 1, 2, 3]
    assert time.monotonic() - begin_s > 0.29
    assert watched.end() == "greys.avi has ended; to go on plays it again"
    assert not watched.playback.is_playing
    watched.playback.play("go")
    assert [watched.next() for _ in GREYS] == [0, 1, 2, 3]


def test_only_the_first_image_comes_while_nobody_looks(watch, video):
    watched = watch(video, is_watched=False)
    assert watched.next() == 0
    with pytest.raises(queue.Empty):
        watched.images.get(timeout=0.5)
    watched.playback.watch(True)
    assert watched.next() == 1


def test_a_paused_video_shows_the_next_image_at_each_step(watch, video):
    watched = watch(video, is_watched=False)
    assert watched.next() == 0
    watched.playback.play("pause")
    watched.playback.watch(True)
    for expected in (1, 2):
        watched.playback.play("step")
        assert watched.next() == expected
    assert watched.images.empty()
    watched.playback.play("go")
    assert watched.next() == 3


def test_a_loop_begins_anew_and_says_which_image_is_the_first(watch, video):
    watched = watch(video, loops=True)
    shown = [watched.images.get(timeout=LONGEST_S) for _ in range(6)]
    assert [each.is_first for each in shown] == [True, False, False, False, True, False]
    assert [each.position for each in shown[:2]] == ["0.0 s, picture 1 of 4", "0.1 s, picture 2 of 4"]
    assert watched.ends.empty()


def test_a_folder_waits_on_each_picture(watch, folder):
    watched = watch(folder)
    assert watched.next() == 0
    for expected in (1, 2, 3):
        assert watched.images.empty()
        watched.playback.play("step")
        assert watched.next() == expected
    assert watched.end() == "this is the last of 4 pictures; the first one comes next"
    watched.playback.play("step")
    assert watched.next() == 0


def test_one_picture_stays_and_is_read_again_at_a_step(watch, folder, tmp_path):
    picture = tmp_path / "one.png"
    picture.write_bytes((folder / "0.png").read_bytes())
    watched = watch(picture)
    assert watched.next() == 0
    picture.write_bytes((folder / "2.png").read_bytes())
    watched.playback.play("step")
    assert watched.next() == 2
    assert watched.ends.empty()


def test_pictures_that_vanish_are_told(watch, folder, tmp_path):
    picture = tmp_path / "one.png"
    picture.write_bytes((folder / "0.png").read_bytes())
    watched = watch(picture)
    assert watched.next() == 0
    picture.unlink()
    watched.playback.play("step")
    assert "one.png is missing" in watched.end()
