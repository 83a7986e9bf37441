# SPDX-License-Identifier: Apache-2.0
"""What the viewer shows and commands: running nodes, or pictures on this machine. Both look alike to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clip_seg_ros.settings import Parameter
from clip_seg_ros.viewer.views import ModelChoice, Thing, View, Wanted

Event = dict[str, Any]
"""Something that happened, as plain values; ``"event"`` says what:

- ``status``: a status of a command, with ``id``, ``command``, ``state`` (accepted, rejected, found, not found, done or
  failed), ``message``, ``prompts`` and ``found``.
- ``health``: once a second ``level`` (ok, warn or error), ``message``, and ``values``, a table of texts for people.
- ``cameras``: ``cameras``, the names of all cameras; sent when they change.
- ``parameter``: ``name`` and its new ``value``, whoever changed it.
- ``model``: ``name`` of the model that serves now.
- ``gone`` and ``back``: whether there is anything to show or command; ``message`` says what is missing, and what to do.
- ``playing``: ``playing``, whether pictures follow by themselves from now on, for a source that can pause.
- ``picked``: a viewer clicked the thing ``id`` of ``camera`` in the view in 3D; of the server, to that viewer alone.
- ``ended``: the source has no more pictures; ``message`` says so.
"""


class Refused(Exception):
    """What was asked for is not possible; the message says why, and what to do."""


class Listener(Protocol):
    """Takes what a source shows and tells. It may be called from any thread and never waits."""

    def show(self, view: View) -> None:
        """Takes the newest image of a camera."""

    def tell(self, event: Event) -> None:
        """Takes an event."""


@dataclass(frozen=True)
class Pointed:
    """The thing at which somebody pointed."""

    message: str
    """What it is, for people, such as "blue box, 0.412 m away"."""
    thing: Thing
    """``prompt`` is the name that fits best, or empty; ``id`` is 0."""
    frame: str
    """Name of the frame of its position."""
    labels: Any = None
    """(H, W) bool array, its mask in the image."""
    nearest: str = ""
    """What it is closest to, for people, such as "closest to the red cup, 12 cm"; empty if that is not known."""


class Source(Protocol):
    """Shows images with what was found in them, and takes commands.

    Methods may be called from several threads. Those that wait do so for a few seconds at most.
    """

    title: str
    """What is shown, for people, such as "/clip_seg" or "holiday.mp4"."""
    can_pause: bool
    """Whether ``play`` stops the pictures themselves."""

    @property
    def is_playing(self) -> bool:
        """Whether pictures follow by themselves."""

    def start(self, listener: Listener) -> None:
        """Begins to show and tell. Nothing is shown before ``want`` says that somebody looks."""

    def stop(self) -> None:
        """Ends; nothing is shown or told afterwards."""

    def want(self, wanted: Wanted) -> None:
        """Says what somebody looks at from now on."""

    def cameras(self) -> Sequence[str]:
        """Returns the names of all cameras."""

    def command(self, text: str) -> None:
        """Gives a command; its statuses come as events.

        Raises:
            Refused: Nobody is there to obey.
        """

    def parameters(self) -> Sequence[tuple[Parameter, Any]]:
        """Returns the parameters that may change at any time, with their values.

        Raises:
            Refused: Nobody answers.
        """

    def set_parameter(self, name: str, value: Any) -> None:
        """Changes a parameter.

        Raises:
            Refused: The value is not allowed, or nobody answers.
        """

    def models(self) -> Sequence[ModelChoice]:
        """Returns the models that the command "use NAME" takes."""

    def point(self, camera: str, spot_px: Sequence[float], teach_as: str = "") -> Pointed:
        """Returns the thing at (x, y), or in the box (x_min, y_min, x_max, y_max), in pixels of the newest image.

        Args:
            camera: Whose image.
            spot_px: Two numbers for a point, four for a box.
            teach_as: A name by which things like this one can be asked for from now on; empty: none.

        Raises:
            Refused: Nothing is there, or nobody answers.
        """

    def play(self, how: str) -> None:
        """Takes "pause", "go" or "step", the next image alone; only where ``can_pause``."""
