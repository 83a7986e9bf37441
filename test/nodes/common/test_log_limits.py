# SPDX-License-Identifier: Apache-2.0
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from clip_seg_ros.nodes.common.log_limits import (
    LINES_A_MINUTE,
    MAX_LINE,
    WINDOW_S,
    BoundedLogger,
    BoundedLogs,
    LineCeiling,
    one_line,
)
from ros_harness import wait_until


class Logger:
    """Keeps what it is told."""

    def __init__(self, name: str = "node") -> None:
        self.name = name
        self.said: list[tuple[str, str]] = []

    def get_child(self, name: str) -> "Logger":
        child = Logger(f"{self.name}.{name}")
        child.said = self.said
        return child

    def __getattr__(self, severity: str):
        return lambda line: self.said.append((severity, line))


def test_a_line_is_short_and_printable():
    assert one_line("a\r\n\x1b[31m\u202eb ü") == "a\\r\\n\\x1b[31m\\u202eb ü"
    assert one_line("x" * 10**6) == f"{'x' * MAX_LINE} ... (1000000 characters)"


def test_a_ceiling_for_every_severity():
    now_s = [0.0]
    inner = Logger()
    logger = BoundedLogger(inner, LineCeiling(LINES_A_MINUTE, lambda: now_s[0]))
    for number in range(1000):
        logger.info(f"line {number}")
        logger.get_child("below").info("line")
    logger.warning("careful")
    logger.debug("as often as you like")
    assert len(inner.said) == LINES_A_MINUTE + 2
    assert inner.said[-2:] == [("warning", "careful"), ("debug", "as often as you like")]
    now_s[0] = WINDOW_S
    logger.catch_up()
    logger.catch_up()
    assert inner.said[LINES_A_MINUTE + 2 :] == [
        ("info", f"and {2000 - LINES_A_MINUTE} more lines of this severity in the last minute")
    ]
    logger.info("anew")
    assert inner.said[-1] == ("info", "anew")
    assert logger.name == "node"


class Bounded(BoundedLogs, Node):
    """A node whose log is limited."""


def test_whoever_does_not_fit_is_told_of_under_the_ceiling(ros):
    node, other = Bounded("bounded"), Node("others")
    said = Logger()
    node._bounded_logger = BoundedLogger(said)
    heard, made = [], []
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.create_publisher(String, "bounded_out", QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE))
        node.create_subscription(String, "bounded_in", heard.append, QoSProfile(depth=1))
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        made.append(other.create_publisher(String, "bounded_in", best_effort))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        made.append(other.create_subscription(String, "bounded_out", heard.append, latched))

        def told() -> bool:
            executor.spin_once(0.1)
            return len(said.said) >= len(made)

        wait_until(told, "both to be told of")
        lines = sorted(line for severity, line in said.said if severity == "warning")
        assert lines[0].startswith("a publisher on topic bounded_in offers an incompatible quality of service (")
        assert lines[1].startswith("a subscription on topic bounded_out requests an incompatible quality of service (")
    finally:
        executor.shutdown()
        node.destroy_node()
        other.destroy_node()


def test_all_that_rclpy_tells_of_endpoints_is_under_the_ceiling(ros):
    """A middleware may find endpoints of another type by the thousand; Fast DDS does not report them at all."""
    node = Bounded("bounded_endpoints")
    said = Logger()
    node._bounded_logger = BoundedLogger(said)
    try:
        made = [node.create_publisher(String, "typed_out", 1), node.create_subscription(String, "typed_in", print, 1)]
        handlers = [handler for endpoint in made for handler in endpoint.event_handlers]
        of_types = [handler for handler in handlers if "INCOMPATIBLE_TYPE" in handler.event_type.name]
        assert len(of_types) == len(made)
        for _ in range(LINES_A_MINUTE):
            for handler in of_types:
                handler.callback(None)
        assert said.said[:2] == [
            ("warning", "a subscription on topic typed_out has messages of another type: no messages pass"),
            ("warning", "a publisher on topic typed_in has messages of another type: no messages pass"),
        ]
        assert len(said.said) == LINES_A_MINUTE
    finally:
        node.destroy_node()
