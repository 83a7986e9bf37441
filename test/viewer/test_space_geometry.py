# SPDX-License-Identifier: Apache-2.0
"""From where the scene is first looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.viewer.space_geometry import first_look
from table_view import table_view


def test_the_first_look_is_from_behind_and_above(rendered: RenderedView) -> None:
    view = table_view(rendered, in_world=True)
    eye, target = first_look(view)
    camera = view.camera_pose[:3, 3]

    assert eye[2] > camera[2]
    assert np.linalg.norm(eye - target) > np.linalg.norm(camera - target)
    assert target == pytest.approx(np.mean([thing.position_m for thing in view.things], axis=0))


def test_there_is_no_first_look_at_nothing(rendered: RenderedView) -> None:
    assert first_look(replace(table_view(rendered), things=(), cloud=None, surroundings=None)) is None
