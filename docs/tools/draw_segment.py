# SPDX-License-Identifier: Apache-2.0
"""Draws the picture of ``docs/segment.md``: python docs/tools/draw_segment.py

It is what ``clip-seg segment`` writes for the table of the examples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2

from clip_seg_ros.tools.cli import main as clip_seg

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "segment.jpg"
ASKED = ("--prompts", "bowl", "--command", "find the cups right of the blue box")
QUALITY = 82


def main() -> None:
    """Draws it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "segmented"
        table = ROOT / "examples" / "table" / "color.jpg"
        if clip_seg(
            ["segment", str(table), *ASKED, "--out", str(out), "--model", "clipseg-pocket", "--engine", "eager"]
        ):
            raise SystemExit(1)
        drawn = cv2.imread(str(out / "overlays" / "color.jpg"))
        cv2.imwrite(str(PICTURE), drawn, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    print(PICTURE)


if __name__ == "__main__":
    main()
