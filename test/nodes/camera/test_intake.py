# SPDX-License-Identifier: Apache-2.0
"""Images of several cameras on their way through a node, with a task that only notes what it is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.camera.intake import Finish, Intake, TakenImage
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.pipeline.memory import SizeWatch
from ros_harness import Talker, wait_until

NAMES = ("left", "middle", "right")


class Noting:
    """Notes which images come together and on which thread the rest of the work is done; the model can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.finished: list[tuple[str, str]] = []
        self.asked, self.go = threading.Event(), threading.Event()
        self.failing = ""
        self.begun: list[str] = []
        self.finishing, self.most_at_once = 0, 0
        self.let_finish = threading.Event()
        self.let_finish.set()

    def ask(self, images: Sequence[TakenImage], predictor: object) -> list[Finish | None]:
        self.batches.append([image.job.camera.name for image in images])
        self.asked.set()
        assert self.go.wait(10.0)
        return [lambda name=image.job.camera.name: self._finish(name) for image in images]

    def _finish(self, name: str) -> bool:
        if name == self.failing:
            raise RuntimeError("no room")
        self.finishing += 1
        self.most_at_once = max(self.most_at_once, self.finishing)
        self.begun.append(name)
        assert self.let_finish.wait(60.0)
        self.finishing -= 1
        self.finished.append((name, threading.current_thread().name))
        return True

    def idle_because(self, camera: str) -> str:
        return ""

    def image_came(self) -> None:
        pass

    def depth_tolerance_s(self) -> float:
        return 0.1

    def is_rectified(self) -> bool:
        return False


class Running:
    """An intake of three cameras in a node, with a model on a device."""

    def __init__(self, device: str) -> None:
        self.node, self.task, self.answered = Node(f"intake_{device}"), Noting(), []
        self.faults: list[str] = []
        config = ReferringConfig(
            image_topics=tuple(f"/intake_{device}/{name}/image" for name in NAMES), camera_names=NAMES
        )
        core = SimpleNamespace(
            node=self.node, config=config, faults=FaultLog(self.faults.append), sizes=SizeWatch(), active=True
        )
        predictor = SimpleNamespace(device=SimpleNamespace(type=device), seconds=0.0)
        counts = SimpleNamespace(dropped=lambda camera: None, answered=lambda job, spent: self.answered.append(job))
        self.intake = Intake(core, lambda: predictor)
        commands = self.node.create_subscription(String, f"/intake_{device}/command", lambda message: None, 1)
        self.start = lambda: self.intake.start(self.task, counts, commands)
        self.start()
        self.talker = Talker({name: (Image, f"/intake_{device}/{name}/image") for name in NAMES})

    def send(self, *names: str) -> None:
        image = fill_image(Image(), np.zeros((6, 8, 3), np.uint8), "rgb8")
        self.talker.send(**dict.fromkeys(names, image))

    def close(self) -> None:
        self.task.go.set()
        self.task.let_finish.set()
        self.intake.stop()
        self.node.destroy_node()


@pytest.fixture
def running(ros: None, request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(request.param)
    try:
        with running.talker:
            running.send("left")
            assert running.task.asked.wait(10.0)
            # The others wait while the model is busy.
            received = [camera.received for camera in running.intake.cameras]
            running.send("middle", "right")
            wait_until(
                lambda: [camera.received for camera in running.intake.cameras] >= [received[0], 1, 1], "the images"
            )
            yield running
    finally:
        running.close()


@pytest.mark.parametrize("running", ["cuda"], indirect=True)
def test_a_gpu_is_given_all_waiting_cameras_at_once_and_the_rest_is_done_beside(running: Running) -> None:
    running.task.go.set()
    wait_until(lambda: len(running.answered) >= 3, "all answers")
    assert running.task.batches[:2] == [["left"], ["middle", "right"]]
    assert running.task.finished[:3] == [(name, "second_stage") for name in NAMES]


@pytest.mark.parametrize("running", ["cpu"], indirect=True)
def test_on_a_processor_cameras_take_turns(running: Running) -> None:
    running.task.go.set()
    wait_until(lambda: len(running.answered) >= 3, "all answers")
    assert running.task.batches[:3] == [["left"], ["middle"], ["right"]]
    assert {thread for _, thread in running.task.finished} == {"latest_worker"}


@pytest.mark.parametrize("running", ["cuda"], indirect=True)
def test_a_camera_whose_results_fail_costs_no_other_its_results(running: Running) -> None:
    running.task.failing = "middle"
    running.task.go.set()
    wait_until(lambda: len(running.answered) >= 2, "the other answers")
    assert [name for name, _ in running.task.finished[:2]] == ["left", "right"]
    wait_until(lambda: any("no room" in fault for fault in running.faults), "the report")


@pytest.mark.parametrize("running", ["cuda"], indirect=True)
def test_what_is_still_being_finished_when_the_node_starts_again_is_finished_first(running: Running) -> None:
    running.task.go.set()
    wait_until(lambda: len(running.answered) >= 3, "all answers")
    running.task.let_finish.clear()
    before = len(running.task.begun)
    running.send("left")
    wait_until(lambda: len(running.task.begun) > before, "an image that is being finished")
    running.intake.stop()
    running.start()

    def both_at_work() -> bool:
        running.send("right")
        return sum(thread.name == "second_stage" for thread in threading.enumerate()) == 2

    wait_until(both_at_work, "an image after the second start")
    running.task.let_finish.set()
    wait_until(lambda: len(running.task.finished) >= before + 2, "both of them")
    assert running.task.most_at_once == 1
