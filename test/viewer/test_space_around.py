# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.viewer.space_around import closest
from clip_seg_ros.viewer.views import Thing
from table_view import table_view


@pytest.fixture(scope="module")
def thing(rendered: RenderedView) -> Thing:
    return table_view(rendered).things[0]


def test_the_closest_of_several_things_is_told_with_its_distance(thing: Thing) -> None:
    cup = replace(thing, prompt="red cup", position_m=(0.0, 0.0, 1.0))
    bowl = replace(thing, prompt="bowl", position_m=(0.3, 0.4, 1.0))
    far = replace(thing, prompt="door", position_m=(0.0, 3.0, 1.0))
    nowhere = replace(thing, prompt="ghost", position_m=None)

    assert closest((0.0, 0.0, 0.88), [nowhere, far, bowl, cup]) == "closest to the red cup, 12 cm"
    assert closest((0.0, 0.0, 1.0), [far, bowl]) == "closest to the bowl, 50 cm"
    assert closest((0.0, 0.0, 1.0), [far]) == "closest to the door, 3.0 m"


def test_without_positions_nothing_is_closest(thing: Thing) -> None:
    assert closest(None, [thing]) == ""
    assert closest((0.0, 0.0, 1.0), [replace(thing, position_m=None)]) == ""
    assert closest((0.0, 0.0, 1.0), []) == ""
