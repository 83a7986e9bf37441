# SPDX-License-Identifier: Apache-2.0
"""The ``semantic`` node: every pixel of every image gets a class out of a list."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early

    early.begin()

import sys

from clip_seg_ros.config import SemanticConfig
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.life.segmentation_node import THREADS, SegmentationNode
from clip_seg_ros.nodes.tasks.semantic import Semantic


def create() -> SegmentationNode:
    """Returns the node, not configured."""
    return SegmentationNode("semantic", SemanticConfig, Semantic)


def main() -> int:
    """Runs the node as a process."""
    return run_node("semantic", lambda: create().bring_up(), THREADS, SegmentationNode.finish, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
