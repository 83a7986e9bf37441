# SPDX-License-Identifier: Apache-2.0
"""A trial of running nodes with hostile messages: ``python test/nodes/fuzz.py --messages 100000``.

Each trial starts a node as a process of its own and sends it random and mutated images, depth, lenses, commands,
parameters, service calls and goals. After every so many it shows it a proper image, which must be answered rightly, and
notes the node's memory, threads, file descriptors and lines of log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

from clip_seg_ros.config import ENGINE_NAMES
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.qos import RELIABLE, camera_output
from clip_seg_ros.pipeline.memory import EVERY_S, REST_S
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from hostile_messages import HostileMessages
from hostile_requests import HostileRequests
from ros_harness import NodeProcess, SemanticWatcher, Watcher, messages_of, pixels_of, stamp_ns, wait_until

COMMAND = "segment the red cup"
GOOD_IOU = 0.6
BURST, PAUSE_S = 10, 0.03
"""So many messages are sent at once, and then none for so long, so that the node takes most of them."""
FLOOD = 64
SETTLE_S, LONG_SETTLE_S = REST_S + 2.0, EVERY_S + 2.0
"""How long proper images are shown before memory is read, in a test and by hand: until the node has given back what
hostile ones left."""
PARAMETERS = {
    "referring": {
        "model": "clipseg-pocket",
        "threshold": 0.5,
        "min_area_fraction": 0.002,
        "rectified": False,
        "depth_tolerance_s": 0.02,
        "max_points": 20000,
        "smoothing": 0.9,
        "hysteresis": 0.05,
        "track_age_s": 2.0,
    },
    "semantic": {"model": "denseclip-pocket", "min_confidence": 0.0, "min_area_fraction": 0.002},
}
"""What may be set while a node runs, with what it is set back to before a proper image."""


@dataclass(frozen=True)
class Setting:
    """What one trial is about."""

    node: str
    commanded: bool = False
    """Whether hostile commands come, and the proper one again after each of them."""
    compressed: bool = False


SETTINGS = {
    "referring": Setting("referring", commanded=True),
    "referring_idle": Setting("referring"),
    "referring_compressed": Setting("referring", commanded=True, compressed=True),
    "semantic": Setting("semantic", commanded=True),
}


@dataclass(frozen=True)
class Sample:
    """What a node holds after so many messages."""

    messages: int
    seconds: float
    memory_mb: float
    """Resident and its own: without pages of files, which the system takes back when it wants them."""
    threads: int
    descriptors: int
    log_lines: int
    iou: float
    """Of the answer to the proper image."""


class Listener:
    """Keeps the last outputs of a node, all of which it subscribes to, so that the node makes them."""

    def __init__(self, node: Node, kind: str) -> None:
        topics = (Watcher if kind == "referring" else SemanticWatcher).OUTPUTS
        self._kept: dict[str, deque[Any]] = {name: deque(maxlen=20) for name in topics}
        for name, type_ in topics.items():
            node.create_subscription(type_, name, self._keeper(name), RELIABLE)

    def _keeper(self, name: str) -> Callable[[Any], None]:
        return lambda message: self._kept[name].append(message)

    def find(self, name: str, fits: Callable[[Any], bool]) -> Any:
        """The last message of a topic that fits, or ``None``."""
        return next((message for message in reversed(self._kept[name].copy()) if fits(message)), None)


class Trial:
    """One node and everything that is sent to it.

    Args:
        name: One of ``SETTINGS``.
        view: A proper image that shows a red cup.
        log: File of what the node writes.
        seed: Of the random numbers.
        fresh: Whether the node begins with nothing imported.
        steady: Whether all raw images have one size, and as many as ever wait at once come first. Fast DDS keeps
            a buffer for each message that ever waited, as large as the largest that it held; it has all of them then.
        engine: What runs the node's models.
        settle_s: How long proper images are shown before memory is read.
    """

    def __init__(
        self,
        name: str,
        view: RenderedView,
        log: Path,
        seed: int = 0,
        fresh: bool = False,
        steady: bool = False,
        engine: str = "eager",
        settle_s: float = SETTLE_S,
    ) -> None:
        self.name, self._view, self._steady, self._settle_s = name, view, steady, settle_s
        self._setting = setting = SETTINGS[name]
        self._log, self._good = log, messages_of(view)
        self._random = random.Random(seed)
        namespace = f"fuzz_{name}_{os.getpid()}"
        self._started_s = time.monotonic()
        self._node = Node("enemy", namespace=namespace)
        self.listener = Listener(self._node, setting.node)
        self._make_publishers(f"/{namespace}")
        if setting.compressed:
            self._good["color"] = self._as_jpeg()
        self._messages = HostileMessages(seed, {**self._good, "command": String(data=COMMAND)}, steady)
        self._requests = HostileRequests(self._node, setting.node, self._messages, PARAMETERS[setting.node], seed)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        parameters = [
            f"engine:={engine}",
            f"image_topic:=/{namespace}/image",
            f"image_transport:={'compressed' if setting.compressed else 'raw'}",
        ]
        if setting.node == "referring":
            parameters += [f"depth_topic:=/{namespace}/depth", f"camera_info_topic:=/{namespace}/info"]
        self.process = NodeProcess(setting.node, log, parameters, namespace=namespace, fresh=fresh)

    def _make_publishers(self, namespace: str) -> None:
        compressed = self._setting.compressed
        topics: dict[str, tuple[type, str]] = {
            "color": (CompressedImage if compressed else Image, "image/compressed" if compressed else "image")
        }
        if self._setting.node == "referring":
            topics |= {"depth": (Image, "depth"), "info": (CameraInfo, "info")}
        self._publishers = {
            name: self._node.create_publisher(kind, f"{namespace}/{topic}", camera_output("reliable"))
            for name, (kind, topic) in topics.items()
        }
        self._command = self._node.create_publisher(String, "command", RELIABLE)

    def _as_jpeg(self) -> CompressedImage:
        import cv2

        _, data = cv2.imencode(".jpg", cv2.cvtColor(self._view.rgb, cv2.COLOR_RGB2BGR))
        return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data.tobytes())

    def close(self) -> int:
        """Ends the node; returns its exit code."""
        code = self.process.end()
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        return code

    def said(self) -> str:
        """What the node wrote."""
        return self.process.said()

    def run(self, messages: int, every: int) -> list[Sample]:
        """Sends the messages; returns a sample from before them and after each ``every``."""
        self.process.wait_said("commands:")
        if self._steady:
            self._flood()
        samples = [self._sample(0)]
        for count in range(1, messages + 1):
            self._send()
            if count % BURST == 0:
                time.sleep(PAUSE_S)
            assert self.process.process.poll() is None, f"the node died after {count} messages:\n{self.said()[-3000:]}"
            if count % every == 0:
                samples.append(self._sample(count))
                print(self.name, samples[-1], file=sys.stderr, flush=True)
        return samples

    def _flood(self) -> None:
        """Sends more images at once than the node ever lets wait."""
        for _ in range(FLOOD):
            for name in self._publishers:
                self._publishers[name].publish(self._hostile(name))
        self._requests.send_images(FLOOD)

    def _send(self) -> None:
        """Sends one thing."""
        pick = self._random.random()
        if pick < 0.03:
            self._requests.send()
        elif pick < 0.1:
            if self._setting.commanded:
                is_broken = self._random.random() < 0.1
                self._command.publish(self._messages.mutated("command") if is_broken else self._messages.command())
                if self._setting.node == "referring":
                    self._command.publish(String(data=COMMAND))
        else:
            name = self._random.choice(list(self._publishers))
            if self._random.random() < 0.15:
                self._publishers[name].publish(self._messages.mutated(name))
            else:
                self._publishers[name].publish(self._hostile(name))

    def _hostile(self, name: str) -> Any:
        if name == "info":
            return self._messages.info()
        if name == "depth":
            return self._messages.image("16UC1")
        return self._messages.compressed() if self._setting.compressed else self._messages.image("rgb8")

    def _sample(self, messages: int) -> Sample:
        iou, own_mb = self._check()
        process = Path(f"/proc/{self.process.process.pid}")
        return Sample(
            messages,
            round(time.monotonic() - self._started_s, 1),
            round(own_mb, 1),
            len(list((process / "task").iterdir())),
            len(list((process / "fd").iterdir())),
            self.said().count("\n"),
            round(float(iou), 3),
        )

    def _own_mb(self) -> float:
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        own_kib = next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1]
        return int(own_kib) * 1024 / 1e6

    def _check(self) -> tuple[float, float]:
        """Shows the node proper images; returns the IoU of its answer, which must be a right one, and its memory in MB.

        The memory is the least while they are shown: it grows from one time that gaps are given back to the next.
        """
        self._requests.put_right()
        # A hostile command may have asked for another model, with an answer and a memory of its own.
        self._say(f"use {PARAMETERS[self._setting.node]['model']}", CommandStatus.DONE)
        if self._setting.node == "referring":
            self._say(COMMAND, CommandStatus.ACCEPTED)
        sent: set[int] = set()
        mask = "mask" if self._setting.node == "referring" else "semantic/labels"

        def answered() -> Any:
            # Sent until it is answered: it is taken as images are, without a guarantee.
            sent.add(self._send_good())
            time.sleep(0.2)
            return self.listener.find(mask, lambda message: stamp_ns(message) in sent)

        end_s = time.monotonic() + self._settle_s
        answer = pixels_of(wait_until(answered, "the node to answer a proper image"))
        least_mb = self._own_mb()
        while time.monotonic() < end_s:
            answered()
            least_mb = min(least_mb, self._own_mb())
        iou = self._iou(answer)
        assert iou > GOOD_IOU, f"a proper image was answered with an IoU of {iou:.3f} only"
        return iou, least_mb

    def _iou(self, answer: np.ndarray) -> float:
        if self._setting.node == "referring":
            return mask_iou(answer > 0, self._view.mask_of("red", "cup"))
        # Whatever number the class has: that of the cup's place.
        cup = self._view.mask_of(None, "cup")
        return mask_iou(answer == np.bincount(answer[cup]).argmax(), cup)

    def _say(self, text: str, state: int) -> None:
        """Gives a command until it comes to a state; statuses of hostile ones may come between."""
        before = self._node.get_clock().now().nanoseconds

        def told() -> Any:
            self._command.publish(String(data=text))
            time.sleep(0.2)
            return self.listener.find(
                "status", lambda m: m.command == text and m.state == state and stamp_ns(m) >= before
            )

        wait_until(told, f"the node to do as a proper command says: {text}")

    def _send_good(self) -> int:
        now = self._node.get_clock().now()
        stamp = now.to_msg()
        for name, publisher in self._publishers.items():
            self._good[name].header = Header(stamp=stamp, frame_id="camera_color_optical_frame")
            publisher.publish(self._good[name])
        return now.nanoseconds


def good_view() -> RenderedView:
    """A table with a red cup and without another cup."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(2, required=[("red", "cup")], forbidden=[("blue", None)]))


def table(name: str, samples: Sequence[Sample]) -> str:
    """The samples for people."""
    lines = [f"{name}", "messages  seconds  memory MB  threads  descriptors  log lines    IoU"]
    for s in samples:
        lines.append(
            f"{s.messages:8d} {s.seconds:8.0f} {s.memory_mb:10.0f} {s.threads:8d} {s.descriptors:12d} "
            f"{s.log_lines:10d} {s.iou:6.3f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs trials and prints what the nodes held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000, help="of each trial")
    parser.add_argument("--every", type=int, default=1000, help="messages between two proper images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--steady", action="store_true", help="images of one size, and many at once at the beginning")
    parser.add_argument("--engine", choices=ENGINE_NAMES, default="eager", help="what runs the nodes' models")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--logs", type=Path, default=None, help="folder for what the nodes write")
    args = parser.parse_args()
    logs = args.logs or Path(tempfile.mkdtemp(prefix="fuzz_"))
    logs.mkdir(parents=True, exist_ok=True)
    rclpy.init()
    view, figures, code = good_view(), {}, 0
    for name in args.trials:
        trial = Trial(name, view, logs / f"{name}.log", args.seed, True, args.steady, args.engine, LONG_SETTLE_S)
        try:
            samples = trial.run(args.messages, args.every)
        finally:
            code |= trial.close()
        figures[name] = [asdict(sample) for sample in samples]
        print(table(name, samples), flush=True)
        code |= "Traceback" in trial.said()
        if args.json:
            args.json.write_text(json.dumps({"seed": args.seed, "trials": figures}, indent=1))
    rclpy.shutdown()
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
