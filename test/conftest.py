# SPDX-License-Identifier: Apache-2.0
"""What every test starts from: a ROS 2 of its own, and no files left behind."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

# The tests' folders are not on Python's path, and this one holds what all of them share.
sys.path.append(str(Path(__file__).parent / "support"))

from domains import reserve_domain

# Before anything imports rclpy. Another domain for each run: it must neither hear nor command a robot on this network,
# nor another run on this machine.
os.environ["ROS_DOMAIN_ID"] = str(reserve_domain())
_ROS_LOGS = tempfile.TemporaryDirectory(prefix="clip_seg_ros_test_logs_")
os.environ["ROS_LOG_DIR"] = _ROS_LOGS.name

# What is measured and kept of engines is that of these tests alone.
_CACHE = tempfile.TemporaryDirectory(prefix="clip_seg_ros_test_cache_")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
# Weights that were downloaded would be what "auto" stands for.
os.environ.pop("CLIP_SEG_CACHE_DIR", None)

# Whoever starts the tests in the background may have Ctrl-C ignored, which every program that a test starts inherits.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "data" / "golden",
        help="folder of recordings of the original implementations that the models are held to",
    )


LONGEST = (
    "test_embedded_weights.py",
    "test_other_processors.py",
    "test_fuzz.py",
    "test_late_imports.py",
    "test_bench_ros.py",
    "test_train_distributed.py",
    "test_model_switch.py",
    "test_lifecycle.py",
    "test_demo.py",
    "test_examples.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take longest, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
