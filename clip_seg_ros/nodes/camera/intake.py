# SPDX-License-Identifier: Apache-2.0
"""The way of images through a node: one thread takes them from all cameras, another one processes the newest."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import rclpy
from rclpy.subscription import Subscription

from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.input_watch import InputWatch
from clip_seg_ros.nodes.camera.rate_limit import RateLimit
from clip_seg_ros.nodes.camera.subscription_thread import SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.pipeline.latest_worker import LatestWorker
from clip_seg_ros.pipeline.second_stage import SecondStage

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


MAX_BATCH = 8
"""The number of cameras whose images a GPU answers in one batch."""
Finish = Callable[[], bool]
"""The rest of the work on an image: makes and publishes the results, and returns whether there were any."""


@dataclass(frozen=True)
class TakenImage:
    """An image that was taken from a camera and decoded."""

    job: CameraJob
    rgb: np.ndarray
    """(H, W, 3) uint8."""


@dataclass(frozen=True)
class Spent:
    """The parts of the time that one image took, in seconds; the rest of it is spent by the node itself."""

    waiting: float
    """Waiting until the worker had finished the image before."""
    model: float
    """Running the model, from the image's bytes to probabilities."""


class ImageTask(Protocol):
    """The task of a node: it defines how an image is processed."""

    def idle_because(self, camera: str) -> str:
        """Returns why images of a camera are not processed at the moment; empty if they are."""

    def image_came(self) -> None:
        """Notes an arrived image on the thread that takes images, whether it will be processed or not."""

    def ask(self, images: Sequence[TakenImage], predictor: Predictor) -> list[Finish | None]:
        """Runs the model on images of different cameras, on the worker's thread.

        Returns:
            For each image the rest of the work, which needs no model; ``None`` if there is none.
        """

    def afterwards(self) -> None:
        """Does what nobody waits for, on the thread that has just published and counted the results of images."""

    def depth_tolerance_s(self) -> float:
        """Returns how far the stamps of colour and depth may differ, in seconds."""

    def is_rectified(self) -> bool:
        """Returns whether the cameras' images are rectified."""


class ImageCounts(Protocol):
    """Counts the images that were dropped and processed."""

    def dropped(self, camera: CameraInput) -> None:
        """Notes that a newer image replaced one that was still waiting."""

    def answered(self, job: CameraJob, spent: Spent) -> None:
        """Notes that the results of an image were published just now."""


class Intake:
    """Subscribes to the cameras and has the newest image of each processed.

    Args:
        core: The objects that the parts of the node share.
        predictor: Returns the predictor that is in service.
    """

    def __init__(self, core: NodeCore, predictor: Callable[[], Predictor]) -> None:
        self._core, self._predictor = core, predictor
        self.cameras: tuple[CameraInput, ...] = ()
        """The cameras that the node subscribes to at the moment."""
        self._listener: SubscriptionThread | None = None
        self._worker: LatestWorker[CameraJob] | None = None
        self._watch: InputWatch | None = None
        self._rate = RateLimit(lambda: core.config.max_rate_hz)
        self._free_s = 0.0
        """When the worker finished its last image, by the clock of ``CameraJob.came_s``."""
        # They are held while the model is asked about an image, and while the rest of the work on it is done: what is
        # still in progress after ``stop`` is ended before the same is done for the first image after the next
        # ``start``, because both use the same streams.
        self._working, self._finishing = threading.Lock(), threading.Lock()

    def start(self, task: ImageTask, counts: ImageCounts, commands: Subscription) -> None:
        """Subscribes to the cameras that the settings name.

        Args:
            task: Processes the images.
            counts: Counts the images that were dropped and processed.
            commands: Subscription to commands. It is watched like those of the cameras, and a publisher that cannot
                reach it is reported.
        """
        core, config = self._core, self._core.config
        self._task, self._counts = task, counts
        self._worker = LatestWorker(self._work, self._on_work_error)
        self._results = SecondStage(self._on_work_error)
        group = own_thread_group()
        self.cameras = tuple(
            CameraInput(
                core.node,
                topics,
                config.image_transport,
                task.depth_tolerance_s,
                task.is_rectified,
                core.faults,
                self._on_job,
                group,
            )
            for topics in config.cameras()
        )
        inputs = [each.subscription for camera in self.cameras for each in camera.inputs]
        self._listener = SubscriptionThread(inputs, core.node.context, self._on_input_error)
        self._watch = InputWatch(core.node, core.faults, self.cameras, commands, self._wants_images)

    def stop(self) -> None:
        """Ends the subscriptions; results of an image that is still being processed will not be published."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for camera in self.cameras:
            camera.close()
        self.cameras = ()
        if self._worker is not None:
            # Both are ended, also where the first one is still at work.
            ended = [self._worker.close(), self._results.close()]
            if not all(ended):
                note = "an image is still being answered; its answer will not be published"
                self._core.node.get_logger().warning(note)
            self._worker = None

    def serves(self, camera: CameraInput) -> bool:
        """Returns whether results of this camera are to be published; not for a camera from before the last start."""
        return self._core.active and camera in self.cameras

    def _wants_images(self) -> bool:
        return any(not self._task.idle_because(camera.name) for camera in self.cameras)

    def _on_job(self, job: CameraJob) -> None:
        self._task.image_came()
        self._core.faults.clear("input")
        worker, camera = self._worker, job.camera
        if worker is None or self._task.idle_because(camera.name) or not self._rate.lets_pass(camera.name, job.came_s):
            return
        if worker.put(job, camera):
            self._counts.dropped(camera)

    def _work(self, job: CameraJob) -> None:
        with self._working:
            worker, predictor = self._worker, self._predictor()
            # On a GPU, images of several cameras take hardly longer than one, and what follows the model is done beside
            # the next images. On a processor, both would only make the first results wait.
            on_gpu = predictor.device.type != "cpu"
            jobs = [job, *worker.take(MAX_BATCH - 1)] if on_gpu and worker is not None else [job]
            jobs = [each for each in jobs if self.serves(each.camera)]
            if jobs:
                self._answer(jobs, predictor, on_gpu)

    def _answer(self, jobs: Sequence[CameraJob], predictor: Predictor, beside: bool) -> None:
        waited_s = max(0.0, self._free_s - jobs[0].came_s)
        before_s = predictor.seconds
        images: list[TakenImage] = []
        try:
            decoded = [(job, job.camera.rgb(job)) for job in jobs]
            images = [TakenImage(job, rgb) for job, rgb in decoded if rgb is not None]
            rest = self._task.ask(images, predictor) if images else []
            spent = Spent(waited_s, (predictor.seconds - before_s) / max(1, len(images)))
            todo = [(image.job, finish) for image, finish in zip(images, rest, strict=True) if finish is not None]
            if todo:
                self._results.do(lambda: self._finish(todo, spent), beside)
        finally:
            self._free_s = time.monotonic()
            for image in images:
                self._core.sizes.saw(image.job.camera.name, image.rgb.shape)

    def _finish(self, todo: Sequence[tuple[CameraJob, Finish]], spent: Spent) -> None:
        with self._finishing:
            for job, finish in todo:
                try:
                    if finish():
                        self._counts.answered(job, spent)
                        self._core.faults.clear("inference")
                except Exception as error:  # the other cameras' results are published all the same
                    self._on_work_error(error)
            self._task.afterwards()

    def _on_input_error(self, error: Exception) -> None:
        note = f"a message cannot be taken: {type(error).__name__}: {error}"
        self._core.faults.report("input", repr(error), note)

    def _on_work_error(self, error: Exception) -> None:
        # While the process ends, publishing fails as expected.
        if rclpy.ok() and self._core.active:
            self._core.faults.report("inference", repr(error), f"failed: {type(error).__name__}: {error}")
            self._core.node.get_logger().debug("".join(traceback.format_exception(error)))
