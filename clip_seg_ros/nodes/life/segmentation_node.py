# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node with a model, cameras, commands and diagnostics. A task defines how it uses them."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.validate_topic_name import validate_topic_name

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.config import SegmentationConfig
from clip_seg_ros.nodes.camera.intake import Intake
from clip_seg_ros.nodes.common.answering_services import OpenCalls
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.log_limits import BoundedLogs
from clip_seg_ros.nodes.common.parameters import ConfigParameters
from clip_seg_ros.nodes.common.rclpy_internals import guard_transitions
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.nodes.life.command_router import CommandRouter
from clip_seg_ros.nodes.life.health import Health
from clip_seg_ros.nodes.life.model_switch import ModelSwitch
from clip_seg_ros.nodes.life.task import Task
from clip_seg_ros.sources import image_decoding

THREADS = 4
"""The threads of a node's executor: sensors and commands are served while services and actions wait for the model."""
_LONGEST_CHANGE_S = 5.0
"""The time for which the end of the process waits for a transition."""
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentationNode(BoundedLogs, LifecycleNode):
    """A lifecycle node with a model, cameras, commands and diagnostics.

    The transition configure loads the weights, activate listens to the cameras, deactivate stops listening, and cleanup
    frees the memory. Callbacks only store messages and answer commands; the model runs on a worker's thread on the
    newest images.

    Args:
        name: Name of the node, one of ``command_router.KINDS``.
        config_type: Type of the node's parameters.
        make_task: Makes the task of this node, whose parts (``core``, ``models``, ``commands`` and ``intake``) exist by
            then, but have not been started.
    """

    def __init__(
        self, name: str, config_type: type[SegmentationConfig], make_task: Callable[[SegmentationNode], Task]
    ) -> None:
        super().__init__(name, namespace="clip_seg")
        settings = ConfigParameters(self, config_type, self._check_change, self._on_change, self._is_unconfigured)
        faults = FaultLog(self.get_logger().warning)
        self.core: NodeCore[Any] = NodeCore(self, settings, faults, OpenCalls(self), StatusTopic(self))
        self.models = ModelSwitch(
            self,
            lambda: self.core.config,
            self.core.status,
            faults,
            lambda predictor: self.task.warm_up(predictor),
            lambda: self.task.on_model_ready(),
        )
        self.core.status.caution = self.models.caution
        self.commands = CommandRouter(
            self,
            name,
            self.core.status,
            lambda: self.core.active,
            lambda command: self.task.is_mine(command),
            self._fault_of,
            lambda *command: self.task.obey(*command),
        )
        self.intake = Intake(self.core, lambda: self.models.host.predictor)
        self.task = make_task(self)
        self.start_fault = ""
        """The reason why the last configure or activate failed; "" if it succeeded."""
        self._configured = False
        # A transition holds this lock, and so does the end of the process, which waits for a transition under way.
        self._changing = threading.Lock()
        warn = self.get_logger().warning
        guard_transitions(self, lambda error: warn(f"there is no such transition now: {error}"))

    def bring_up(self) -> SegmentationNode:
        """Configures and activates if the parameter autostart says so; raises RuntimeError if that fails."""
        if self.core.config.autostart:
            if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
                raise RuntimeError(self.start_fault)
        else:
            self.get_logger().info("waiting to be configured and activated by a lifecycle manager")
        return self

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the weights and makes the outputs. If that fails, it logs the reason and can be tried again."""
        return self._try("configure", self._configure, self.models.host.unload)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listens to the cameras."""
        return self._try("activate", self._activate, self._stop_listening)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops listening; the weights stay loaded."""
        with self._changing:
            self._stop_listening()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Removes the outputs once all callers were answered, and frees the memory."""
        with self._changing:
            self._release("the node was cleaned up")
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops from any state once all callers were answered."""
        with self._changing:
            self._release("the node was shut down")
        return SUCCESS

    def finish(self) -> None:
        """Stops before the process ends, once all callers were answered; callbacks must still run."""
        if self._configured and self._changing.acquire(timeout=_LONGEST_CHANGE_S):
            try:
                self._release("the node ends")
            finally:
                self._changing.release()

    def destroy_node(self) -> None:
        """Stops, and destroys the node."""
        self.finish()
        super().destroy_node()

    def _try(self, what: str, act: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        self.start_fault = ""
        try:
            with self._changing:
                act()
        except Exception as error:  # whatever it is, the node goes on and can be told to try again
            self.start_fault = str(error) or type(error).__name__
            # Before the node spins, the process itself reports why it ends.
            if self.executor is not None:
                self.get_logger().error(f"{what} failed: {self.start_fault}")
            self.get_logger().debug(traceback.format_exc())
            with self._changing:
                undo()
            return FAILURE
        return SUCCESS

    def _configure(self) -> None:
        core, config = self.core, self.core.config
        # Names are checked first, so that nothing is made in vain.
        for camera in config.cameras():
            for topic in (config.command_topic, camera.name, camera.image, camera.depth, camera.camera_info):
                if topic:
                    validate_topic_name(topic)
        self.models.start()
        core.calls.open()
        core.status.open()
        self.task.open()
        self.commands.open(config.command_topic, core.calls.group())
        self._health = Health(
            self, self.models, core.faults, lambda: self.intake.cameras, self.task.idle_because, self.task.values
        )
        self._configured = True
        if fault := image_decoding.library()[1]:
            self.get_logger().warning(fault)
        self.models.improve()

    def _activate(self) -> None:
        config, host = self.core.config, self.models.host
        self.core.active = True
        self.commands.announce()
        # The command precedes the first image, which would otherwise find nothing to look for.
        if config.initial_command:
            self.commands.give(config.initial_command)
        self.intake.start(self.task, self._health, self.commands.subscription)
        images = ", ".join(camera.image_topic for camera in self.intake.cameras)
        commands = self.commands.subscription.topic_name
        self.get_logger().info(f"{host.name} on {host.predictor.device}; commands: {commands}, images: {images}")

    def _stop_listening(self) -> None:
        # The lock keeps this from happening in the middle of a publication.
        with self.core.lock:
            self.core.active = False
        self.commands.withdraw()
        self.intake.stop()
        self.task.pause()

    def _release(self, why: str) -> None:
        self._stop_listening()
        if self._configured:
            if not self.core.calls.close(why):
                self.get_logger().warning("somebody who called may not have been answered in time")
            self._health.close()
            self.commands.close()
            self.models.stop()
            self.task.close()
            self.core.status.close()
            self._configured = False

    def _is_unconfigured(self) -> bool:
        return not self._configured and not self._changing.locked()

    def _check_change(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        self.models.check(old, new)

    def _on_change(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        self.models.follow(old, new)

    def _fault_of(self, command: Command | None) -> str:
        """Returns why a command cannot be carried out now; empty if it can, as far as that is known beforehand."""
        fault = self.core.refusal()
        if fault or command is None or command.model is None:
            return fault
        return self.models.fault_of(command.model)
