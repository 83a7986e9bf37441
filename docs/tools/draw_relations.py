# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of ``docs/relations.md``: python docs/tools/draw_relations.py [NAME ...]

Each is what the node answers to a command in a scene of the simulated table: with the embedded CLIPSeg, with depth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.api import (
    CameraFrame,
    Predictor,
    Question,
    Refinement,
    Separator,
    answer,
    draw,
    measure,
    parse_command,
)
from clip_seg_ros.pipeline.space.understanding import Asking, understand
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import Scene, sample_scene
from clip_seg_ros.sim.stacking import stacked_scene

FOLDER = Path(__file__).parents[1] / "images" / "relations"
LEAST_SHARE = 0.002
"""The least share of an image that an object covers, as the parameter ``min_area_fraction`` has it."""
QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A command and the scene that it is given in."""

    command: str
    seed: int
    required: tuple[tuple[str | None, str], ...] = ()
    """What the scene must hold, as (colour, kind)."""
    is_stacked: bool = False
    """Whether some things stand on others."""

    def scene(self) -> Scene:
        scene = sample_scene(self.seed, required=self.required)
        return stacked_scene(scene)[0] if self.is_stacked else scene


CUP, CUPS = (None, "cup"), ((None, "cup"), (None, "cup"))
PICTURES = {
    "left_of": Picture("find the cup left of the blue box", 6, (*CUPS, ("blue", "box"))),
    "between": Picture("find the cup between the box and the bottle", 10, (*CUPS, (None, "box"), (None, "bottle"))),
    "on": Picture("find the ball on the box", 23, ((None, "ball"), (None, "ball"), (None, "box")), is_stacked=True),
    "order": Picture("find the second cup from the left", 3, (CUP, *CUPS)),
    "ambiguous": Picture("find the cup right of the bowl", 3, (*CUPS, (None, "bowl"))),
    "missed": Picture("find the cup left of the blue box", 10, (*CUPS, ("blue", "box"))),
}


class Painter:
    """Answers commands as the node does."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        self._predictor = Predictor.from_name("clipseg-pocket", engine="eager")
        self._refinement = Refinement(separator=Separator.load())
        self._renderer = SceneRenderer(width, height)

    def paint(self, picture: Picture) -> np.ndarray:
        """Returns the picture, (H, W, 3) uint8 RGB, with what came of the command below."""
        predictor, scene = self._predictor, picture.scene()
        view = self._renderer.render(scene)
        frame = CameraFrame(view.rgb, 0, "", view.depth_m, view.intrinsics)
        command = parse_command(picture.command)
        asking = Asking.of(command.prompts, command.references, command.negatives)
        question = Question(
            asking.names, asking.negatives, asking.threshold(None, predictor.spec.threshold), LEAST_SHARE
        )
        found = answer(predictor, predictor.encode(view.rgb), question, frame, self._refinement)
        meant = understand(asking, [measure(region, frame) for region in found.regions], found.maps, frame)
        regions = [each.region for each in meant.measured]
        caption = "; ".join(meant.sentences.values())
        return draw(view.rgb, regions, command.prompts, caption=caption, ties=meant.ties)


def main() -> None:
    """Draws the pictures that are named, or all."""
    painter = Painter()
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        picture = painter.paint(PICTURES[name])
        if not cv2.imwrite(str(FOLDER / f"{name}.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
            raise OSError(f"cannot write {FOLDER / name}.jpg")


if __name__ == "__main__":
    main()
