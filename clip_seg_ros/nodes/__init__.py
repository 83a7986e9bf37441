# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side of the package: the only importers of rclpy and of messages."""

import pkgutil

import clip_seg_ros

# The generated messages live in the installed package. When the source tree comes first on the path, its copy of the
# package would hide them; with this, Python looks in both.
clip_seg_ros.__path__ = pkgutil.extend_path(clip_seg_ros.__path__, "clip_seg_ros")
