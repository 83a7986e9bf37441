# SPDX-License-Identifier: Apache-2.0
"""The contract between a node, which has a life, a model and cameras, and what it does with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.nodes.camera.camera_input import CameraJob

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


class Task(ABC):
    """What a node does with commands and images; it is an ``ImageTask`` as well."""

    # Life.

    @abstractmethod
    def open(self) -> None:
        """Creates publishers and services, when the node is configured; the model is there."""

    @abstractmethod
    def close(self) -> None:
        """Takes them away, when the node is cleaned up."""

    # The model.

    @abstractmethod
    def warm_up(self, predictor: Predictor) -> None:
        """Answers a first image, for the first pass is slow; raises ValueError where task and model do not fit."""

    def on_model_ready(self) -> None:  # noqa: B027 (a task may have nothing to do then)
        """Takes note, on the loader's thread, that another model has begun to serve."""

    # Commands.

    @abstractmethod
    def is_mine(self, command: Command | None) -> bool:
        """Returns whether a command is for this node to answer; ``None`` is one that nobody understands."""

    @abstractmethod
    def obey(self, command_id: int, text: str, command: Command) -> None:
        """Answers a command that the language knows, and does it; the model that it names is there."""

    # Images.

    @abstractmethod
    def idle_because(self, camera: str) -> str:
        """Returns why an image of a camera is not answered at the moment; empty where it is."""

    @abstractmethod
    def answer(self, job: CameraJob, rgb: np.ndarray, predictor: Predictor) -> bool:
        """Answers one image (H, W, 3) on the worker's thread; returns whether anything was published."""

    def image_came(self) -> None:  # noqa: B027
        """Takes note of an image, on the thread that takes them, whether it will be answered or not."""

    def depth_tolerance_s(self) -> float:
        """Returns how far the stamps of colour and depth may differ, in seconds; 0 for a task without depth."""
        return 0.0

    def is_rectified(self) -> bool:
        """Returns whether the cameras' images are rectified; of no interest to a task without depth."""
        return False
