# SPDX-License-Identifier: Apache-2.0
"""Draws ``docs/images/way_of_an_image.svg``: python docs/tools/draw_way_of_an_image.py"""

from __future__ import annotations

from html import escape
from pathlib import Path

DRAWING = Path(__file__).parents[1] / "images" / "way_of_an_image.svg"

WIDTH, STEP, MARGIN = 620, 100, 16
BOX_WIDTH, BOX_HEIGHT = 276, 72
LEFT, MIDDLE, RIGHT = 154, 310, 466
"""Centres of the columns, pixels."""
COLORS = {"given": "#d6ecf8", "step": "#ffffff", "result": "#fbe7c2"}
EDGE = 'rx="8" stroke="#888" stroke-width="1"'

# name: (column, row, kind, title, what it is, its name in the library)
BOXES = {
    "image": (LEFT, 0, "given", "camera image", "(H, W, 3) uint8, RGB", ""),
    "command": (RIGHT, 0, "given", "text command", "“find the red cup, not the blue one”", ""),
    "prepare": (LEFT, 1, "step", "prepare", "resize and normalise", ""),
    "parse": (RIGHT, 1, "step", "parse", "phrases, negatives, threshold", "parse_command"),
    "encode": (LEFT, 2, "step", "encode the image", "once, whatever is asked", "Predictor.encode"),
    "phrases": (RIGHT, 2, "step", "encode the phrases", "once for each phrase, then cached", ""),
    "decode": (MIDDLE, 3, "step", "decode", "all phrases in one pass", "Predictor.ask"),
    "maps": (MIDDLE, 4, "result", "probability maps", "(P, H, W) in 0..1, at the image's size", "ProbabilityMaps"),
    "steady": (MIDDLE, 5, "step", "smooth over time", "averaged where nothing moves", "Stream"),
    "depth": (LEFT, 6, "given", "depth and camera_info", "metres, aligned with the colour", "CameraFrame"),
    "masks": (RIGHT, 6, "result", "masks", "probability above the threshold", "MaskSet"),
    "apart": (MIDDLE, 7, "step", "take apart", "things of one name that touch", "Separator"),
    "objects": (RIGHT, 8, "result", "objects", "each by itself, ids that stay", "ObjectRegion"),
    "measure": (LEFT, 9, "step", "measure", "visible surface of each object", "measure"),
    "positions": (MIDDLE, 10, "result", "positions and boxes", "metres, in the camera's optical frame", "OrientedBox"),
}
ARROWS = (
    ("image", "prepare"), ("prepare", "encode"), ("command", "parse"), ("parse", "phrases"), ("encode", "decode"),
    ("phrases", "decode"), ("decode", "maps"), ("maps", "steady"), ("steady", "masks"), ("masks", "apart"),
    ("depth", "apart"), ("apart", "objects"), ("objects", "measure"), ("depth", "measure"), ("measure", "positions"),
)  # fmt: skip


def box(column: int, row: int, kind: str, title: str, what: str, name: str) -> str:
    """Returns the SVG of one box."""
    top = MARGIN + row * STEP
    lines = [(title, 'font-weight="600" font-size="17"'), (what, 'font-size="14"')]
    if name:
        lines.append((name, 'font-size="13" font-family="monospace" fill="#00607f"'))
    first = top + (BOX_HEIGHT - 20 * len(lines)) / 2 + 15
    texts = [
        f'<text x="{column}" y="{first + 20 * i:g}" {style}>{escape(text)}</text>'
        for i, (text, style) in enumerate(lines)
    ]
    left = column - BOX_WIDTH // 2
    frame = f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" {EDGE} fill="{COLORS[kind]}"/>'
    return "\n".join([frame, *texts])


def arrow(start: str, end: str) -> str:
    """Returns the SVG of an arrow from the lower edge of one box to the upper edge of another."""
    (from_x, from_row, *_), (to_x, to_row, *_) = BOXES[start], BOXES[end]
    from_y, to_y = MARGIN + from_row * STEP + BOX_HEIGHT, MARGIN + to_row * STEP
    # An arrow from another column meets a box off its middle, so that two arrows do not meet in a point.
    to_x += (from_x - to_x) // 3
    return f'<path d="M{from_x} {from_y} L{to_x} {to_y - 3}"/>'


def drawing() -> str:
    """Returns the whole SVG."""
    height = 2 * MARGIN + max(row for _, row, *_ in BOXES.values()) * STEP + BOX_HEIGHT
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>The way of one image: from the camera and a command to masks, objects and positions</title>",
        f'<defs>{head}<path d="M0 0 L8 4 L0 8 z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#f7f7f7"/>',
        '<g stroke="#444" stroke-width="1.5" fill="none" marker-end="url(#head)">',
        *(arrow(start, end) for start, end in ARROWS),
        "</g>",
        '<g stroke-width="0" text-anchor="middle" font-family="sans-serif" fill="#1a1a1a">',
        *(box(*values) for values in BOXES.values()),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
