# SPDX-License-Identifier: Apache-2.0
"""What all cameras together have shown of what a command names, until that is told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S, CameraInput
from clip_seg_ros.types import ObjectRegion, ProbabilityMaps


@dataclass(frozen=True)
class _Sight:
    """The best that was seen of one phrase."""

    camera: str
    count: int
    score: float


class Outcome:
    """Gathers what images hold of a command's phrases.

    It is complete when every phrase was found by some camera, or every camera has answered. A camera that stays silent
    is not waited for long.

    Args:
        prompts: The command's phrases.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = tuple(dict.fromkeys(prompts))
        self._given_s = time.monotonic()
        self._answered: set[str] = set()
        self._sights: dict[str, _Sight] = {}
        self._best: dict[str, float] = {}
        self.header = Header()
        """Header of the last image that showed a phrase for the first time; where none did, of the last image."""

    def add(
        self, camera: str, header: Header, regions: Iterable[ObjectRegion], maps: ProbabilityMaps | None = None
    ) -> None:
        """Takes in what one image showed.

        Args:
            camera: Name of its camera; empty where there is only one.
            header: Of the image.
            regions: What was found in it.
            maps: How sure the model is of each phrase, at every pixel; the best of it is told of what was not found.
        """
        self._answered.add(camera)
        for prompt, values in zip(maps.prompts, maps.values) if maps is not None else ():
            self._best[prompt] = max(self._best.get(prompt, 0.0), float(values.max(initial=0.0)))
        scores: dict[str, list[float]] = {}
        for region in regions:
            scores.setdefault(region.prompt, []).append(region.score)
        if not self._sights or scores.keys() - self._sights.keys():
            self.header = header
        for prompt, values in scores.items():
            sight = _Sight(camera, len(values), max(values))
            # Of several cameras that show a phrase, the one that is surest of it is named.
            self._sights[prompt] = max(self._sights.get(prompt, sight), sight, key=lambda each: each.score)

    def is_complete(self, cameras: Iterable[CameraInput]) -> bool:
        """Whether it can be told.

        Args:
            cameras: All that there are.
        """
        if len(self.found) == len(self._prompts):
            return True
        is_new = time.monotonic() - self._given_s < SILENCE_S
        missing = [camera for camera in cameras if camera.name not in self._answered]
        return not any(is_new or camera.is_alive() for camera in missing)

    @property
    def found(self) -> list[str]:
        """The phrases that were found by any camera."""
        return [prompt for prompt in self._prompts if prompt in self._sights]

    def note(self) -> str:
        """What was found of each phrase, and by which camera where they have names."""
        return "; ".join(f"{prompt}: {self._note_on(prompt)}" for prompt in self._prompts)

    def _note_on(self, prompt: str) -> str:
        sight = self._sights.get(prompt)
        if sight is None:
            return f"not found, best score {self._best[prompt]:.2f}" if prompt in self._best else "not found"
        where = f" ({sight.camera})" if sight.camera else ""
        return f"{sight.count} found, best score {sight.score:.2f}{where}"
