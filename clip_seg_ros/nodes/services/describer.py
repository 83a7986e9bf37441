# SPDX-License-Identifier: Apache-2.0
"""The command "what do you see?", which asks one image about all names that the model has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.commands.parser import MAX_CLASSES
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.pipeline.describing import Sighting, describe
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.sim.scene import COLORS, KINDS

if TYPE_CHECKING:
    from clip_seg_ros.config import ReferringConfig
    from clip_seg_ros.nodes.camera.camera_input import CameraJob
    from clip_seg_ros.pipeline.predictor import Predictor


@dataclass(frozen=True)
class _Survey:
    """A command that waits for an image."""

    command_id: int
    text: str
    phrases: tuple[str, ...]


def names_for(spec: ModelSpec, things: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names that a model is asked about; empty if it knows any word and the user has chosen none.

    Args:
        spec: The model's spec.
        things: The parameter ``things``: phrases, or the name of one class list.

    Raises:
        ValueError: There are too many names.
    """
    if len(things) == 1 and things[0] in class_list_names():
        things = class_list(things[0])
    if len(things) > MAX_CLASSES:
        raise ValueError(f"things has {len(things)} names: at most {MAX_CLASSES}")
    if things:
        return things
    if spec.class_names is not None:
        return spec.class_names
    if not spec.known_words:
        return ()
    pairs = tuple(f"{color} {kind}" for color in COLORS for kind in KINDS)
    return tuple(phrase for phrase in pairs if not spec.unknown_words(phrase))


class Describer:
    """Carries out one command at a time on the first image after it.

    Args:
        status: Topic of the responses to commands.
        with_caution: Returns an answer with what is to be told beforehand of the model's weights.
    """

    def __init__(self, status: StatusTopic, with_caution: Callable[[str], str]) -> None:
        self._status, self._with_caution = status, with_caution
        self._survey: _Survey | None = None
        self._lock = threading.Lock()

    @property
    def is_asked(self) -> bool:
        """Whether a command waits for an image."""
        return self._survey is not None

    def ask(self, command_id: int, text: str, spec: ModelSpec, things: tuple[str, ...]) -> None:
        """Accepts the command, or rejects it if there are no names to ask about."""
        try:
            names = names_for(spec, things)
        except ValueError as error:
            self._status.reject(command_id, text, str(error))
            return
        if not names:
            note = (
                f"{spec.name} knows any word and has no list of its own: set the parameter things, for example to "
                "[cup, bottle, chair] or to a class list such as [coco_stuff171]"
            )
            self._status.reject(command_id, text, note)
            return
        note = self._with_caution(f"asking one image about {len(names)} names that {spec.name} is given")
        self._status.accept(command_id, text, note)
        with self._lock:
            earlier, self._survey = self._survey, _Survey(command_id, text, names)
        self._fail(earlier, "it was asked once more before an image came")

    def give_up(self, why: str) -> None:
        """Ends the command that waits for an image, if there is one."""
        with self._lock:
            survey, self._survey = self._survey, None
        self._fail(survey, why)

    def look(self, job: CameraJob, rgb: np.ndarray, predictor: Predictor, config: ReferringConfig) -> None:
        """Carries out the waiting command, if there is one, on an image (H, W, 3) uint8."""
        with self._lock:
            survey, self._survey = self._survey, None
        if survey is None:
            return
        try:
            seen = describe(predictor, rgb, survey.phrases, config.asked_threshold, config.min_area_fraction)
        except ValueError as error:
            self._fail(survey, str(error))
            return
        where = f" ({job.camera.name})" if job.camera.name else ""
        listed = ", ".join(map(_name, seen)) or f"nothing of the {len(survey.phrases)} things that were asked for"
        found = [sighting.phrase for sighting in seen]
        self._status.outcome(survey.command_id, survey.text, job.image.header, f"I see {listed}{where}", found, found)

    def _fail(self, survey: _Survey | None, why: str) -> None:
        if survey is not None:
            self._status.fail(survey.command_id, survey.text, why)


def _name(sighting: Sighting) -> str:
    times = f" ({sighting.count} times)" if sighting.count > 1 else ""
    return f"{sighting.phrase} {sighting.score:.2f}{times}"
