# SPDX-License-Identifier: Apache-2.0
"""What both nodes share, where it shows best without a model's answers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.config import SegmentationConfig
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.life.segmentation_node import SegmentationNode
from clip_seg_ros.nodes.life.task import Task
from clip_seg_ros.pipeline.memory import PAUSE_S, REST_S, SizeWatch
from ros_harness import Camera, wait_until

TOPIC = "/camera/color/image_raw"


class Slow(Task):
    """Works on an image until it is told to go on."""

    def __init__(self, node: SegmentationNode) -> None:
        self.node = node
        self.begun, self.at_work, self.most_at_work, self.served = 0, 0, 0, []
        self.go_on = threading.Semaphore(0)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def warm_up(self, predictor) -> None:
        pass

    def idle_because(self, camera: str) -> str:
        return ""

    def is_mine(self, command) -> bool:
        return False

    def obey(self, command_id, text, command) -> None:
        raise AssertionError("no command is for this node")

    def ask(self, images, predictor) -> list:
        (image,) = images
        self.begun += 1
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.go_on.acquire()
        self.at_work -= 1
        return [lambda: self.finish(image)]

    def finish(self, image) -> bool:
        self.served.append(self.node.intake.serves(image.job.camera))
        return True


@pytest.fixture
def node(ros):
    node = SegmentationNode("slow", SegmentationConfig, Slow)
    yield node
    for _ in range(10):
        node.task.go_on.release()
    node.destroy_node()


def test_an_answer_that_outlasts_deactivate_is_dropped_and_the_next_one_waits_for_it(node):
    image = fill_image(Image(), np.zeros((8, 8, 3), np.uint8), "rgb8")
    node.trigger_configure()
    node.trigger_activate()
    with Camera(depth=False, topic=TOPIC) as camera:
        camera.send(image)
        wait_until(lambda: node.task.begun == 1, "the first image to be worked on")
        node.trigger_deactivate()
        node.trigger_activate()
    with Camera(depth=False, topic=TOPIC) as camera:
        camera.send(image)
        wait_until(lambda: node.intake.cameras[0].received, "the second image")
        node.task.go_on.release()
        wait_until(lambda: node.task.begun == 2, "the second image to be worked on")
        node.task.go_on.release()
        wait_until(lambda: len(node.task.served) == 2, "both")
    assert node.task.served == [False, True]
    assert node.task.most_at_work == 1


def test_memory_is_given_back_when_a_camera_changes_its_size(node):
    given_back = []
    # From image to image more than the pause, but less than it takes until sizes count as at rest.
    step_s = int(PAUSE_S + REST_S) // 2
    clock = iter(range(0, 1000, step_s)).__next__
    node.core.sizes = SizeWatch(lambda: given_back.append(node.task.begun), lambda: None, clock)
    node.trigger_configure()
    node.trigger_activate()
    with Camera(depth=False, topic=TOPIC) as camera:
        for number, width in enumerate((8, 8, 12, 12, 16), start=1):
            node.task.go_on.release()
            camera.send(fill_image(Image(), np.zeros((8, width, 3), np.uint8), "rgb8"))
            wait_until(lambda n=number: len(node.task.served) == n, "the image to be worked on")
        wait_until(lambda: given_back == [3, 5], f"memory to be given back, which it was after images {given_back}")
