# SPDX-License-Identifier: Apache-2.0
"""What both nodes share: their life, their model, their cameras and what they say about themselves."""

from __future__ import annotations

import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import rclpy
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.validate_topic_name import validate_topic_name

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.config import SegmentationConfig
from clip_seg_ros.nodes.camera import image_decoding
from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.input_watch import InputWatch
from clip_seg_ros.nodes.camera.rate_limit import RateLimit
from clip_seg_ros.nodes.camera.subscription_thread import SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.common.answering_services import OpenCalls
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.log_limits import BoundedLogs
from clip_seg_ros.nodes.common.parameters import ConfigParameters
from clip_seg_ros.nodes.common.rclpy_internals import guard_transitions
from clip_seg_ros.nodes.life.command_router import CommandRouter
from clip_seg_ros.nodes.life.health import Health, Spent
from clip_seg_ros.nodes.life.model_switch import ModelSwitch
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.pipeline.latest_worker import LatestWorker
from clip_seg_ros.pipeline.memory import SizeWatch

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor

THREADS = 4
"""Of a node's executor: sensors and commands go on while services and actions wait for the model."""
_LONGEST_CHANGE_S = 5.0
"""How long the end of the process waits for a transition."""
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentationNode(BoundedLogs, LifecycleNode, ABC):
    """A lifecycle node with a model, cameras, commands and diagnostics; what it does with an image is its child's.

    configure loads the weights, activate listens to the cameras, deactivate stops that, cleanup frees the memory.
    Callbacks only keep messages and answer commands; the model runs in a worker's thread on the newest images. What
    cameras send is taken by a thread of its own, so that it is not made to wait for the executor.

    Args:
        name: Of the node.
        config_type: Of its parameters.
    """

    def __init__(self, name: str, config_type: type[SegmentationConfig]) -> None:
        super().__init__(name, namespace="clip_seg")
        self.faults = FaultLog(self.get_logger().warning)
        self.calls = OpenCalls(self)
        self.settings = ConfigParameters(self, config_type, self._check_change, self._on_change, self._is_unconfigured)
        self.status = StatusTopic(self)
        self.models = ModelSwitch(
            self, lambda: self.settings.config, self.status, self.faults, self.warm_up, self.on_model_ready
        )
        self.host = self.models.host
        self.commands = CommandRouter(
            self, name, self.status, lambda: self.active, self.is_mine, self._fault_of, self.obey
        )
        self.cameras: tuple[CameraInput, ...] = ()
        self.start_fault = ""
        """Why the last configure failed."""
        # Guards what the worker and the callbacks share, and lets "forget it" and "publish it" exclude each other.
        self.lock = threading.RLock()
        self.sizes = SizeWatch()
        self.active = False
        self._configured = False
        self._listener: SubscriptionThread | None = None
        self._worker: LatestWorker[CameraJob] | None = None
        self._free_s = 0.0
        """When the worker was done with its last image, by the clock of ``CameraJob.came_s``."""
        self._watch: InputWatch | None = None
        self._rate = RateLimit(lambda: self.settings.config.max_rate_hz)
        # Held by a transition, and by the end of the process, which waits for one that is under way.
        self._changing = threading.Lock()
        # Held while an image is answered: one that outlasts deactivate is done before the first one after activate.
        self._working = threading.Lock()
        warn = self.get_logger().warning
        guard_transitions(self, lambda error: warn(f"there is no such transition now: {error}"))

    # What a child must fill in.

    @abstractmethod
    def create_outputs(self) -> None:
        """Creates publishers and services, when the node is configured."""

    @abstractmethod
    def destroy_outputs(self) -> None:
        """Takes them away, when the node is cleaned up."""

    @abstractmethod
    def work(self, job: CameraJob, rgb: np.ndarray, predictor: Predictor) -> bool:
        """Answers one image (H, W, 3) on the worker's thread; returns whether anything was published."""

    @abstractmethod
    def idle_because(self, camera: str) -> str:
        """Why an image of a camera is not answered at the moment; empty where it is."""

    @abstractmethod
    def is_mine(self, command: Command | None) -> bool:
        """Whether a command is for this node to answer; ``None`` is one that nobody understands."""

    @abstractmethod
    def obey(self, command_id: int, text: str, command: Command) -> None:
        """Answers a command that the language knows, and does it; the model that it names is there."""

    @abstractmethod
    def warm_up(self, predictor: Predictor) -> None:
        """Answers a first image, for the first pass is slow; raises ValueError where node and model do not fit."""

    # What a child may fill in.

    def on_model_ready(self) -> None:
        """Takes note, on the loader's thread, that another model has begun to serve."""

    def wants_images(self) -> bool:
        """Whether images of any camera are answered at the moment."""
        return any(not self.idle_because(camera.name) for camera in self.cameras)

    def depth_tolerance_s(self) -> float:
        """How far the stamps of colour and depth may differ, in seconds; of interest where cameras have depth."""
        return 0.0

    def is_rectified(self) -> bool:
        """Whether the cameras' images are rectified; of interest where cameras have depth."""
        return False

    # Life.

    def bring_up(self) -> SegmentationNode:
        """Configures and activates where the parameter autostart says so; raises RuntimeError where that fails."""
        if self.settings.config.autostart:
            if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
                raise RuntimeError(self.start_fault)
        else:
            self.get_logger().info("waiting to be configured and activated by a lifecycle manager")
        return self

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the weights and makes the outputs. Where that fails, says why; it can be tried again."""
        return self._try("configure", self._configure, self.host.unload)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listens to the cameras."""
        return self._try("activate", self._activate, self._stop_listening)

    def _try(self, what: str, act: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        self.start_fault = ""
        try:
            with self._changing:
                act()
        except Exception as error:  # whatever it is, the node lives on and can be told to try again
            self.start_fault = str(error) or type(error).__name__
            # Before the node spins, it is the process that says why it ends.
            if self.executor is not None:
                self.get_logger().error(f"{what} failed: {self.start_fault}")
            self.get_logger().debug(traceback.format_exc())
            with self._changing:
                undo()
            return FAILURE
        return SUCCESS

    def _configure(self) -> None:
        config = self.settings.config
        # First, so that nothing is made in vain.
        for camera in config.cameras():
            for topic in (config.command_topic, camera.name, camera.image, camera.depth, camera.camera_info):
                if topic:
                    validate_topic_name(topic)
        self.models.start()
        self.calls.open()
        self.status.open()
        self.create_outputs()
        self.commands.open(config.command_topic, self.calls.group())
        self.health = Health(self, self.host, self.faults, lambda: self.cameras, self.idle_because)
        self._configured = True
        if fault := image_decoding.library()[1]:
            self.get_logger().warning(fault)

    def _activate(self) -> None:
        config = self.settings.config
        self._worker = LatestWorker(self._work, self._on_work_error)
        self.active = True
        self.commands.announce()
        # Before any image comes, which would find nothing to look for.
        if config.initial_command:
            self.commands.give(config.initial_command)
        group = own_thread_group()
        self.cameras = tuple(
            CameraInput(
                self,
                topics,
                config.image_transport,
                self.depth_tolerance_s,
                self.is_rectified,
                self.faults,
                self._on_job,
                group,
            )
            for topics in config.cameras()
        )
        inputs = [each.subscription for camera in self.cameras for each in camera.inputs]
        self._listener = SubscriptionThread(inputs, self.context, self._on_input_error)
        self._watch = InputWatch(self, self.faults, self.cameras, self.commands.subscription, self.wants_images)
        images = ", ".join(camera.image_topic for camera in self.cameras)
        commands = self.commands.subscription.topic_name
        self.get_logger().info(
            f"{self.host.name} on {self.host.predictor.device}; commands: {commands}, images: {images}"
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops listening; the weights stay."""
        with self._changing:
            self._stop_listening()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes the outputs away, once everybody who called was answered, and frees the memory."""
        with self._changing:
            self._release("the node was cleaned up")
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops from any state, once everybody who called was answered."""
        with self._changing:
            self._release("the node was shut down")
        return SUCCESS

    def finish(self) -> None:
        """Stops before the process ends, once everybody who called was answered; callbacks must still run."""
        if self._configured and self._changing.acquire(timeout=_LONGEST_CHANGE_S):
            try:
                self._release("the node ends")
            finally:
                self._changing.release()

    def destroy_node(self) -> None:
        self.finish()
        super().destroy_node()

    def _stop_listening(self) -> None:
        # Not in the middle of what is being published.
        with self.lock:
            self.active = False
        self.commands.withdraw()
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
            if not self._worker.close():
                self.get_logger().warning("an image is still being answered; its answer will not be published")
            self._worker = None

    def _release(self, why: str) -> None:
        self._stop_listening()
        if self._configured:
            if not self.calls.close(why):
                self.get_logger().warning("somebody who called may not have been answered in time")
            self.health.close()
            self.commands.close()
            self.models.stop()
            self.destroy_outputs()
            self.status.close()
            self._configured = False

    def _is_unconfigured(self) -> bool:
        return not self._configured and not self._changing.locked()

    def serves(self, camera: CameraInput) -> bool:
        """Whether answers to this camera's images are wanted; not those to what came before the last activate."""
        return self.active and camera in self.cameras

    def _check_change(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        self.models.check(old, new)

    def _on_change(self, old: SegmentationConfig, new: SegmentationConfig) -> None:
        self.models.follow(old, new)

    def _fault_of(self, command: Command | None) -> str:
        """Why a command cannot be done now; empty where it can, as far as that shows before it is done."""
        if self.calls.refusal:
            return self.calls.refusal
        if not self.active:
            return "the node is not active: activate it first"
        return self.models.fault_of(command.model) if command is not None and command.model is not None else ""

    # Images: taken on the listener's thread, answered on the worker's.

    def _on_job(self, job: CameraJob) -> None:
        self.faults.clear("input")
        worker, camera = self._worker, job.camera
        if worker is None or self.idle_because(camera.name) or not self._rate.lets_pass(camera.name, job.came_s):
            return
        if worker.put(job, camera):
            self.health.dropped(camera)

    def _work(self, job: CameraJob) -> None:
        with self._working:
            if self.serves(job.camera):
                self._answer_image(job)

    def _answer_image(self, job: CameraJob) -> None:
        waited_s = max(0.0, self._free_s - job.came_s)
        predictor = self.host.predictor
        before_s, rgb = predictor.seconds, None
        try:
            rgb = job.camera.rgb(job)
            if rgb is not None and self.work(job, rgb, predictor):
                self.health.answered(job, Spent(waited_s, predictor.seconds - before_s))
                self.faults.clear("inference")
        finally:
            self._free_s = time.monotonic()
            if rgb is not None:
                self.sizes.saw(job.camera.name, rgb.shape)

    def _on_input_error(self, error: Exception) -> None:
        self.faults.report("input", repr(error), f"a message cannot be taken: {type(error).__name__}: {error}")

    def _on_work_error(self, error: Exception) -> None:
        # While the process ends, publishing fails, and rightly so.
        if rclpy.ok() and self.active:
            self.faults.report("inference", repr(error), f"failed: {type(error).__name__}: {error}")
            self.get_logger().debug("".join(traceback.format_exception(error)))
