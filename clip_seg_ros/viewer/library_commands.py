# SPDX-License-Identifier: Apache-2.0
"""Carries out commands without ROS, with the same statuses in the same words as the ``referring`` node."""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Protocol

from clip_seg_ros.commands.hints import HELP
from clip_seg_ros.commands.parser import Command, CommandError, parse_command
from clip_seg_ros.commands.words import OF_MEMORY
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.command_notes import note_on, refusal
from clip_seg_ros.pipeline.describing import describe, names_for, no_names, sentence
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.tally import Tally
from clip_seg_ros.settings import OWN
from clip_seg_ros.sim.naming import colored_kinds
from clip_seg_ros.viewer.library_models import LibraryModels, Say
from clip_seg_ros.viewer.picture_answers import PictureAnswers, Request
from clip_seg_ros.viewer.playback import Shown

_CLASSES = "lists of classes are for a semantic node of ROS: name what to look for instead"
_MEMORY = (
    "nothing is remembered here, where no frame stands still: a referring node remembers, if target_frame is set; "
    '"where is the cup?" asks about the present image'
)
_QUIT = 'a command does not end this: press Ctrl-C where it was started; "stop" ends the search'


class Owner(Protocol):
    """The source whose commands they are."""

    @property
    def config(self) -> ReferringConfig: ...

    @property
    def taught(self) -> Container[str]: ...

    def set_parameter(self, name: str, value: Any) -> None: ...

    def again(self) -> None: ...


@dataclass(frozen=True)
class _Survey:
    """A command that lists what one image holds, until there is an image."""

    command_id: int
    text: str
    names: tuple[str, ...]


class LibraryCommands:
    """Obeys commands from any thread, one at a time.

    Args:
        models: The model that answers.
        answers: How images are answered.
        owner: The source.
        say: Tells the statuses of commands.
    """

    def __init__(self, models: LibraryModels, answers: PictureAnswers, owner: Owner, say: Say) -> None:
        self._models, self._answers, self._owner, self._say = models, answers, owner, say
        self._lock = threading.RLock()
        self._count = 0
        self._survey: _Survey | None = None
        self.request: Request | None = None
        """What every image is asked for; ``None``: nothing."""

    def give(self, text: str) -> None:
        """Carries out a command, or rejects it."""
        with self._lock:
            self._count += 1
            number = self._count
            try:
                command = parse_command(text)
            except CommandError as error:
                self._say(number, text, "rejected", str(error))
                return
            if fault := self._refusal(text, command):
                self._say(number, text, "rejected", fault)
            elif command.verb == "use":
                self._set_threshold(command)
                self._models.obey(number, text, str(command.model))
            elif command.verb == "describe":
                self._ask_survey(number, text)
            elif command.prompts:
                self._ask(number, text, command)
            else:
                self._do(number, text, command)

    def _refusal(self, text: str, command: Command) -> str:
        """Returns why a command is not for this viewer or is probably misspelt; empty for all others."""
        if command.verb in OF_MEMORY:
            return _MEMORY
        if command.verb == "classes":
            return _CLASSES
        if command.verb == "quit":
            return _QUIT
        if command.model is not None and command.verb != "use":
            try:
                self._models.require(command.model)
            except (ValueError, WeightsError) as error:
                return str(error)
        return refusal(text, command, self._models.host.predictor.spec, self._owner.taught) if command.prompts else ""

    def _ask(self, number: int, text: str, command: Command) -> None:
        self._set_threshold(command)
        spec = self._models.host.predictor.spec
        request = Request(
            number, text, command.prompts, command.references, command.negatives, Tally(command.prompts), command.model
        )
        note = note_on(command, spec, self._owner.taught, text, self._answers.asking(request, spec))
        # Of the model that a command names, the answer that it serves has the caution.
        note = note if command.model is not None else self._models.with_caution(note)
        self._say(number, text, "accepted", note, prompts=list(command.prompts))
        if command.model is not None:
            self._models.use(number, text, command.model)
        self.request = request
        self._owner.again()

    def _do(self, number: int, text: str, command: Command) -> None:
        self._set_threshold(command)
        notes = {"stop": "stopped", "clear": "cleared", "help": HELP, "threshold": self._of_threshold(command)}
        if command.verb in ("stop", "clear"):
            self._give_up_survey(f'"{command.verb}" came before an image')
            self.request = None
        self._say(number, text, "accepted", notes[command.verb])
        if command.verb == "clear":
            self._owner.again()

    def _of_threshold(self, command: Command) -> str:
        spec = self._models.host.predictor.spec
        if command.threshold is None:
            return f"each model's own threshold is in force, which for {spec.name} is {spec.threshold:g}"
        return f"threshold set to {command.threshold:g}"

    def _set_threshold(self, command: Command) -> None:
        if command.threshold is not None or command.verb == "threshold":
            self._owner.set_parameter("threshold", OWN if command.threshold is None else command.threshold)

    def _ask_survey(self, number: int, text: str) -> None:
        spec = self._models.host.predictor.spec
        try:
            names = names_for(spec, self._owner.config.things, colored_kinds())
        except ValueError as error:
            self._say(number, text, "rejected", str(error))
            return
        if not names:
            self._say(number, text, "rejected", no_names(spec))
            return
        self._give_up_survey("it was asked once more before an image came")
        note = self._models.with_caution(f"asking one image about {len(names)} names that {spec.name} is given")
        self._say(number, text, "accepted", note)
        self._survey = _Survey(number, text, names)
        self._owner.again()

    def _give_up_survey(self, why: str) -> None:
        survey, self._survey = self._survey, None
        if survey is not None:
            self._say(survey.command_id, survey.text, "failed", why)

    # On the thread that answers images.

    def describe(self, predictor: Predictor, shown: Shown) -> None:
        """Lists what an image holds, if that was asked."""
        with self._lock:
            survey, self._survey = self._survey, None
        if survey is None:
            return
        config = self._owner.config
        try:
            rgb = shown.frame.rgb
            seen = describe(predictor, rgb, survey.names, config.asked_threshold, config.min_area_fraction)
        except Exception as error:  # whatever it is, whoever asked must hear of it
            self._say(survey.command_id, survey.text, "failed", str(error))
            return
        found = [each.phrase for each in seen]
        self._tell_found(survey.command_id, survey.text, sentence(seen, len(survey.names)), found, found)

    def tell_outcome(self, request: Request | None) -> None:
        """Tells once what became of a request, after an image was answered for it by the model that it asks for."""
        if request is None or request.told or (request.model is not None and self._models.is_switching):
            return
        request.told = True
        tally = request.tally
        self._tell_found(request.command_id, request.text, tally.note(), list(request.prompts), tally.found)

    def refuse(self, request: Request | None, why: str) -> None:
        """Tells once that a request failed."""
        if request is not None and not request.told:
            request.told = True
            self._say(request.command_id, request.text, "failed", why)

    def fail(self, why: str) -> None:
        """Tells once that whatever waits for an image has failed."""
        self.refuse(self.request, why)

    def _tell_found(self, number: int, text: str, note: str, prompts: list[str], found: list[str]) -> None:
        state = "found" if found else "not found"
        note = "; ".join(filter(None, (note, self._models.caution())))
        self._say(number, text, state, note, prompts=prompts, found=found)
