# SPDX-License-Identifier: Apache-2.0
"""When there is a memory of objects."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.services.memory_keeper import NO_FRAME, SWITCHED_OFF, MemoryKeeper


def refusal(target_frame: str, remember: str) -> str:
    config = ReferringConfig(target_frame=target_frame, remember=remember)
    return MemoryKeeper(SimpleNamespace(config=config, faults=FaultLog(print)), lambda frame_id: None).refusal


@pytest.mark.parametrize("frame", ["map", "odom", "world", "robot1/map", "table", "baseboard", "link_road"])
def test_what_stands_still_has_a_memory(frame):
    assert refusal(frame, "auto") == ""
    assert refusal(frame, "always") == ""
    assert refusal(frame, "never") == SWITCHED_OFF


@pytest.mark.parametrize(
    "frame", ["base_link", "base_footprint", "base", "robot1/base_link", "camera_link", "left_optical_frame"]
)
def test_a_part_of_a_robot_has_one_only_if_asked_for(frame):
    assert frame in refusal(frame, "auto")
    assert "set target_frame to a frame that does not move, such as map" in refusal(frame, "auto")
    assert refusal(frame, "always") == ""


@pytest.mark.parametrize("remember", ["auto", "always", "never"])
def test_without_a_frame_there_is_none(remember):
    assert refusal("", remember) == NO_FRAME
