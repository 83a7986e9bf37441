# SPDX-License-Identifier: Apache-2.0
"""Makes the configuration of RViz for the cameras, nodes and namespace that a launch starts.

``rviz/seg.rviz`` shows one camera with the default names. Its displays are the patterns from which ``layout`` makes
those of any other set-up. Displays get full topic names, because remapping would have to guess RViz's names of topics.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from clip_seg_ros.config import CameraTopics
from clip_seg_ros.resources import share_dir

# This maps the name of a display to the topic that it shows, relative to the camera's name in the nodes' namespace.
OUTPUTS = {
    "Objects": "markers",
    "Points": "points",
    "Overlay": "overlay",
    "Mask": "mask",
    "Classes": "semantic/overlay",
}
PICTURES = ("Overlay", "Mask", "Classes", "Color image")
"""The displays that have a window of their own."""
WINDOW = (1500, 940)
_LEFT_WIDTH, _RIGHT_WIDTH, _HEIGHT, _CENTER_WIDTH = 646, 342, 849, 500
# This view is from the front and above, for frames with z up such as those of robots' bases and maps.
_ROBOT_VIEW = {"Distance": 2.0, "Focal Point": {"X": 0.0, "Y": 0.0, "Z": 0.0}, "Pitch": 0.8, "Yaw": 3.6}


@dataclass(frozen=True)
class Shown:
    """The parts of a set-up that RViz shows."""

    cameras: Sequence[CameraTopics]
    """The absolute topics of the cameras; a camera without a name is the only one."""
    namespace: str = "/clip_seg"
    """The absolute namespace of the nodes; "/" for none."""
    referring: bool = True
    semantic: bool = False
    compressed: bool = False
    """Whether images arrive on TOPIC/compressed."""
    fixed_frame: str = ""
    """The frame of the 3D view; empty for that in the file, the optical frame of the default camera."""


def template() -> dict[str, Any]:
    """Reads ``rviz/seg.rviz``."""
    return yaml.safe_load((share_dir() / "rviz" / "seg.rviz").read_text(encoding="utf-8"))


def layout(shown: Shown) -> dict[str, Any]:
    """Returns the configuration of RViz as nested mappings, which ``yaml.safe_dump`` writes."""
    config = template()
    manager = config["Visualization Manager"]
    patterns = {display["Name"]: display for display in manager["Displays"]}
    displays = [patterns["Frame"]]
    for camera in shown.cameras:
        displays += _displays(shown, camera, patterns)
    if shown.referring:
        displays.append(_remembered(shown, patterns["Remembered"]))
    manager["Displays"] = displays
    if shown.fixed_frame:
        manager["Global Options"]["Fixed Frame"] = shown.fixed_frame
        if "optical" not in shown.fixed_frame:
            manager["Views"]["Current"].update(copy.deepcopy(_ROBOT_VIEW))
    config["Window Geometry"] = _window(_rows(shown))
    return config


def _displays(shown: Shown, camera: CameraTopics, patterns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the displays of one camera: its images, and the outputs of the nodes."""
    displays = []

    def add(name: str, **changes: Any) -> None:
        displays.append({**copy.deepcopy(patterns[name]), "Name": _called(name, camera), **changes})

    def add_topic(name: str, topic: str, **changes: Any) -> None:
        add(name, Topic={**patterns[name]["Topic"], "Value": topic}, **changes)

    if camera.depth:
        depth, hint = camera.depth.removesuffix("/compressedDepth"), "raw"
        if depth != camera.depth:
            hint = "compressedDepth"
        color_hint = "compressed" if shown.compressed else "raw"
        hints = {"Color Transport Hint": color_hint, "Depth Map Transport Hint": hint}
        add("Scene", **{"Color Image Topic": camera.image, "Depth Map Topic": depth, **hints})
    names = ["Objects", "Points", "Overlay", "Mask"] if shown.referring else []
    windows = {name for row in _rows(shown) for name in row}
    for name in [*names, *(["Classes"] if shown.semantic else [])]:
        path = [shown.namespace.strip("/"), camera.name, OUTPUTS[name]]
        ticked = name not in PICTURES or _called(name, camera) in windows
        add_topic(name, "/" + "/".join(part for part in path if part), Enabled=ticked, Value=ticked)
    ticked = _called("Color image", camera) in windows
    add_topic("Color image", camera.image + "/compressed" * shown.compressed, Enabled=ticked, Value=ticked)
    return displays


def _remembered(shown: Shown, pattern: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the display of what is remembered and out of view, of all cameras."""
    topic = "/" + "/".join(filter(None, (shown.namespace.strip("/"), "memory_markers")))
    return {**copy.deepcopy(pattern), "Topic": {**pattern["Topic"], "Value": topic}}


def _called(name: str, camera: CameraTopics) -> str:
    return f"{name} {camera.name}" if camera.name else name


def _rows(shown: Shown) -> list[list[str]]:
    """Returns the names of the image windows beside the 3D view, row by row.

    Several cameras only have windows of their overlays, because more windows would make all of them smaller.
    """
    large = [name for name, runs in (("Overlay", shown.referring), ("Classes", shown.semantic)) if runs]
    if len(shown.cameras) == 1:
        small = ["Mask"] if shown.referring else []
        names = [_called(name, shown.cameras[0]) for name in (large[0], *small, *large[1:], "Color image")]
        return [names[:1], names[1:]]
    names = [_called(name, camera) for camera in shown.cameras for name in large]
    across = 1 if len(names) <= _MOST_BELOW_ONE_ANOTHER else 2
    return [names[index : index + across] for index in range(0, len(names), across)]


def _window(rows: list[list[str]]) -> dict[str, Any]:
    panels = ["Displays", "Views", *(name for row in rows for name in row)]
    return {
        **{name: {"collapsed": False} for name in panels},
        "Width": WINDOW[0],
        "Height": WINDOW[1],
        "X": 40,
        "Y": 20,
        "Hide Left Dock": False,
        "Hide Right Dock": False,
        "QMainWindow State": window_state(rows).hex(),
    }


def window_state(rows: list[list[str]]) -> bytes:
    """Returns the places of the windows as Qt's ``QMainWindow.saveState`` does (format 0xff of Qt 5, big-endian).

    The images are on the left in rows, the 3D view is in the middle, and the panels are on the right as tabs. Images
    are not in tabs, because RViz takes an image in a hidden tab for one that is switched off.
    """
    heights = _heights(rows)
    tops = [sum(heights[:index]) for index in range(len(heights))]
    left = b"".join(
        _sequence_item(top, height, _sequence(_HORIZONTAL, [_dock(name, *place) for name, place in _across(row)]))
        for row, top, height in zip(rows, tops, heights)
    )
    tabs = struct.pack(">BIBI", 0xFA, 0, _VERTICAL, 2) + _dock("Displays", 0, -1) + _dock("Views", 0, -1)
    areas = [
        (0, _LEFT_WIDTH, struct.pack(">BBI", 0xFC, _VERTICAL, len(rows)) + left),
        (1, _RIGHT_WIDTH, _sequence(_VERTICAL, [_sequence_item(0, _HEIGHT, tabs)])),
    ]
    state = struct.pack(">II", 0xFF, 0) + struct.pack(">BI", 0xFD, len(areas))
    for place, width, content in areas:
        state += struct.pack(">Iii", place, width, _HEIGHT) + content
    corners = (4, 4, 8, 8)
    toolbar = struct.pack(">BIII", 0xFC, 1, 2, 1) + _text("Tools") + struct.pack(">Biiii", 1, 0, -1, 0, 0)
    return state + struct.pack(">ii4I", _CENTER_WIDTH, _HEIGHT, *corners) + toolbar


_HORIZONTAL, _VERTICAL = 1, 2
_MOST_BELOW_ONE_ANOTHER = 3
_LARGEST = 0xFFFFFF


def _heights(rows: list[list[str]]) -> list[int]:
    """Returns the heights of the rows: two thirds for one overlay above smaller images, otherwise equal heights."""
    if len(rows) == 2 and rows[1][-1].startswith("Color image"):
        return [_HEIGHT * 2 // 3, _HEIGHT - _HEIGHT * 2 // 3]
    return [_HEIGHT // len(rows)] * len(rows)


def _across(row: list[str]) -> list[tuple[str, tuple[int, int]]]:
    width = _LEFT_WIDTH // len(row)
    return [(name, (index * width, width)) for index, name in enumerate(row)]


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return struct.pack(">I", len(encoded)) + encoded


def _dock(name: str, start: int, size: int) -> bytes:
    return b"\xfb" + _text(name) + struct.pack(">Biiii", 1, start, size, 22, _LARGEST)


def _sequence(orientation: int, items: list[bytes]) -> bytes:
    return struct.pack(">BBI", 0xFC, orientation, len(items)) + b"".join(items)


def _sequence_item(start: int, size: int, content: bytes) -> bytes:
    return struct.pack(">Biiii", 0xFC, start, size, 22, _LARGEST) + content
