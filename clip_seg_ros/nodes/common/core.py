# SPDX-License-Identifier: Apache-2.0
"""What all parts of one node share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from clip_seg_ros.config import SegmentationConfig
from clip_seg_ros.nodes.common.answering_services import OpenCalls
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.log_limits import BoundedLogs
from clip_seg_ros.nodes.common.parameters import ConfigParameters
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.pipeline.memory import SizeWatch

ConfigT = TypeVar("ConfigT", bound=SegmentationConfig)


@dataclass
class NodeCore(Generic[ConfigT]):
    """A node's settings, its ways to speak, and its state, which every part of the node is given."""

    node: BoundedLogs
    """The node itself, which makes publishers, subscriptions, services and timers."""
    settings: ConfigParameters[ConfigT]
    """Its parameters."""
    faults: FaultLog
    """Log of what is wrong at the moment."""
    calls: OpenCalls
    """The callers who have yet to get an answer."""
    status: StatusTopic
    """Topic of the answers to commands."""
    sizes: SizeWatch = field(default_factory=SizeWatch)
    """Gives memory back when images change their size."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Guards what callbacks and the worker share, and lets "forget it" and "publish it" exclude each other."""
    active: bool = False
    """Whether the lifecycle node is in the state "active"."""

    @property
    def config(self) -> ConfigT:
        """The settings that are in force."""
        return self.settings.config

    def refusal(self) -> str:
        """Returns why nothing can be asked of the node at the moment; empty where it can."""
        return self.calls.refusal or ("" if self.active else "the node is not active: activate it first")
