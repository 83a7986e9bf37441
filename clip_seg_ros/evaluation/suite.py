# SPDX-License-Identifier: Apache-2.0
"""Runs examiners on the held-out scenes, each of which is rendered once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import Scene, sample_scene


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        return asdict(self)


class Examiner(ABC):
    """Runs a model on scenes and collects figures."""

    @abstractmethod
    def examine(self, scene: Scene, view: RenderedView) -> None:
        """Measures one scene; ``view`` is its image, with depth only if ``run_suite`` was asked for it."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """Returns the figures of all scenes so far."""

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns images of results by name, each (H, W, 3) uint8 RGB."""
        return {}


def run_suite(
    examiners: Sequence[Examiner],
    seeds: Iterable[int],
    progress: Callable[[Iterable], Iterable] = iter,
    touching: bool = False,
) -> list[Figure]:
    """Runs every examiner on the held-out scenes of ``seeds``, as images of 640x480.

    Args:
        examiners: Each with its model.
        seeds: Of ``data.tabletop.TEST_SEEDS``.
        progress: Wraps the seeds, for a progress bar.
        touching: Whether each seed gives two more scenes, in which objects of one kind touch, the second of them with
            things of a workshop; all images then have depth.

    Raises:
        RendererUnavailable: There is no way to draw without a screen.
    """
    with SceneRenderer() as renderer:
        for seed in progress(seeds):
            scenes = [held_out_scene(seed)]
            if touching:
                scenes += [held_out_scene(seed, alike=True), sample_scene(seed, alike=True, workshop=True)]
            for scene in scenes:
                view = renderer.render(scene, depth=touching)
                for examiner in examiners:
                    examiner.examine(scene, view)
    return [figure for examiner in examiners for figure in examiner.figures()]
