# SPDX-License-Identifier: Apache-2.0
"""Draws ``docs/images/demo.gif``, what a node answers to three commands: python docs/tools/draw_demo.py"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from clip_seg_ros.api import Predictor, Question, Stream, draw, parse_command
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, sample_scene

DRAWING = Path(__file__).parents[1] / "images" / "demo.gif"
COMMANDS = ("segment the red cup", "find the cups, not the blue one", "where are the bottle and the green box?")
FRAMES = 12
"""Images that each command is asked of."""
PERIOD_MS = 150
STEP_DEG = 2.5
"""How far the camera goes around the table from one image to the next."""
SIZE = (480, 360)
COLORS = 128


def poses(camera: CameraPose) -> Iterator[CameraPose]:
    """Yields the way of a camera that swings around the table and comes back."""
    count = FRAMES * len(COMMANDS)
    eye, target = np.array(camera.eye), np.array(camera.target)
    for index in range(count):
        angle = np.radians(STEP_DEG) * count / 2 / np.pi * np.sin(2 * np.pi * index / count)
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ (eye - target)
        yield replace(camera, eye=tuple(target + turned))


def frames() -> Iterator[np.ndarray]:
    """Yields the pictures, (H, W, 3) uint8 RGB, answered as a node answers them."""
    scene = sample_scene(200, required=[("red", "cup"), ("blue", "cup"), ("yellow", "bottle")], objects=(6, 8))
    predictor = Predictor.from_name("clipseg-pocket", engine="eager")
    stream = Stream(smoothing=0.9, margin=0.05, track_age_s=2.0)
    with SceneRenderer() as renderer:
        for index, pose in enumerate(poses(scene.camera)):
            command = parse_command(said := COMMANDS[index // FRAMES])
            rgb = renderer.render(scene, pose, depth=False).rgb
            question = Question(command.prompts, command.negatives, min_area_fraction=0.002)
            found = stream.answer(predictor, predictor.encode(rgb), question, rgb, index * PERIOD_MS * 1_000_000)
            yield draw(rgb, found.regions, command.prompts, caption=f'"{said}"')


def write() -> None:
    """Writes the animation with one palette for all pictures, so that what stands still takes no room."""
    pictures = [Image.fromarray(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)) for frame in frames()]
    several = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures[::FRAMES]]))
    palette = several.quantize(COLORS, dither=Image.Dither.NONE)
    first, *rest = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    first.save(DRAWING, save_all=True, append_images=rest, duration=PERIOD_MS, loop=0, optimize=False)


if __name__ == "__main__":
    write()
