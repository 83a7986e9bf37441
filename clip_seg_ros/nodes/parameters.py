"""ROS parameters from the settings dataclasses of ``clip_seg_ros.config``: described, ranged, live where possible."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from clip_seg_ros.config import Config, parameters
from clip_seg_ros.nodes.rclpy_internals import on_set_parameters

ConfigT = TypeVar("ConfigT", bound=Config)


class ConfigParameters(Generic[ConfigT]):
    """Declares every setting of a ``Config`` on a node and keeps the values that are in force.

    Settings that are not live are read-only once the node runs. A wrong value is refused with the reason that the
    configuration gives, and nothing of that request is applied.
    """

    def __init__(
        self, node: Node, config_type: type[ConfigT], check: Callable[[ConfigT, ConfigT], None] = lambda old, new: None,
        on_change: Callable[[ConfigT, ConfigT], None] = lambda old, new: None,
    ) -> None:  # fmt: skip
        """Declares them.

        Args:
            node: That has them.
            config_type: That describes them.
            check: Called with the values in force and those asked for; raises ValueError to refuse these.
            on_change: Called likewise once a change is in force.

        Raises:
            ValueError: A value on the command line or in a file is wrong; rclpy raises exceptions of its own too.
        """
        values = {}
        for setting in parameters(config_type):
            # Static typing would refuse "threshold: 1", which a person means as 1.0.
            descriptor = ParameterDescriptor(
                description=setting.description, read_only=not setting.live, dynamic_typing=setting.type is float
            )
            if setting.type is float:
                descriptor.floating_point_range = [FloatingPointRange(from_value=setting.low, to_value=setting.high)]
            elif setting.type is int:
                descriptor.integer_range = [IntegerRange(from_value=int(setting.low), to_value=int(setting.high))]
            # An empty list has no type in ROS.
            default = [*setting.default] or [""] if setting.type is tuple else setting.default
            values[setting.name] = node.declare_parameter(setting.name, default, descriptor).value
        self.config: ConfigT = config_type.from_mapping(values)
        self._also_check, self._on_change = check, on_change
        self._lock = threading.Lock()
        on_set_parameters(node, self._check, self._apply)

    def _changed(self, changes: list[Parameter]) -> ConfigT:
        # A node also has parameters of rclpy's own, such as use_sim_time.
        ours = asdict(self.config)
        ours.update({change.name: change.value for change in changes if change.name in ours})
        return type(self.config).from_mapping(ours)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self._also_check(self.config, self._changed(changes))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        # Services and the thread that loads models change parameters, too.
        with self._lock:
            old, new = self.config, self._changed(changes)
            self.config = new
        self._on_change(old, new)
