# SPDX-License-Identifier: Apache-2.0
"""ROS parameters made from the dataclasses of ``clip_seg_ros.config``, with descriptions and ranges."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from clip_seg_ros.config import ReferringConfig, SemanticConfig
from clip_seg_ros.nodes.common.rclpy_internals import given_parameters, on_set_parameters
from clip_seg_ros.settings import OWN, Config, parameters

ConfigT = TypeVar("ConfigT", bound=Config)

FIXED = "fixed when the node starts"
"""What a descriptor and a refusal say of a parameter that only whoever starts the node sets."""
_CLOSE = 0.6
"""Ratio of ``difflib`` from which a name may be a typing error: "model_name" and "model" have 0.67."""
# Names that other packages give the image topic; by its letters alone "color_topic" is nearest to "command_topic".
_COLOR = re.compile(r"^(?:colou?r|rgb|camera)(?=_topics?$)")
# Parameters of rclpy itself, which it may use undeclared, declare later, or not know in older releases.
_OF_RCLPY = ("use_sim_time", "start_type_description_service", "qos_overrides")


def warn_of_unknown(node: Node) -> None:
    """Warns of each parameter on the command line or in a file that the node does not have.

    Call it after the node has declared all of its parameters. rclpy ignores unknown ones without a warning.
    """
    declared = [name for name in node.get_parameters_by_prefix("") if name.split(".")[0] not in _OF_RCLPY]
    # A file for all nodes ("/**:") holds what only some of them have.
    of_others = {setting.name for kind in (ReferringConfig, SemanticConfig) for setting in parameters(kind)}
    for name in given_parameters(node):
        if name.split(".")[0] in _OF_RCLPY or name in declared:
            continue
        if name in of_others:
            node.get_logger().info(f"the parameter {name} is another node's: it is ignored")
            continue
        close = difflib.get_close_matches(_COLOR.sub("image", name), declared, 1, _CLOSE)
        told = f"did you mean {close[0]}? It is ignored" if close else "it is ignored"
        node.get_logger().warning(f"there is no parameter {name}: {told} (ros2 param list and docs/nodes.md list all)")


class ConfigParameters(Generic[ConfigT]):
    """Declares every setting of a ``Config`` on a node and keeps the values that are in force.

    Settings that are not live change only while ``all_may_change`` says so, and those that are fixed at the start never
    do. A wrong value is refused with the reason that the configuration gives, and nothing of that request is applied.
    """

    def __init__(
        self,
        node: Node,
        config_type: type[ConfigT],
        check: Callable[[ConfigT, ConfigT], None] = lambda old, new: None,
        on_change: Callable[[ConfigT, ConfigT], None] = lambda old, new: None,
        all_may_change: Callable[[], bool] | None = None,
    ) -> None:
        """Declares the parameters.

        Args:
            node: Node that declares the parameters.
            config_type: Dataclass that describes the parameters.
            check: Called with the values in force and the requested ones; raises ValueError to refuse these.
            on_change: Called with the old and the new values once a change is in force.
            all_may_change: Returns whether settings that are not live may change at the moment, too, as they may before
                a lifecycle node is configured. By default they are read-only.

        Raises:
            ValueError: A value on the command line or in a file is wrong; rclpy also raises exceptions of its own.
        """
        values = {}
        for setting in parameters(config_type):
            # The ranges below say it of the other numbers.
            allowed = setting.allowed if setting.low in (None, OWN) else ""
            # Static typing would refuse "threshold: 1", by which a user means 1.0.
            descriptor = ParameterDescriptor(
                description=setting.description,
                additional_constraints=FIXED if setting.at_start else allowed,
                read_only=all_may_change is None and not setting.live,
                dynamic_typing=setting.type is float,
            )
            if setting.type is float:
                descriptor.floating_point_range = [FloatingPointRange(from_value=setting.low, to_value=setting.high)]
            elif setting.type is int:
                descriptor.integer_range = [IntegerRange(from_value=int(setting.low), to_value=int(setting.high))]
            # An empty list has no type in ROS.
            default = [*setting.default] or [""] if isinstance(setting.default, tuple) else setting.default
            values[setting.name] = node.declare_parameter(setting.name, default, descriptor).value
        warn_of_unknown(node)
        self.config: ConfigT = config_type.from_mapping(values)
        self._also_check, self._on_change, self._all_may_change = check, on_change, all_may_change
        self._at_start = {setting.name for setting in parameters(config_type) if setting.at_start}
        self._unconfigured = {setting.name for setting in parameters(config_type) if not setting.live}
        self._lock = threading.Lock()
        on_set_parameters(node, self._check, self._apply)

    def _changed(self, changes: list[Parameter]) -> ConfigT:
        # A node also has parameters of rclpy itself, such as use_sim_time.
        ours = asdict(self.config)
        ours.update({change.name: change.value for change in changes if change.name in ours})
        return type(self.config).from_mapping(ours)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            new = self._changed(changes)
            changed = {name for name, value in asdict(new).items() if value != getattr(self.config, name)}
            # Any peer may clean the node up. What guards files of this machine must therefore outlast that.
            if changed & self._at_start:
                names = ", ".join(sorted(changed & self._at_start))
                raise ValueError(f"{names}: {FIXED}, and it must be started anew with another value")
            if changed & self._unconfigured and not (self._all_may_change and self._all_may_change()):
                names = ", ".join(sorted(changed & self._unconfigured))
                raise ValueError(f"{names} can change only before the node is configured: clean it up first")
            self._also_check(self.config, new)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        # Services and the thread that loads models also change parameters.
        with self._lock:
            old, new = self.config, self._changed(changes)
            self.config = new
        self._on_change(old, new)
