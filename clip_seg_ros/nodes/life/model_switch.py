# SPDX-License-Identifier: Apache-2.0
"""Which model serves a node, and the command that waits for another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rclpy.node import Node
from rclpy.parameter import Parameter

from clip_seg_ros.config import SegmentationConfig
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.zoo.caution import in_commands

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


@dataclass(frozen=True)
class _Waiting:
    """A command that ends when its model serves."""

    command_id: int
    text: str
    model: str


class ModelSwitch:
    """Loads the model that the parameter ``model`` names, and another one beside it when that changes.

    Args:
        node: Node with the parameter ``model``.
        config: Returns the settings that are in force.
        status: Topic on which commands that asked for a model are answered.
        faults: Log of what fails while a model is loaded.
        warm_up: Answers a first image with a new predictor; raises ValueError where node and model do not fit.
        on_ready: Called on the loader's thread when another model has begun to serve, before the command that
            asked for it is told so.
    """

    def __init__(
        self,
        node: Node,
        config: Callable[[], SegmentationConfig],
        status: StatusTopic,
        faults: FaultLog,
        warm_up: Callable[[Predictor], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._node, self._config, self._status, self._faults = node, config, status, faults
        self._warm_up, self._on_ready = warm_up, on_ready
        self.host = ModelHost(self._load, self._on_model_ready, self._on_model_failed)
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None
        self._launched_with = config().model
        """The model that whoever started the node chose, who may read any file."""
        self._is_cautioned = False

    def start(self) -> None:
        """Loads the first model in the caller's thread; raises what loading raises."""
        self.host.start(self.full_name(self._config().model))
        self._is_cautioned = False
        self._log_caution()

    def caution(self) -> str:
        """Returns, the first time that it is asked, that the weights know the simulated table alone, where they do."""
        words = "" if self._is_cautioned else in_commands(self.host.predictor.spec)
        self._is_cautioned = self._is_cautioned or bool(words)
        return words

    def stop(self) -> None:
        """Lets go of the model, and ends the command that waits for another one."""
        self.host.unload()
        self._tell(False, "the node was cleaned up before the model was ready")

    @property
    def weights_dir(self) -> Path | None:
        """Folder of the weight files; ``None`` for the usual places."""
        folder = self._config().weights_dir
        return Path(folder).expanduser() if folder else None

    def full_name(self, model: str) -> str:
        """Returns the whole name of a model. Raises ValueError where there is none, or its weights are not there.

        Any peer may name a model: of files, only those in the folders of weights count, unless a parameter that is set
        at the start allows others. The model that the node was started with was named by its owner.
        """
        from clip_seg_ros.models.checkpoints import WeightsError
        from clip_seg_ros.zoo.factory import full_name

        trusted = self._config().allow_model_paths or model == self._launched_with
        try:
            return full_name(model, self.weights_dir, allow_paths=trusted)
        except WeightsError as error:
            raise ValueError(str(error)) from error

    def fault_of(self, model: str) -> str:
        """Returns why a model cannot be used; empty where it can."""
        try:
            self.full_name(model)
        except ValueError as error:
            return str(error)
        return ""

    def obey(self, command_id: int, text: str, model: str) -> None:
        """Accepts a command that asks for nothing but a model, and does it."""
        self._status.accept(command_id, text, f"loading {model}; {self.host.name} serves until it is ready")
        self.use(command_id, text, model)

    def use(self, command_id: int, text: str, model: str) -> None:
        """Gets a model that there is ready beside the present one, for a command that was accepted."""
        name = self.full_name(model)
        self._expect(name, _Waiting(command_id, text, name))
        known = name == self.host.wanted
        # The parameter is the truth; changing it loads the model.
        self._node.set_parameters([Parameter("model", value=name)])
        if known:
            self.host.switch(name)

    def check(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        """Raises ValueError where the parameter ``model`` would change to one that there is not."""
        if new.model != old.model:
            self.full_name(new.model)

    def follow(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        """Loads the model that the parameter ``model`` has changed to."""
        if new.model != old.model and self.host.name is not None:
            name = self.full_name(new.model)
            if name != self.host.wanted:
                self._expect(name, None)
                self.host.switch(name)

    def _expect(self, name: str, command: _Waiting | None) -> None:
        """Gives up the command that waits for its model, where another name or command takes its place."""
        with self._lock:
            earlier = self._waiting
            if command is None and earlier is not None and earlier.model == name:
                return
            self._waiting = command
        if earlier is not None:
            self._status.fail(earlier.command_id, earlier.text, f"{name} was asked for before this was done")

    # On the loader's thread.

    def _load(self, name: str) -> Predictor:
        # Here and not above: torch takes seconds to import, and by now a signal ends the process cleanly.
        from clip_seg_ros.pipeline.predictor import Predictor

        config = self._config()
        predictor = Predictor.from_name(name, config.device, self.weights_dir, config.precision)
        self._warm_up(predictor)
        return predictor

    def _log_caution(self) -> None:
        if words := in_commands(self.host.predictor.spec):
            self._node.get_logger().warning(words)

    def _on_model_ready(self, name: str) -> None:
        self._on_ready()
        self._faults.clear("model")
        self._log_caution()
        self._tell(True, f"{name} serves now", name)

    def _on_model_failed(self, name: str, error: Exception) -> None:
        serving = self.host.name
        note = f"{name} could not be loaded: {error}; {serving} serves on"
        # Once more for every attempt; it stands until another model is there.
        self._faults.clear("model")
        self._faults.report("model", name, note, always=True)
        if self.host.wanted == serving:
            self._node.set_parameters([Parameter("model", value=serving)])
        self._tell(False, note, name)

    def _tell(self, good: bool, note: str, name: str | None = None) -> None:
        """Ends the command that waits for the model ``name``, or for any."""
        with self._lock:
            command = self._waiting
            # Another may have been asked for since; its own end will come.
            if command is not None and name in (None, command.model):
                self._waiting = None
            else:
                command = None
        if command is not None:
            (self._status.done if good else self._status.fail)(command.command_id, command.text, note)
        elif good:
            self._node.get_logger().info(note)
