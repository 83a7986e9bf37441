# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.sequences import sequence


@pytest.fixture(scope="session")
def moving() -> list[RenderedView]:
    """Twenty small images of a table on which things move, a tenth of a second apart."""
    return [each.view for each in sequence(3, 20, (160, 120))]
