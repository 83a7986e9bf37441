# SPDX-License-Identifier: Apache-2.0
"""The objects that all parts of one node share."""

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
    """The settings, logs, shared topics and state of a node; every part of the node gets them."""

    node: BoundedLogs
    """The node itself, which creates publishers, subscriptions, services and timers."""
    settings: ConfigParameters[ConfigT]
    """The parameters of the node."""
    faults: FaultLog
    """Log of the present faults."""
    calls: OpenCalls
    """Counter of the calls of services and actions in progress."""
    status: StatusTopic
    """Topic of the responses to commands."""
    sizes: SizeWatch = field(default_factory=SizeWatch)
    """Gives memory back when images change their size."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Guards the state that callbacks and the worker share, so that no forgotten result is published."""
    active: bool = False
    """Whether the lifecycle node is in the state "active"."""

    @property
    def config(self) -> ConfigT:
        """The settings that are in force."""
        return self.settings.config

    def refusal(self) -> str:
        """Returns why the node cannot respond to calls at the moment; empty if it can."""
        return self.calls.refusal or ("" if self.active else "the node is not active: activate it first")
