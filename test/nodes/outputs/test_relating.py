# SPDX-License-Identifier: Apache-2.0
"""What objects relate to, in messages and markers."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.nodes.outputs.relating import relate, tie_markers
from clip_seg_ros.nodes.outputs.topics import object_message
from clip_seg_ros.pipeline.ties import NO_TIES, Tie, Ties
from clip_seg_ros.types import ObjectRegion, OrientedBox

HEADER = Header(frame_id="camera")
HALF = float(np.sqrt(0.5))


def region(name: str, id: int, position_m=None, box_m=None) -> ObjectRegion:
    return ObjectRegion.of_mask(name, id, 0.5, np.ones((4, 5), np.bool_), position_m, box_m)


CUP = region("cup left of the box", 1, (0.0, 0.0, 1.0))
OTHER = region("bowl", 2, (0.0, 0.2, 1.0))
BOX = region("box", 3, (0.3, 0.0, 1.0), OrientedBox((0.3, 0.0, 1.0), (0.2, 0.1, 0.04), (0.0, 0.0, HALF, HALF)))
TIES = Ties((Tie(CUP, BOX, "left of", 0.2),))


def test_an_object_points_at_its_anchors() -> None:
    regions = [OTHER, CUP]
    messages = [object_message(each) for each in regions]
    anchors = relate(messages, regions, TIES)
    assert [list(message.anchors) for message in messages] == [[], [0]]
    assert [(anchor.prompt, anchor.id, list(anchor.anchors)) for anchor in anchors] == [("box", 0, [])]
    assert relate(messages[:1], [OTHER], NO_TIES) == []


def test_anchors_are_placed_in_the_frame_of_the_positions() -> None:
    (anchor,) = relate([object_message(CUP)], [CUP], TIES, Motion("map", (0.0, 0.0, 0.0, 1.0), (1.0, 2.0, 3.0)))
    assert (anchor.position.x, anchor.position.y, anchor.position.z) == pytest.approx((1.3, 2.0, 4.0))


def test_a_line_leads_to_the_anchor_and_edges_surround_it() -> None:
    line, box, name = tie_markers(HEADER, TIES)
    assert (line.type, box.type, name.type) == (Marker.LINE_LIST, Marker.LINE_LIST, Marker.TEXT_VIEW_FACING)
    assert [(p.x, p.y, p.z) for p in line.points] == [(0.0, 0.0, 1.0), (0.3, 0.0, 1.0)]
    corners = np.array([(p.x, p.y, p.z) for p in box.points])
    assert corners.shape == (24, 3), "twelve edges"
    # Turned by a quarter about z, the longest side lies along y.
    np.testing.assert_allclose(corners.max(axis=0), (0.35, 0.1, 1.02), atol=1e-9)
    np.testing.assert_allclose(corners.min(axis=0), (0.25, -0.1, 0.98), atol=1e-9)
    lengths = np.linalg.norm(corners[::2] - corners[1::2], axis=1)
    np.testing.assert_allclose(sorted(lengths), [0.04] * 4 + [0.1] * 4 + [0.2] * 4, atol=1e-9)
    assert name.text == "box"
    assert name.pose.position.y < -0.1, "above the box in an optical frame"


def test_what_has_no_position_has_no_markers() -> None:
    nowhere = region("box", 3)
    assert tie_markers(HEADER, Ties((Tie(CUP, nowhere, "left of"),))) == []
    assert tie_markers(HEADER, NO_TIES) == []
