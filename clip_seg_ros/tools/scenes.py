# SPDX-License-Identifier: Apache-2.0
"""Loads rendered scenes for the commands that train on them."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from clip_seg_ros.data import tabletop
from clip_seg_ros.training import distributed


def training_scenes(folder: Path, count: int, alike: bool = False) -> tabletop.TabletopScenes:
    """Loads ``count`` training scenes from ``folder``; the first process renders missing ones and shows progress.

    With ``alike``, many objects of one kind touch in half of the scenes.
    """

    def render() -> bool:
        with tqdm(total=count, desc="render", unit="scene") as bar:
            workers = torch.get_num_threads()
            for ready in tabletop.render_training_scenes(folder, count, workers=workers, alike=alike):
                bar.update(min(ready, count) - bar.n)
        return True

    distributed.broadcast_object(render)
    return tabletop.load_training_scenes(folder, count, alike)
