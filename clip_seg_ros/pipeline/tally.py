# SPDX-License-Identifier: Apache-2.0
"""Counts which phrases of a command were found, and says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.types import ObjectRegion


@dataclass(frozen=True)
class _Sight:
    """The best image of one phrase: its camera, and the number and best score of the objects in it."""

    camera: str
    count: int
    score: float


class Tally:
    """Collects which phrases of a command were found in the images of all cameras.

    Args:
        prompts: The phrases of the command.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = tuple(dict.fromkeys(prompts))
        self._sights: dict[str, _Sight] = {}
        self._best: dict[str, float] = {}
        self._sentences: dict[str, str] = {}

    def add(
        self,
        camera: str,
        regions: Iterable[ObjectRegion],
        maps: CellMaps | None = None,
        sentences: Mapping[str, str] = MappingProxyType({}),
    ) -> bool:
        """Adds the result of one image; returns whether it is the first one, or has a phrase that no other one had.

        Args:
            camera: Name of the image's camera; empty if there is only one.
            regions: The objects that were found.
            maps: The probabilities of the phrases; for a phrase that was not found, the highest one is reported.
            sentences: What is to be said of phrases with places, order or number, instead of how many were found.
        """
        for prompt, values in zip(maps.prompts, maps.values) if maps is not None else ():
            self._best[prompt] = max(self._best.get(prompt, 0.0), float(values.max(initial=0.0)))
        scores: dict[str, list[float]] = {}
        for region in regions:
            scores.setdefault(region.prompt, []).append(region.score)
        is_new = not self._sights or bool(scores.keys() - self._sights.keys())
        for prompt, values in scores.items():
            sight = _Sight(camera, len(values), max(values))
            # If several cameras show a phrase, the one with the best score is named.
            self._sights[prompt] = max(self._sights.get(prompt, sight), sight, key=lambda each: each.score)
        for prompt, sentence in sentences.items():
            # The sentence is of the camera that is named.
            if prompt not in self._sights or self._sights[prompt].camera == camera:
                self._sentences[prompt] = sentence
        return is_new

    @property
    def found(self) -> list[str]:
        """The phrases that were found by any camera."""
        return [prompt for prompt in self.prompts if prompt in self._sights]

    def note(self) -> str:
        """Returns what was found for each phrase, and by which camera if cameras have names."""
        return "; ".join(f"{prompt}: {self._note_on(prompt)}" for prompt in self.prompts)

    def _note_on(self, prompt: str) -> str:
        sight = self._sights.get(prompt)
        if prompt in self._sentences:
            where = f" ({sight.camera})" if sight is not None and sight.camera else ""
            return f"{self._sentences[prompt]}{where}"
        if sight is None:
            return f"not found, best score {self._best[prompt]:.2f}" if prompt in self._best else "not found"
        where = f" ({sight.camera})" if sight.camera else ""
        return f"{sight.count} found, best score {sight.score:.2f}{where}"
