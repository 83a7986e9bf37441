# SPDX-License-Identifier: Apache-2.0
"""The options of commands that answer pictures, videos, webcams and bags, in the same words everywhere."""

from __future__ import annotations

from typing import Any

from clip_seg_ros.config import AUTO

SOURCE = (
    "a picture, a folder of pictures, a pattern such as 'photos/*.jpg', a video, the number of a webcam such as 0, or "
    "a bag of ROS 1 or ROS 2"
)
"""What can be named, for the help."""


def add_model_options(parser: Any) -> None:
    """Adds ``--model`` and ``--device`` to a parser or a group of it."""
    parser.add_argument(
        "--model",
        default=AUTO,
        metavar="NAME",
        help="name or weight file of the model (default: the best one here)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: cuda where there is one)")
