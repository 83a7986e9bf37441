# SPDX-License-Identifier: Apache-2.0
"""Runs examiners over the held-out scenes: every scene is rendered once and shown to all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import Scene


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        return asdict(self)


class Examiner(ABC):
    """Asks a model about scenes and counts."""

    @abstractmethod
    def examine(self, scene: Scene, view: RenderedView) -> None:
        """Asks about one scene, of which ``view`` is a picture without depth."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """What was found so far."""

    def pictures(self) -> dict[str, np.ndarray]:
        """Pictures of answers by name, each (H, W, 3) uint8 RGB."""
        return {}


def run_suite(
    examiners: Sequence[Examiner], seeds: Iterable[int], progress: Callable[[Iterable], Iterable] = iter
) -> list[Figure]:
    """Shows the held-out scenes of ``seeds`` to every examiner, as pictures of 640x480.

    Args:
        examiners: Each with its model.
        seeds: Of ``data.tabletop.TEST_SEEDS``.
        progress: Wraps the seeds, for a progress bar.

    Raises:
        RendererUnavailable: There is no way to draw without a screen.
    """
    with SceneRenderer() as renderer:
        for seed in progress(seeds):
            scene = held_out_scene(seed)
            view = renderer.render(scene, depth=False)
            for examiner in examiners:
                examiner.examine(scene, view)
    return [figure for examiner in examiners for figure in examiner.figures()]
