# SPDX-License-Identifier: Apache-2.0
"""The ``referring`` node: a command names things, every image is answered with their masks and positions."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early

    early.begin()

import sys

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.life.segmentation_node import THREADS, SegmentationNode
from clip_seg_ros.nodes.services.finder import MAX_SEARCHES
from clip_seg_ros.nodes.tasks.referring import Referring


def create() -> SegmentationNode:
    """Returns the node, not configured."""
    return SegmentationNode("referring", ReferringConfig, Referring)


def main() -> int:
    """Runs the node as a process."""
    return run_node(
        "referring", lambda: create().bring_up(), THREADS + MAX_SEARCHES, SegmentationNode.finish, about=__doc__
    )


if __name__ == "__main__":
    sys.exit(main())
