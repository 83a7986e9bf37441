# SPDX-License-Identifier: Apache-2.0
"""A source of the viewer that works without ROS: pictures, videos, webcams and bags, answered in this process.

playback --newest image--> worker --view--> listener
command, parameter, model, what somebody looks at: the newest image is answered anew
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np

from clip_seg_ros.annotation.answers import camera_frame
from clip_seg_ros.config import AUTO, ReferringConfig
from clip_seg_ros.pipeline.describing import names_for
from clip_seg_ros.pipeline.latest_worker import LatestWorker
from clip_seg_ros.pipeline.naming import checked_name
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.settings import Parameter
from clip_seg_ros.settings import parameters as parameters_of
from clip_seg_ros.sim.naming import colored_kinds
from clip_seg_ros.sources.frame import Frames
from clip_seg_ros.types import ObjectRegion
from clip_seg_ros.viewer.library_commands import LibraryCommands
from clip_seg_ros.viewer.library_models import LibraryModels
from clip_seg_ros.viewer.library_pointing import name_of, pointed, region_at
from clip_seg_ros.viewer.models import model_choices
from clip_seg_ros.viewer.picture_answers import PictureAnswers
from clip_seg_ros.viewer.playback import Playback, Shown
from clip_seg_ros.viewer.source import Listener, Pointed, Refused
from clip_seg_ros.viewer.views import ModelChoice, View, Wanted
from clip_seg_ros.zoo.caution import in_corner

PARAMETERS = (
    "threshold",
    "min_area_fraction",
    "smoothing",
    "hysteresis",
    "track_age_s",
    "refine_edges",
    "separate_touching",
    "relations",
    "max_points",
    "things",
)
"""The parameters of ``ReferringConfig`` that mean something without a robot."""
_PERIOD_S = 1.0
"""The time between two statuses of the health."""
_MOST_TAUGHT = 64


class LibrarySource:
    """Answers the images of files, a webcam or a bag.

    Args:
        frames: The images, from ``open_frames``.
        model: The model to begin with: a name, the path of a weight file, or "auto".
        command: The command to begin with; empty: none.
        loops: Whether folders and recordings begin anew at their end.
        device: The device of the models.
        engine: What runs them, one of ``ENGINE_NAMES``.
    """

    can_pause = True

    def __init__(
        self,
        frames: Frames,
        model: str = AUTO,
        command: str = "",
        loops: bool = False,
        device: str = "auto",
        engine: str = AUTO,
    ) -> None:
        self.title, self._frames, self._first_command = frames.title, frames, command
        self._config = ReferringConfig()
        self._listener: Listener | None = None
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._shown: Shown | None = None
        self._viewed: tuple[Shown, View] | None = None
        self._wanted = Wanted()
        self._asked_s = 0.0
        self._taught: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._fault = self._lost = ""
        self._answered: deque[tuple[float, float]] = deque(maxlen=200)
        """When images were answered, by the monotonic clock, and how long that took, both in seconds."""
        self._answers = PictureAnswers(lambda: self._config, frames.kind == "still")
        self._playback = Playback(frames, self._on_image, self._on_end, loops)
        self._models = LibraryModels(model, device, engine, self._say, self._teach, self._on_model, self.again)
        self._commands = LibraryCommands(self._models, self._answers, self, self._say)

    # The source.

    def start(self, listener: Listener) -> None:
        """Loads the model, which takes seconds, and begins.

        Raises:
            ValueError: There is no such model, or the device or the engine cannot be had.
            WeightsError: Its weights are missing or damaged.
        """
        self._models.start()
        self._worker: LatestWorker[None] = LatestWorker(self._work, self._on_fault)
        self._listener = listener
        self._tell("cameras", cameras=list(self.cameras()))
        self._tell("model", name=self._models.host.name)
        if self._first_command:
            self.command(self._first_command)
        self._playback.start()
        self._health = threading.Thread(target=self._tell_health, name="health", daemon=True)
        self._health.start()

    def stop(self) -> None:
        """Ends; nothing is shown or told afterwards."""
        self._ended.set()
        self._playback.stop()
        if self._listener is not None:
            self._worker.close()
        self._models.stop()
        self._listener = None

    def want(self, wanted: Wanted) -> None:
        """Says what somebody looks at from now on."""
        before, self._wanted = self._wanted, wanted
        self._playback.watch(bool(wanted.cameras))
        if wanted.cameras and wanted != before:
            self.again()

    def cameras(self) -> Sequence[str]:
        """Returns one camera without a name."""
        return ("",)

    def command(self, text: str) -> None:
        """Gives a command; its statuses come as events."""
        self._require_listener()
        self._commands.give(text)

    def parameters(self) -> Sequence[tuple[Parameter, Any]]:
        """Returns the parameters in ``PARAMETERS``, with their values."""
        config, known = self._config, parameters_of(ReferringConfig)
        return [(each, getattr(config, each.name)) for each in known if each.name in PARAMETERS]

    def set_parameter(self, name: str, value: Any) -> None:
        """Changes a parameter, and answers the newest image anew. Raises Refused if the value is not allowed."""
        if name not in PARAMETERS:
            raise Refused(f"there is no parameter {name} here: there are {', '.join(PARAMETERS)}")
        with self._lock:
            values = {each.name: getattr(self._config, each.name) for each in fields(self._config)}
            try:
                self._config = ReferringConfig.from_mapping({**values, name: value})
            except ValueError as error:
                raise Refused(str(error)) from error
            value = getattr(self._config, name)
        self._tell("parameter", name=name, value=list(value) if isinstance(value, tuple) else value)
        self.again()

    def models(self) -> Sequence[ModelChoice]:
        """Returns the models that the command "use NAME" takes; those that were published are fetched if need be."""
        return model_choices()

    def point(self, camera: str, spot_px: Sequence[float], teach_as: str = "") -> Pointed:
        """Returns the thing at a point or in a box of the newest image, and gives it a name.

        Raises:
            Refused: Nothing is there, no image has come yet, or the name or the model is not suitable.
        """
        if camera:
            raise Refused(f'there is no camera "{camera}": the only one has no name')
        # What somebody sees, while the next image may be there already.
        shown, view = self._viewed or (self._shown, None)
        if shown is None:
            raise Refused("no image has come yet")
        try:
            predictor = self._models.host.predictor
            name = checked_name(teach_as) if teach_as.strip() else ""
            encoded = self._answers.encoded(predictor, shown)
            region = region_at(predictor, encoded, camera_frame(shown.frame), spot_px)
            if name:
                self._learn(predictor, name, shown.frame.rgb, region.mask)
            best = name or self._name(predictor, encoded, region)
        except (ValueError, RuntimeError) as error:
            raise Refused(str(error)) from error
        return pointed(region, best, view, name)

    def play(self, how: str) -> None:
        """Takes "pause", "go" or "step", the next image alone. Raises Refused for others."""
        if how not in ("pause", "go", "step"):
            raise Refused(f'"{how}" is not understood: use pause, go or step')
        self._playback.play(cast(Any, how))
        self._tell("playing", playing=self.is_playing)

    @property
    def is_playing(self) -> bool:
        """Whether images follow by themselves."""
        return self._playback.is_playing

    # What its parts need.

    @property
    def config(self) -> ReferringConfig:
        """The present parameters."""
        return self._config

    @property
    def taught(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The image (H, W, 3) uint8 and the mask (H, W) bool of every name that was taught."""
        return self._taught

    def again(self) -> None:
        """Answers the newest image anew."""
        self._asked_s = time.monotonic()
        if self._listener is not None:
            self._worker.put(None)

    def _name(self, predictor: Predictor, encoded: EncodedImage, region: ObjectRegion) -> str:
        """Returns the name of a thing: of what was asked or taught, or else of what the model knows by itself."""
        request = self._commands.request
        asked = self._answers.asking(request, predictor.spec).names if request is not None else ()
        known = names_for(predictor.spec, self._config.things, colored_kinds())
        for names in ((*asked, *self._taught), known):
            if names and (name := name_of(predictor, encoded, region, tuple(dict.fromkeys(names)))):
                return name
        return ""

    def _learn(self, predictor: Predictor, name: str, rgb: np.ndarray, mask: np.ndarray) -> None:
        """Makes a name mean a thing. Raises ValueError if the model takes no examples, or there are too many."""
        if len(self._taught) >= _MOST_TAUGHT and name not in self._taught:
            raise ValueError(f"{_MOST_TAUGHT} names were taught already: teach one of them anew")
        predictor.add_image_prompt(name, rgb, mask)
        with self._lock:
            self._taught[name] = (rgb, mask)
        self._answers.forget(name)
        self.again()

    def _teach(self, predictor: Predictor) -> None:
        with self._lock:
            taught = dict(self._taught)
        self._lost = ""
        for name, (rgb, mask) in taught.items():
            try:
                predictor.add_image_prompt(name, rgb, mask)
            except ValueError as error:
                self._lost = f'"{name}" means its words with {predictor.spec.name}: {error}'

    # Events.

    def _on_image(self, shown: Shown) -> None:
        self._shown = shown
        self._worker.put(None)

    def _on_end(self, message: str) -> None:
        self._tell("ended", message=message)
        self._tell("playing", playing=False)

    def _on_model(self, name: str) -> None:
        self._tell("model", name=name)
        self.again()

    def _on_fault(self, error: Exception) -> None:
        self._fault = f"{type(error).__name__}: {error}"
        self._commands.fail(self._fault)

    def _work(self, _: None) -> None:
        """Answers the newest image, if anybody looks at it or waits for its answer."""
        shown, wanted, request = self._shown, self._wanted, self._commands.request
        if shown is None:
            return
        predictor = self._models.host.predictor
        self._commands.describe(predictor, shown)
        if not wanted.cameras and (request is None or request.told):
            return
        begin_s = time.monotonic()
        try:
            view = self._answers.answer(predictor, shown, request, wanted, self._asked_s)
        except ValueError as error:
            self._fault = str(error)
            self._commands.refuse(request, str(error))
            view = self._answers.answer(predictor, shown, None, wanted, self._asked_s)
        else:
            self._fault = ""
        now_s = time.monotonic()
        self._answered.append((now_s, now_s - begin_s))
        if self._commands.request is not request:
            return  # the newest image is answered anew for the command that came meanwhile
        self._commands.tell_outcome(request)
        listener = self._listener
        if self._wanted.cameras and listener is not None and not self._ended.is_set():
            self._viewed = shown, view
            listener.show(view)

    def _tell_health(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            try:
                level, message, values = self._state()
            except RuntimeError:  # the model is gone
                return
            self._tell("health", level=level, message=message, values=values)

    def _state(self) -> tuple[str, str, dict[str, str]]:
        predictor, name = self._models.host.predictor, self._models.host.name
        now_s = time.monotonic()
        answered = list(self._answered)
        recent = sum(1 for at_s, _ in answered if now_s - at_s <= _PERIOD_S)
        shown = self._shown
        values = {
            "images answered per second": str(recent),
            "model": str(name),
            "engine": str(predictor.chosen),
            "device": str(predictor.device),
            "source": self.title,
            "position": shown.position if shown is not None else "no image yet",
            "playing": "yes" if self._playback.is_playing else "no",
        }
        if answered:
            values["ms for an image, median"] = f"{1000 * float(np.median([took_s for _, took_s in answered])):.1f}"
        if self._frames.notes:
            values["not there"] = "; ".join(self._frames.notes)
        if self._models.progress:
            values["being fetched"] = self._models.progress
        wrong = [*filter(None, (self._fault, self._lost, self._answers.fault)), *self._frames.faults[:5]]
        message = "; ".join(filter(None, (f"{name} serves", in_corner(predictor.spec))))
        return ("warn", "; ".join(wrong), values) if wrong else ("ok", message, values)

    def _say(self, command_id: int, text: str, state: str, message: str, **more: Any) -> None:
        """Tells a status of a command."""
        told = {"prompts": [], "found": [], **more}
        self._tell("status", id=command_id, command=text[:200], state=state, message=message, **told)

    def _tell(self, event: str, **values: Any) -> None:
        # Without the lock: a listener has one of its own, under which it may call this source.
        listener = self._listener
        if listener is not None and not self._ended.is_set():
            listener.tell({"event": event, **values})

    def _require_listener(self) -> None:
        if self._listener is None or self._ended.is_set():
            raise Refused("the viewer has not begun, or has ended")
