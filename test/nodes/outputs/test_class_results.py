# SPDX-License-Identifier: Apache-2.0
"""The result topics of the ``semantic`` node: which are made, and what the image of ids holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.outputs.class_results import ClassResult, ClassTopics
from clip_seg_ros.pipeline.class_labels import ClassMap, class_colors
from clip_seg_ros.types import ObjectRegion
from ros_harness import pixels_of, wait_until

SIZE = (6, 10)
MIN_AREA = 0.07
"""Of these images, four pixels."""
HEADER = Header(stamp=Time(sec=3, nanosec=5), frame_id="left_optical_frame")


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    node = Node("class_results")
    yield node
    node.destroy_node()


@pytest.fixture
def topics(node: Node) -> Iterator[ClassTopics]:
    topics = ClassTopics(node, "left")
    yield topics
    topics.close()


def result(labels: np.ndarray, objects: tuple[ObjectRegion, ...] | None = None) -> ClassResult:
    best = np.full(SIZE, 0.75, np.float32)
    found = ClassMap(("cup", "table"), labels, best, False, np.zeros(0, np.int64), np.zeros(0, np.float32), objects)
    return ClassResult(HEADER, np.zeros((*SIZE, 3), np.uint8), found, class_colors(2))


def cup(id: int, score: float, columns: slice) -> ObjectRegion:
    mask = np.zeros(SIZE, bool)
    mask[1:4, columns] = True
    return ObjectRegion.of_mask("cup", id, score, mask)


def made(node: Node, topics: ClassTopics, shown: ClassResult, **heard: type) -> dict[str, object]:
    """The messages of an image, by topic, while somebody listens to the topics of these names."""
    prefix = "left/semantic/"
    subscriptions = [node.create_subscription(kind, prefix + name, print, RELIABLE) for name, kind in heard.items()]
    wait_until(lambda: all(node.count_subscribers(prefix + name) for name in heard), "the subscriptions")
    messages = {topic.topic_name.split(prefix)[1]: message for topic, message in topics.prepare(shown, MIN_AREA)}
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    return messages


def test_without_subscribers_only_the_labels_are_made(node: Node, topics: ClassTopics) -> None:
    assert made(node, topics, result(np.ones(SIZE, np.uint8))).keys() == {"labels"}


def test_the_better_of_two_objects_has_the_pixels_that_both_cover(node: Node, topics: ClassTopics) -> None:
    # The best one is too small to be reported.
    shown = result(
        np.zeros(SIZE, np.uint8), (cup(1, 0.9, slice(9, 10)), cup(2, 0.8, slice(4, 9)), cup(3, 0.6, slice(0, 6)))
    )
    messages = made(node, topics, shown, instances=Image)
    assert messages.keys() == {"labels", "instances"}
    image = messages["instances"]
    assert (image.header, image.encoding) == (HEADER, "mono8")
    row = [2, 2, 2, 2, 1, 1, 1, 1, 1, 0]
    assert pixels_of(image).tolist() == [[0] * 10, row, row, row, [0] * 10, [0] * 10]


def test_the_ids_are_those_of_the_connected_objects(node: Node, topics: ClassTopics) -> None:
    labels = np.ones(SIZE, np.uint8)
    labels[0:3, 0:4] = labels[3:6, 6:10] = 0
    messages = made(node, topics, result(labels), instances=Image, objects=SegmentedObjectArray)
    ids, objects = pixels_of(messages["instances"]), messages["objects"].objects
    assert [item.prompt for item in objects] == ["cup", "cup", "table"]
    for item in objects:
        inside = ids == item.id
        assert inside.sum() == item.area
        assert (labels[inside] == ["cup", "table"].index(item.prompt)).all()
    assert ids.all()
