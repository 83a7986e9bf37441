# SPDX-License-Identifier: Apache-2.0
"""Switches a node from one model to another, and answers the command that asked for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rclpy.node import Node
from rclpy.parameter import Parameter

from clip_seg_ros.config import AUTO, SegmentationConfig
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.nodes.life.fetching import Fetching
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.sim.scene import KINDS
from clip_seg_ros.zoo.caution import at_start, in_commands, in_corner

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


@dataclass(frozen=True)
class _Waiting:
    """A command that is completed when its model is in use."""

    command_id: int
    text: str
    model: str


class ModelSwitch:
    """Loads the model that the parameter ``model`` names, and loads another one when the parameter changes.

    The first model stays in use until the other one is ready.

    Args:
        node: Node with the parameter ``model``.
        config: Returns the current settings.
        status: Topic on which commands that asked for a model are answered.
        faults: Log of the errors of loading a model.
        warm_up: Answers a first image with a new predictor; raises ValueError if node and model do not fit.
        on_ready: Called on the loader's thread once another model is in use, before the command that asked for it is
            answered.
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
        """The model that the node was started with, which may be any file."""
        self._cautioned: set[str] = set()
        """Who was cautioned about the model ``_cautioned_of``."""
        self._cautioned_of: str | None = None
        self._complained = ""
        self._warned_of: str | None = None
        """The model that the log has a warning of."""
        self._fetching = Fetching(status, faults, lambda: self.host.name, self._take_over)

    def start(self) -> None:
        """Loads the first model on the caller's thread; raises what loading raises.

        If it stands for the best of several, and that one cannot be used, the next one serves, with a fault.
        """
        *better, last = self._meant()
        for name in better:
            try:
                self.host.start(name)
                break
            except Exception as error:  # whatever it is, the next one may work
                self._faults.report("model", name, f"{name} could not be loaded: {error}; {last} serves", always=True)
        else:
            self.host.start(last)
        self._cautioned_of = None
        self._log_engine()
        self._log_caution()

    def improve(self) -> None:
        """Begins to look for a faster engine, if no engine was measured yet, and for better weights.

        Better weights are fetched if "auto" prefers them and the node may fetch them.
        """
        self._measure_engines()
        self._fetch()

    def _measure_engines(self) -> None:
        name = self.host.name
        # If another model is wanted by now, that one is measured in its turn.
        if name is not None and self.host.wanted == name and self.host.predictor.chosen.is_provisional:
            self.host.switch(name, again=True)

    def _fetch(self) -> None:
        config = self._config()
        wanted, *others = config.automatic_models
        if config.model == AUTO and config.download and others and not config.weights_dir and self.host.name != wanted:
            self._fetching.start(wanted)

    @property
    def progress(self) -> str:
        """What is being fetched, and how far it is; empty if nothing is."""
        return self._fetching.progress

    def with_caution(self, answer: str, whose: str = "commands") -> str:
        """Returns an answer, to which the first one adds the caution that the weights know only the simulated table.

        It is added once for each model that comes into use, and once for everybody who may not have heard the others;
        where nobody chose the model, all other answers get a short one.

        Args:
            answer: The answer.
            whose: What is answered: commands, or the name of a service or an action.
        """
        try:
            words = in_commands(self.host.predictor.spec)
        except RuntimeError:  # the node was cleaned up while the answer was made
            return answer
        with self._lock:
            if self._cautioned_of != self.host.name:
                self._cautioned, self._cautioned_of = set(), self.host.name
            is_told = whose in self._cautioned
            self._cautioned.add(whose)
        told = self.caution() if is_told else words
        return "; ".join(filter(None, (answer, told)))

    def caution(self) -> str:
        """Returns the short caution, for each answer of an embedded model that nobody chose; empty otherwise."""
        try:
            return in_corner(self.host.predictor.spec) if self._config().model == AUTO else ""
        except RuntimeError:  # the node was cleaned up while the answer was made
            return ""

    def stop(self) -> None:
        """Unloads the model, and fails the command that waits for another one."""
        self._fetching.stop()
        self.host.unload()
        self._tell(False, "the node was cleaned up before the model was ready")

    @property
    def weights_dir(self) -> Path | None:
        """The folder of the weight files; ``None`` for the usual places."""
        folder = self._config().weights_dir
        return Path(folder).expanduser() if folder else None

    def full_name(self, model: str) -> str:
        """Returns the full name of a model. Raises ValueError if there is no such model, or its weights are missing.

        Any peer may name a model. Only files in the folders of weights are therefore allowed, unless a parameter that
        is set at the start allows others. The model that the node was started with is trusted.
        """
        from clip_seg_ros.models.checkpoints import WeightsError
        from clip_seg_ros.zoo.factory import first_there, full_name

        config = self._config()
        trusted = config.allow_model_paths or model == self._launched_with
        try:
            if model == AUTO:
                model = first_there(config.automatic_models, self.weights_dir)
            return full_name(model, self.weights_dir, allow_paths=trusted)
        except WeightsError as error:
            raise ValueError(str(error)) from error

    def fault_of(self, model: str) -> str:
        """Returns why a model cannot be used; empty if it can."""
        try:
            self.full_name(model)
        except ValueError as error:
            return str(error)
        return ""

    def obey(self, command_id: int, text: str, model: str) -> None:
        """Accepts and carries out a command that only asks for a model."""
        self._status.accept(command_id, text, f"loading {model}; {self.host.name} serves until it is ready")
        self.use(command_id, text, model)

    def use(self, command_id: int, text: str, model: str) -> None:
        """Loads an existing model while the present one stays in use, for a command that was accepted."""
        name = self.full_name(model)
        self._expect(name, _Waiting(command_id, text, name))
        known = name == self.host.wanted
        # The parameter decides which model is in use; changing it loads the model.
        self._node.set_parameters([Parameter("model", value=name)])
        if known:
            self.host.switch(name)

    def check(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        """Raises ValueError if the parameter ``model`` would change to a model that does not exist."""
        if new.model != old.model:
            self.full_name(new.model)

    def follow(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        """Loads the model that the parameter ``model`` has changed to."""
        if new.model != old.model and self.host.name is not None:
            name = self.full_name(new.model)
            if name != self.host.wanted:
                self._expect(name, None)
                self.host.switch(name)
            self._fetch()

    def _meant(self) -> list[str]:
        """Returns the full name of the first model, or of each that "auto" stands for and that is there, best first."""
        config = self._config()
        if config.model != AUTO:
            return [self.full_name(config.model)]
        names = config.automatic_models
        return [name for name in names if not self.fault_of(name)] or [self.full_name(names[-1])]

    def _expect(self, name: str, command: _Waiting | None) -> None:
        """Fails the command that waits for its model if another name or command replaces it."""
        with self._lock:
            earlier = self._waiting
            if command is None and earlier is not None and earlier.model == name:
                return
            self._waiting = command
        if earlier is not None:
            self._status.fail(earlier.command_id, earlier.text, f"{name} was asked for before this was done")

    def _take_over(self, command_id: int, text: str, name: str) -> None:
        """Loads what was fetched, on the thread that did so, if the model is still to be the best one."""
        if self._config().model != AUTO:
            self._status.done(command_id, text, f"{name} is there now: type `use {name}` to have it serve")
            return
        self._expect(name, _Waiting(command_id, text, name))
        try:
            self.host.switch(name)
        except RuntimeError:  # the node is being cleaned up
            self._tell(False, "the node was cleaned up before the model was ready", name)

    # The methods below run on the loader's thread.

    def _load(self, name: str) -> Predictor:
        # The import is not at the top: torch takes seconds to import, and here a signal ends the process cleanly.
        from clip_seg_ros.pipeline.predictor import Predictor

        config = self._config()
        # Engines are measured when the model serves already, and is loaded a second time.
        at_once = name != self.host.name
        predictor = Predictor.from_name(name, config.device, self.weights_dir, config.precision, config.engine, at_once)
        self._warm_up(predictor)
        return predictor

    def _log_engine(self) -> None:
        """Logs which engine serves; a complaint that it is not the one that was asked for, only once."""
        chosen = self.host.predictor.chosen
        if chosen.complaint not in ("", self._complained):
            self._complained = chosen.complaint
            self._node.get_logger().warning(chosen.complaint)
        self._node.get_logger().info(f"{self.host.name} is run by {chosen}")

    def _log_caution(self) -> None:
        name, self._warned_of = self._warned_of, self.host.name
        if name != self.host.name and (words := at_start(self.host.predictor.spec, KINDS)):
            self._node.get_logger().warning(words)

    def _on_model_ready(self, name: str) -> None:
        self._on_ready()
        self._faults.clear("model")
        self._log_engine()
        self._log_caution()
        self._tell(True, f"{name} serves now", name)
        self._measure_engines()

    def _on_model_failed(self, name: str, error: Exception) -> None:
        serving = self.host.name
        note = f"{name} could not be loaded: {error}; {serving} serves on"
        # The fault is reported for every attempt, and stands until another model is in use.
        self._faults.clear("model")
        self._faults.report("model", name, note, always=True)
        if self.host.wanted == serving and name != serving:
            self._node.set_parameters([Parameter("model", value=serving)])
        self._tell(False, note, name)

    def _tell(self, good: bool, note: str, name: str | None = None) -> None:
        """Completes or fails the command that waits for the model ``name``, or for any model."""
        with self._lock:
            command = self._waiting
            # A later command may wait for another model; it is answered when that one is loaded.
            if command is not None and name in (None, command.model):
                self._waiting = None
            else:
                command = None
        if command is not None and good:
            self._status.done(command.command_id, command.text, self.with_caution(note))
        elif command is not None:
            self._status.fail(command.command_id, command.text, note)
        elif good:
            self._node.get_logger().info(note)
