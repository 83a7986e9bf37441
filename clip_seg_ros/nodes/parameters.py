"""ROS parameters from the settings dataclasses of ``clip_seg_ros.config``: described, ranged, live where possible."""

from __future__ import annotations

from dataclasses import asdict
from typing import Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from clip_seg_ros.config import Config, parameters

ConfigT = TypeVar("ConfigT", bound=Config)


class ConfigParameters(Generic[ConfigT]):
    """Declares every setting of a ``Config`` on a node and keeps the values that are in force.

    Settings that are not live are read-only once the node runs. A wrong value is refused with the reason that the
    configuration gives, and nothing of that request is applied.
    """

    def __init__(self, node: Node, config_type: type[ConfigT]) -> None:
        """Raises ``ValueError`` or an rclpy parameter exception for a wrong value on the command line or in a file."""
        values = {}
        for setting in parameters(config_type):
            # Static typing would refuse "threshold: 1", which a person means as 1.0.
            descriptor = ParameterDescriptor(
                description=setting.description, read_only=not setting.live, dynamic_typing=setting.type is float
            )
            if setting.low is not None and setting.high is not None:
                descriptor.floating_point_range = [FloatingPointRange(from_value=setting.low, to_value=setting.high)]
            values[setting.name] = node.declare_parameter(setting.name, setting.default, descriptor).value
        self.config: ConfigT = config_type.from_mapping(values)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def _changed(self, changes: list[Parameter]) -> ConfigT:
        # A node also has parameters of rclpy's own, such as use_sim_time.
        ours = asdict(self.config)
        ours.update({change.name: change.value for change in changes if change.name in ours})
        return type(self.config).from_mapping(ours)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self._changed(changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        self.config = self._changed(changes)
