# SPDX-License-Identifier: Apache-2.0
"""The model of a viewer without ROS: it is loaded, replaced and fetched while another one goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clip_seg_ros.config import AUTO
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.caution import in_commands, in_corner
from clip_seg_ros.zoo.factory import full_name
from clip_seg_ros.zoo.fetching import NotFetched, announcement, fetch
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS, fetched_by_hand

_ENDED = "the viewer was ended before the model was ready"


class Say(Protocol):
    """Tells a status of a command."""

    def __call__(self, command_id: int, text: str, state: str, message: str, **more: Any) -> None: ...


@dataclass(frozen=True)
class _Waiting:
    """A command that is completed when its model serves."""

    command_id: int
    text: str
    model: str


class LibraryModels:
    """Holds the model that answers.

    Args:
        model: The first model: a name, the path of a weight file, or "auto".
        device: Device of the models.
        engine: What runs them; "auto" is measured while PyTorch serves.
        say: Tells the statuses of commands.
        prepare: Called with each model before it serves, for example to teach it; on the loader's thread.
        on_ready: Called with the name of each model that serves from now on, likewise.
        on_failed: Called when a model could not be loaded, likewise.
    """

    def __init__(
        self,
        model: str,
        device: str,
        engine: str,
        say: Say,
        prepare: Callable[[Predictor], None],
        on_ready: Callable[[str], None],
        on_failed: Callable[[], None],
    ) -> None:
        self._model, self._device, self._engine, self._say = model, device, engine, say
        self._prepare, self._on_ready, self._on_failed = prepare, on_ready, on_failed
        self.host = ModelHost(self._load, self._on_model_ready, self._on_model_failed)
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None
        self._fetching: threading.Thread | None = None
        self._uses = 0
        """How many times a model was asked for."""
        self._ended = threading.Event()
        self._cautioned_of: str | None = None
        self.progress = ""
        """What is being fetched, and how far it is; empty if nothing is."""

    def start(self) -> None:
        """Loads the first model on the caller's thread.

        Raises:
            ValueError: There is no such model, or the device or the engine cannot be had.
            WeightsError: Its weights are missing or damaged; the message says what to do.
        """
        name = full_name(self._model)
        if self.host.name is None:
            self.host.start(name)
        self._measure_engines()

    def stop(self) -> None:
        """Unloads the model, and fails the command that waits for another one."""
        self._ended.set()
        if self._fetching is not None:  # its process must not outlive this one
            self._fetching.join(timeout=5.0)
        self.host.unload()
        self._complete(False, _ENDED)

    def with_caution(self, answer: str) -> str:
        """Adds the caution that weights know the simulated table alone, in full to the first answer of each model."""
        spec = self.host.predictor.spec
        with self._lock:
            is_told, self._cautioned_of = self._cautioned_of == self.host.name, self.host.name
        told = self.caution() if is_told else in_commands(spec)
        return "; ".join(filter(None, (answer, told)))

    def caution(self) -> str:
        """Returns the short caution for each answer of an embedded model that nobody chose; empty otherwise."""
        return in_corner(self.host.predictor.spec) if self._model == AUTO else ""

    def obey(self, command_id: int, text: str, model: str) -> None:
        """Carries out a command that asks for a model; fetches weights that were published and are not here."""
        try:
            name = self.require(model)
        except WeightsError as error:
            if model in PUBLIC_WEIGHTS:
                self._fetch(command_id, text, model)
            else:
                self._say(command_id, text, "rejected", str(error))
            return
        except ValueError as error:
            self._say(command_id, text, "rejected", str(error))
            return
        self._say(command_id, text, "accepted", f"loading {name}; {self.host.name} serves until it is ready")
        self._use(command_id, text, name)

    def require(self, model: str) -> str:
        """Returns the full name of a model whose weights are here.

        Raises:
            ValueError: There is no such model; files are named by whoever starts the viewer, and by nobody else.
            WeightsError: Its weights are not here.
        """
        return full_name(model, allow_paths=model == self._model)

    def use(self, command_id: int, text: str, model: str) -> None:
        """Loads a model whose weights are here, for a command that was accepted."""
        self._use(command_id, text, self.require(model))

    @property
    def is_switching(self) -> bool:
        """Whether another model than the present one was asked for."""
        return self.host.wanted != self.host.name

    def _use(self, command_id: int, text: str, name: str) -> None:
        with self._lock:
            self._uses += 1
            earlier, self._waiting = self._waiting, _Waiting(command_id, text, name)
        if earlier is not None:
            self._say(earlier.command_id, earlier.text, "failed", f"{name} was asked for before this was done")
        try:
            self.host.switch(name)
        except RuntimeError:  # the viewer ends
            self._complete(False, _ENDED)

    def _fetch(self, command_id: int, text: str, name: str) -> None:
        if by_hand := fetched_by_hand(name):
            self._say(command_id, text, "rejected", by_hand)
            return
        with self._lock:
            busy, self.progress = self.progress, self.progress or f"{name}: the hub is asked"
        if busy:
            self._say(command_id, text, "rejected", f"something is being fetched already ({busy}): wait for it")
            return
        self._say(command_id, text, "accepted", announcement(name, self.host.name))
        arguments = (command_id, text, name)
        self._fetching = threading.Thread(target=self._run_fetch, args=arguments, name="fetching", daemon=True)
        self._fetching.start()

    def _run_fetch(self, command_id: int, text: str, name: str) -> None:
        uses = self._uses

        def on_progress(progress: str, is_step: bool) -> None:
            self.progress = progress
            if is_step and not self._ended.is_set():
                self._say(command_id, text, "accepted", progress)

        try:
            fetch(name, self._ended, on_progress)
        except (NotFetched, ValueError, WeightsError, OSError) as error:
            why = f"{name} was not fetched: {error}; {self.host.name} serves on"
            self._say(command_id, text, "failed", why)
            return
        finally:
            self.progress = ""
        if self._ended.is_set():
            return
        if self._uses == uses:
            self._use(command_id, text, name)
        else:  # whoever has chosen another one meanwhile keeps it
            self._say(command_id, text, "done", f"{name} is there now: type `use {name}` to have it serve")

    # On the loader's thread.

    def _load(self, name: str) -> Predictor:
        # Engines are measured when the model serves already, and is loaded a second time.
        at_once = name != self.host.name
        predictor = Predictor.from_name(name, self._device, engine=self._engine, at_once=at_once)
        predictor.predict(np.zeros((480, 640, 3), np.uint8), predictor.spec.class_names or ("object",))
        self._prepare(predictor)
        return predictor

    def _measure_engines(self) -> None:
        name = self.host.name
        if name is not None and self.host.wanted == name and self.host.predictor.chosen.is_provisional:
            self.host.switch(name, again=True)

    def _on_model_ready(self, name: str) -> None:
        self._on_ready(name)
        self._complete(True, f"{name} serves now", name)
        self._measure_engines()

    def _on_model_failed(self, name: str, error: Exception) -> None:
        self._complete(False, f"{name} could not be loaded: {error}; {self.host.name} serves on", name)
        self._on_failed()

    def _complete(self, good: bool, note: str, name: str | None = None) -> None:
        """Completes or fails the command that waits for the model ``name``, or for any model."""
        with self._lock:
            command = self._waiting
            if command is None or name not in (None, command.model):
                return
            self._waiting = None
        if good:
            self._say(command.command_id, command.text, "done", self.with_caution(note))
        else:
            self._say(command.command_id, command.text, "failed", note)
