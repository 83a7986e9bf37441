# SPDX-License-Identifier: Apache-2.0
"""The interface between a node, with its lifecycle, model and cameras, and the task that it carries out with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.nodes.camera.intake import Finish, TakenImage

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


class Task(ABC):
    """Defines what a node does with commands and images; it is an ``ImageTask`` as well."""

    # Hooks for the lifecycle.

    @abstractmethod
    def open(self) -> None:
        """Creates publishers and services when the node is configured; the model is loaded by then."""

    @abstractmethod
    def close(self) -> None:
        """Destroys the publishers and services when the node is cleaned up."""

    def pause(self) -> None:  # noqa: B027
        """Is called when the node has stopped listening, before ``close`` or another activation."""

    def values(self) -> dict[str, str]:
        """Returns what diagnostics tell of the task, by name."""
        return {}

    # Hooks for the model.

    @abstractmethod
    def warm_up(self, predictor: Predictor) -> None:
        """Answers a first image, because the first pass is slow; raises ValueError if task and model do not fit."""

    def on_model_ready(self) -> None:  # noqa: B027 (a task may have nothing to do then)
        """Is called on the loader's thread when another model is in use."""

    # Hooks for commands.

    @abstractmethod
    def is_mine(self, command: Command | None) -> bool:
        """Returns whether this node answers a command; ``None`` stands for a text that could not be parsed."""

    @abstractmethod
    def obey(self, command_id: int, text: str, command: Command) -> None:
        """Answers a parsed command and carries it out; the model that it names exists."""

    # Hooks for images.

    @abstractmethod
    def idle_because(self, camera: str) -> str:
        """Returns why images of a camera are not answered at the moment; empty if they are."""

    @abstractmethod
    def ask(self, images: Sequence[TakenImage], predictor: Predictor) -> list[Finish | None]:
        """Runs the model on images of different cameras; returns the rest of the work on each."""

    def afterwards(self) -> None:  # noqa: B027
        """Is called after the results of images were published, on the thread that did so: nobody waits for it."""

    def image_came(self) -> None:  # noqa: B027
        """Is called for every image on the thread that receives it, whether it will be answered or not."""

    def depth_tolerance_s(self) -> float:
        """Returns the largest difference between the stamps of colour and depth, in seconds; 0 without depth."""
        return 0.0

    def is_rectified(self) -> bool:
        """Returns whether the cameras' images are rectified; this does not matter to a task without depth."""
        return False
