# SPDX-License-Identifier: Apache-2.0
"""The command "what do you see?", which asks one image about all names that the model has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.pipeline.describing import describe, names_for, no_names, sentence
from clip_seg_ros.sim.naming import colored_kinds

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
            names = names_for(spec, things, colored_kinds())
        except ValueError as error:
            self._status.reject(command_id, text, str(error))
            return
        if not names:
            self._status.reject(command_id, text, no_names(spec))
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
        note = f"{sentence(seen, len(survey.phrases))}{where}"
        found = [sighting.phrase for sighting in seen]
        self._status.outcome(survey.command_id, survey.text, job.image.header, note, found, found)

    def _fail(self, survey: _Survey | None, why: str) -> None:
        if survey is not None:
            self._status.fail(survey.command_id, survey.text, why)
