# SPDX-License-Identifier: Apache-2.0
"""Subscriptions on a thread of their own, in front of real publishers."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header, Int32, String

from clip_seg_ros.nodes.camera import subscription_thread
from clip_seg_ros.nodes.camera.subscription_thread import OwnThreadGroup, SubscriptionThread
from ros_harness import PATIENCE_S, wait_until

QOS = QoSProfile(depth=50)


class Stage:
    """A node whose subscriptions hear what it publishes itself."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("subscription_thread_test", context=self.context)
        self.errors: list[Exception] = []
        self.thread: SubscriptionThread | None = None

    def listen(self, *subscriptions, pause_s: float = 0.0) -> SubscriptionThread:
        self.thread = SubscriptionThread(subscriptions, self.context, self.errors.append, pause_s)
        return self.thread

    def end(self) -> None:
        if self.thread is not None:
            self.thread.close()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def stage(ros):
    stage = Stage()
    yield stage
    stage.end()


def subscribe(stage: Stage, kind: type, topic: str, callback, **more):
    publisher = stage.node.create_publisher(kind, topic, QOS)
    subscription = stage.node.create_subscription(kind, topic, callback, QOS, callback_group=OwnThreadGroup(), **more)
    wait_until(lambda: publisher.get_subscription_count() > 0, "the topic to connect")
    return publisher, subscription


def test_messages_of_several_topics_come_in_their_order_on_one_thread(stage):
    numbers, words, threads = [], [], set()

    def on_number(message):
        threads.add(threading.get_ident())
        numbers.append(message.data)

    def on_word(message):
        threads.add(threading.get_ident())
        words.append(message.data)

    number, a = subscribe(stage, Int32, "stage/numbers", on_number)
    word, b = subscribe(stage, String, "stage/words", on_word)
    stage.listen(a, b)
    for index in range(20):
        number.publish(Int32(data=index))
        word.publish(String(data=str(index)))
    wait_until(lambda: len(numbers) == len(words) == 20, "all messages")
    assert numbers == list(range(20))
    assert words == [str(index) for index in range(20)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert not stage.errors


def test_with_a_pause_what_came_meanwhile_is_taken_in_one_go(stage):
    heard = []

    def callback(message):
        if message.data == 1:
            raise ValueError("no ones")
        heard.append(message.data)

    publisher, subscription = subscribe(stage, Int32, "stage/many", callback)
    for index in range(20):
        publisher.publish(Int32(data=index))
    # So long a pause that messages which are taken one by one would never all come.
    thread = stage.listen(subscription, pause_s=30.0)
    wait_until(lambda: len(heard) == 19, "all messages at once")
    assert heard == [0, *range(2, 20)]
    assert [str(error) for error in stage.errors] == ["no ones"]
    assert thread.close(), "the pause is not sat out"


def test_raw_subscriptions_get_bytes(stage):
    heard = []
    publisher, subscription = subscribe(stage, Int32, "stage/raw", heard.append, raw=True)
    stage.listen(subscription)
    publisher.publish(Int32(data=7))
    wait_until(lambda: heard, "the message")
    assert deserialize_message(heard[0], Int32).data == 7


def test_an_executor_leaves_them_alone(stage):
    heard = []
    publisher, subscription = subscribe(stage, Int32, "stage/alone", heard.append)
    executor = SingleThreadedExecutor(context=stage.context)
    executor.add_node(stage.node)
    publisher.publish(Int32(data=1))
    deadline_s = time.monotonic() + 0.5
    while time.monotonic() < deadline_s:
        executor.spin_once(0.05)
    assert not heard
    stage.listen(subscription)
    wait_until(lambda: heard, "what had waited")
    executor.shutdown()


def test_a_callback_that_fails_is_told_and_the_next_message_comes(stage):
    heard = []

    def callback(message):
        if message.data == 1:
            raise ValueError("no ones")
        heard.append(message.data)

    publisher, subscription = subscribe(stage, Int32, "stage/failing", callback)
    stage.listen(subscription)
    for number in range(3):
        publisher.publish(Int32(data=number))
    wait_until(lambda: len(heard) == 2, "the other messages")
    assert heard == [0, 2]
    assert [str(error) for error in stage.errors] == ["no ones"]


def test_close_does_not_sit_out_the_wait_and_nothing_is_called_after_it(stage, monkeypatch):
    monkeypatch.setattr(subscription_thread, "_LONGEST_WAIT_NS", 3600 * 10**9)
    heard = []
    publisher, subscription = subscribe(stage, Int32, "stage/closed", heard.append)
    thread = stage.listen(subscription)
    assert thread.close(timeout_s=PATIENCE_S)
    assert thread.close()
    publisher.publish(Int32(data=1))
    time.sleep(0.2)
    assert not heard
    stage.node.destroy_subscription(subscription)


def test_close_tells_of_a_callback_that_does_not_end(stage):
    held, let_go = threading.Event(), threading.Event()

    def callback(message):
        held.set()
        let_go.wait()

    publisher, subscription = subscribe(stage, Int32, "stage/held", callback)
    thread = stage.listen(subscription)
    publisher.publish(Int32(data=1))
    assert held.wait(10.0)
    assert not thread.close(timeout_s=0.1)
    let_go.set()
    assert thread.close()


def test_the_end_of_rclpy_ends_the_thread_quietly(stage):
    _, subscription = subscribe(stage, Int32, "stage/ended", lambda message: None)
    thread = stage.listen(subscription)
    stage.context.try_shutdown()
    wait_until(lambda: not thread._thread.is_alive(), "the thread to end")
    assert not stage.errors


def test_a_subscription_that_is_gone_too_early_is_told(stage):
    _, subscription = subscribe(stage, Int32, "stage/gone", lambda message: None)
    thread = stage.listen(subscription)
    stage.node.destroy_subscription(subscription)
    wait_until(lambda: stage.errors, "the fault")
    assert isinstance(stage.errors[0], RuntimeError)
    assert thread._thread.is_alive()
    assert thread.close()


def test_broken_messages_leave_no_words_of_the_middleware_behind(stage, capfd):
    number, word = [], []
    numbers, a = subscribe(stage, Header, "broken/headers", number.append)
    words, b = subscribe(stage, String, "broken/words", word.append)
    stage.listen(a, b)
    for count in range(1, 4):
        for publisher, heard, good in ((numbers, number, Header()), (words, word, String())):
            publisher.publish(serialize_message(good)[:6])
            publisher.publish(good)
            wait_until(lambda: len(heard) == count, "what is not broken")
    # Told where one broken message finds what another, of another type, has left.
    assert "rcutils_reset_error" not in capfd.readouterr().err
