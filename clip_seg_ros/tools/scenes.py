# SPDX-License-Identifier: Apache-2.0
"""Loads rendered scenes for the commands that train on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from clip_seg_ros.data import tabletop
from clip_seg_ros.training import distributed


def training_scenes(
    folder: Path, count: int, arrangements: Sequence[tabletop.Arrangement] = tabletop.USUAL
) -> tabletop.TabletopScenes:
    """Loads ``count`` training scenes from ``folder``; the first process renders missing ones and shows progress.

    The shards of scenes have the ``arrangements`` in turns.
    """

    def render() -> bool:
        with tqdm(total=count, desc="render", unit="scene") as bar:
            workers = torch.get_num_threads()
            for ready in tabletop.render_training_scenes(folder, count, workers=workers, arrangements=arrangements):
                bar.update(min(ready, count) - bar.n)
        return True

    distributed.broadcast_object(render)
    return tabletop.load_training_scenes(folder, count, arrangements)
