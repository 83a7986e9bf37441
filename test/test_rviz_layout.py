# SPDX-License-Identifier: Apache-2.0
"""What RViz shows: the right topics for any cameras and namespace, in windows that Qt can place."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import yaml

from clip_seg_ros.config import CameraTopics, ReferringConfig
from clip_seg_ros.rviz_layout import Shown, layout, template, window_state

ONE = ReferringConfig().cameras()
TWO = (CameraTopics("left", "/l/image", "/l/depth/compressedDepth", "/l/info"), CameraTopics("right", "/r/image"))


def displays_of(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {display["Name"]: display for display in config["Visualization Manager"]["Displays"]}


def topics_of(config: dict[str, Any]) -> dict[str, str]:
    return {name: shown["Topic"]["Value"] for name, shown in displays_of(config).items() if "Topic" in shown}


class StateReader:
    """Reads what ``QMainWindow.saveState`` writes, as far as names of windows go; fails where bytes are left over."""

    def __init__(self, state: bytes) -> None:
        self._state, self._at = state, 0
        assert self._take(">II") == (0xFF, 0)
        marker, count = self._take(">BI")
        assert marker == 0xFD
        self.areas = {}
        for _ in range(count):
            place, *_ = self._take(">Iii")
            self.areas[place] = self._layout(self._take(">B")[0])
        self._take(">ii4I")
        assert self._take(">B") == (0xFC,)
        _, _, bars = self._take(">III")
        self.bars = [(self._text(), self._take(">Biiii"))[0] for _ in range(bars)]
        assert self._at == len(state)

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._state, self._at)
        self._at += struct.calcsize(form)
        return values

    def _text(self) -> str:
        (size,) = self._take(">I")
        self._at += size
        return self._state[self._at - size : self._at].decode("utf-16-be")

    def _layout(self, marker: int) -> Any:
        if marker == 0xFA:
            self._take(">I")
        else:
            assert marker == 0xFC
        (orientation, count) = self._take(">BI")
        items = []
        for _ in range(count):
            (kind,) = self._take(">B")
            if kind == 0xFB:
                items.append(self._text())
                assert self._take(">Biiii")[0] == 1
            else:
                self._take(">iiii")
                items.append(self._layout(self._take(">B")[0]))
        return {1: "row", 2: "column"}[orientation], items


def test_the_file_shows_the_default_camera():
    """Whoever opens rviz/seg.rviz without the launch file sees the same as with it."""
    config, made = template(), layout(Shown(ONE))
    classes = displays_of(config).pop("Classes")
    assert not classes["Enabled"]
    config["Visualization Manager"]["Displays"].remove(classes)
    assert made == config
    assert topics_of(made) == {
        "Objects": "/clip_seg/markers",
        "Points": "/clip_seg/points",
        "Overlay": "/clip_seg/overlay",
        "Mask": "/clip_seg/mask",
        "Color image": "/camera/color/image_raw",
        "Remembered": "/clip_seg/memory_markers",
    }
    # Cameras publish best effort, which a reliable subscription never hears.
    assert displays_of(made)["Color image"]["Topic"]["Reliability Policy"] == "Best Effort"


@pytest.mark.parametrize(
    ("namespace", "prefix"), [("/", ""), ("/clip_seg", "/clip_seg"), ("/robot1/eyes", "/robot1/eyes")]
)
def test_topics_stand_under_the_namespace(namespace, prefix):
    topics = topics_of(layout(Shown(ONE, namespace, semantic=True)))
    assert topics["Overlay"] == f"{prefix}/overlay"
    assert topics["Remembered"] == f"{prefix}/memory_markers"
    assert topics["Classes"] == f"{prefix}/semantic/overlay"


def test_every_camera_has_displays_of_its_own():
    config = layout(Shown(TWO, semantic=True, compressed=True))
    topics, displays = topics_of(config), displays_of(config)
    assert topics["Overlay left"] == "/clip_seg/left/overlay"
    assert topics["Points right"] == "/clip_seg/right/points"
    assert [name for name in topics if name.startswith("Remembered")] == ["Remembered"], "all cameras share one memory"
    assert topics["Classes right"] == "/clip_seg/right/semantic/overlay"
    assert topics["Color image left"] == "/l/image/compressed"
    # The scene around the objects, of the cameras that have depth.
    scene = displays["Scene left"]
    assert (scene["Color Image Topic"], scene["Color Transport Hint"]) == ("/l/image", "compressed")
    assert (scene["Depth Map Topic"], scene["Depth Map Transport Hint"]) == ("/l/depth", "compressedDepth")
    assert "Scene right" not in displays
    assert displays["Overlay right"]["Enabled"]
    assert not displays["Mask right"]["Enabled"]


def test_only_what_runs_is_shown():
    assert "Classes" not in displays_of(layout(Shown(ONE)))
    semantic = displays_of(layout(Shown(ONE, referring=False, semantic=True)))
    assert set(semantic) == {"Frame", "Scene", "Classes", "Color image"}
    assert semantic["Classes"]["Enabled"]


@pytest.mark.parametrize(
    ("frame", "expected", "turned"),
    [
        ("", "camera_color_optical_frame", False),
        ("base_link", "base_link", True),
        ("left_optical_frame", "left_optical_frame", False),
    ],
)
def test_the_view_fits_the_fixed_frame(frame, expected, turned):
    manager = layout(Shown(ONE, fixed_frame=frame))["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == expected
    # In an optical frame z points away from the camera: one looks from above where the pitch is negative.
    assert (manager["Views"]["Current"]["Pitch"] > 0) == turned


@pytest.mark.parametrize(
    ("shown", "rows"),
    [
        (Shown(ONE), [["Overlay"], ["Mask", "Color image"]]),
        (Shown(ONE, semantic=True), [["Overlay"], ["Mask", "Classes", "Color image"]]),
        (Shown(ONE, referring=False, semantic=True), [["Classes"], ["Color image"]]),
        (Shown(TWO), [["Overlay left"], ["Overlay right"]]),
        (Shown(TWO, semantic=True), [["Overlay left", "Classes left"], ["Overlay right", "Classes right"]]),
    ],
)
def test_every_picture_has_a_window_and_none_is_a_tab(shown, rows):
    config = layout(shown)
    reader = StateReader(bytes.fromhex(config["Window Geometry"]["QMainWindow State"]))
    assert reader.areas == {
        0: ("column", [("row", row) for row in rows]),
        1: ("column", [("column", ["Displays", "Views"])]),
    }
    pictures = {name for name, display in displays_of(config).items() if display["Class"].endswith("/Image")}
    ticked = {name for name in pictures if displays_of(config)[name]["Enabled"]}
    assert ticked == {name for row in rows for name in row}
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_the_state_begins_as_one_that_rviz_saved():
    saved = "000000ff00000000fd00000002000000000000028600000351fc0200000002fc"  # and from here on what sizes decide
    assert window_state([["Overlay"], ["Mask"]]).hex().startswith(saved)
