# SPDX-License-Identifier: Apache-2.0
"""The rendered training scenes as a data set with a class for every pixel."""

from __future__ import annotations

from clip_seg_ros.data.samples import SemanticSample
from clip_seg_ros.data.tabletop import FIRST_TRAIN_SEED, SEMANTIC_CLASSES, TabletopScenes, class_map

UNSEEN_KINDS = ("plate", "book")
"""The kinds that have no true labels in the zero-shot setting: the last quarter of all, as in VOC's 15 and 5."""


class TabletopClasses:
    """A ``SemanticDataset`` of rendered scenes: kinds of objects, the table and the floor.

    Args:
        scenes: The scenes in memory.
    """

    class_names = SEMANTIC_CLASSES

    def __init__(self, scenes: TabletopScenes) -> None:
        self._scenes = scenes

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(f"scene {FIRST_TRAIN_SEED + index}" for index in range(len(self)))

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> SemanticSample:
        labels = class_map(self._scenes.scene(index), self._scenes.labels[index])
        return SemanticSample(self._scenes.rgb[index], labels, f"scene {FIRST_TRAIN_SEED + index}")
