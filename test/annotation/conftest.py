# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_seg_ros.annotation.review import Review
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.sequences import sequence
from small_review import BOX, CUP, image, thing, write


@pytest.fixture(scope="session")
def moving() -> list[RenderedView]:
    """Twenty small images of a table on which things move, a tenth of a second apart."""
    return [each.view for each in sequence(3, 20, (160, 120))]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Five images with a cup and a box; of the third, the cup is hardly above the threshold."""
    frames = [image(index, CUP, BOX) for index in range(5)]
    frames[2] = image(2, thing("red cup", 1, score=0.52), BOX)
    return write(tmp_path, frames)


@pytest.fixture
def review(run: Path) -> Iterator[Review]:
    review = Review(run)
    yield review
    review.close()
