# SPDX-License-Identifier: Apache-2.0
"""Where frames were at the time of an image, by the transforms that a bag holds on ``/tf`` and ``/tf_static``.

A bag is read along with its images: of moving frames only the seconds around the image are kept, however long it is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.bags import BagMessage, open_bag

MOVING, STATIC = "/tf", "/tf_static"
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_AHEAD_NS = 5 * 10**9
"""How far behind an image transforms are read that may be needed to interpolate."""
_KEPT_NS = 30 * 10**9
"""How long transforms of a moving frame are kept, behind the newest one."""
_MOST_KEPT = 20_000
"""The largest number of them."""
_MOST_FRAMES = 4096
"""The largest number of frames, more than any robot has."""
_NAMED = 20
"""How many frames a message lists."""


class TfError(DataError):
    """A frame is not there at that time; the message says why."""


@dataclass(frozen=True)
class _Pose:
    """Where a frame is in its parent at a time."""

    stamp_ns: int
    position_m: np.ndarray
    """(3,) float64."""
    turn_xyzw: np.ndarray
    """(4,) float64, a unit quaternion."""


@dataclass
class _Edge:
    """A frame in its parent."""

    parent: str
    is_static: bool
    poses: deque[_Pose] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    """In the order of their stamps; the newest alone if it is static."""

    def add(self, pose: _Pose) -> None:
        if self.is_static:
            self.poses.clear()
        poses = self.poses
        late = []
        while poses and poses[-1].stamp_ns > pose.stamp_ns:  # two publishers may overtake each other
            late.append(poses.pop())
        if poses and poses[-1].stamp_ns == pose.stamp_ns:
            poses.pop()
        poses.append(pose)
        poses.extend(reversed(late))
        while len(poses) > 2 and poses[1].stamp_ns < poses[-1].stamp_ns - _KEPT_NS:
            poses.popleft()

    def at(self, stamp_ns: int, child: str) -> np.ndarray:
        """Returns the transform (4, 4) from the frame to its parent. Raises TfError before the first and after the
        last time."""
        if self.is_static:
            return _matrix(self.poses[-1])
        first, last = self.poses[0].stamp_ns, self.poses[-1].stamp_ns
        if not first <= stamp_ns <= last:
            off_s = (first - stamp_ns if stamp_ns < first else stamp_ns - last) / 1e9
            when = "before the first" if stamp_ns < first else "after the last"
            raise TfError(f"the image is {off_s:.3f} s {when} transform from {child} to {self.parent}")
        place = bisect_left(self.poses, stamp_ns, key=lambda pose: pose.stamp_ns)
        after = self.poses[place]
        return _matrix(after if after.stamp_ns == stamp_ns else _between(self.poses[place - 1], after, stamp_ns))


class TransformTree:
    """Frames in their parents, and where they were."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self.newest_ns = 0
        """The newest stamp of a moving frame."""

    @property
    def frames(self) -> list[str]:
        """The names of all frames, sorted."""
        return sorted({*self._edges, *(edge.parent for edge in self._edges.values())})

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        position_m: tuple[float, float, float],
        turn_xyzw: tuple[float, float, float, float],
        is_static: bool,
    ) -> None:
        """Adds a transform from ``child`` to ``parent``; one that is none (NaN, no quaternion, no name) is ignored."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        length = math.sqrt(sum(each * each for each in turn_xyzw))
        if not (all(map(math.isfinite, position_m)) and math.isfinite(length) and length > 1e-6):
            return
        if not parent or not child or parent == child:
            return
        edge = self._edges.get(child)
        if edge is None and len(self._edges) >= _MOST_FRAMES:
            return
        if edge is None or edge.parent != parent or edge.is_static != is_static:
            edge = self._edges[child] = _Edge(parent, is_static)
        edge.add(_Pose(stamp_ns, np.array(position_m, np.float64), np.array(turn_xyzw, np.float64) / length))
        if not is_static:
            self.newest_ns = max(self.newest_ns, stamp_ns)

    def transform(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Returns the transform (4, 4) float64 that brings points of the frame ``source`` into ``target``.

        Args:
            target: The one frame.
            source: The other one.
            stamp_ns: The time.

        Raises:
            TfError: A frame is not known, the two are not connected, or not at this time.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        for name in (target, source):
            self._require(name)
        up, down = self._way(source), self._way(target)
        meeting = next((name for name in up if name in down), None)
        if meeting is None:
            raise TfError(
                f"the transforms do not connect {source}, which hangs on {up[-1]}, with {target}, on {down[-1]}"
            )
        from_source = self._climbed(up[: up.index(meeting)], stamp_ns)
        from_target = self._climbed(down[: down.index(meeting)], stamp_ns)
        return _inverse(from_target) @ from_source

    def _require(self, name: str) -> None:
        if name not in self._edges and all(edge.parent != name for edge in self._edges.values()):
            frames = self.frames
            more = f" and {len(frames) - _NAMED} others" if len(frames) > _NAMED else ""
            listed = ", ".join(frames[:_NAMED]) + more if frames else "nothing"
            raise TfError(f"there is no frame {name or 'without a name'} in the transforms; they hold {listed}")

    def _way(self, name: str) -> list[str]:
        """Returns a frame and those above it. Raises TfError if they form a circle."""
        way = [name]
        while (edge := self._edges.get(way[-1])) is not None:
            if edge.parent in way:
                raise TfError(f"the transforms run in a circle: {' in '.join((*way, edge.parent))}")
            way.append(edge.parent)
        return way

    def _climbed(self, way: list[str], stamp_ns: int) -> np.ndarray:
        matrix = np.eye(4)
        for name in way:
            matrix = self._edges[name].at(stamp_ns, name) @ matrix
        return matrix


class BagTransforms:
    """The transforms of a bag, read along with its images while its block lasts.

    Args:
        bag: The bag, as ``open_bag`` opens it.

    Raises:
        DataError: The bag cannot be read, or holds no transforms.
    """

    def __init__(self, bag: Path) -> None:
        self._tree = TransformTree()
        self._stack = ExitStack()
        opened = self._stack.enter_context(open_bag(bag, salvage=True))
        topics = {each.name for each in opened.topics if each.kind in TF_TYPES}
        if not topics:
            self.close()
            raise DataError(f"{bag} holds no transforms (/tf or /tf_static): positions stay in the frame of the camera")
        static = {name for name in topics if name.endswith(STATIC)}
        # All of them first, because they may be recorded after the images that need them.
        for message in _readable(opened.messages(static)):
            self._take(message, is_static=True)
        self._messages = _readable(opened.messages(topics - static))

    def __enter__(self) -> BagTransforms:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the bag."""
        self._stack.close()

    def transform(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Returns what ``TransformTree.transform`` returns, and raises what it raises.

        Times must come in their order, but for a few seconds.
        """
        while self._tree.newest_ns < stamp_ns and self._take_next():
            pass
        while True:
            try:
                return self._tree.transform(target, source, stamp_ns)
            except TfError:
                # What moves slowly may be published later than the rest.
                if self._tree.newest_ns > stamp_ns + _AHEAD_NS or not self._take_next():
                    raise

    def _take_next(self) -> bool:
        message = next(self._messages, None)
        if message is not None:
            self._take(message, is_static=False)
        return message is not None

    def _take(self, message: BagMessage, is_static: bool) -> None:
        try:
            transforms = message.read().transforms
        except DataError:  # the next one says the same, a little later
            return
        for each in transforms:
            self._tree.add(*_parts(each), is_static)


def _parts(stamped: Any) -> tuple[str, str, int, tuple[float, float, float], tuple[float, float, float, float]]:
    stamp, move, turn = stamped.header.stamp, stamped.transform.translation, stamped.transform.rotation
    position, quaternion = (move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w)
    return stamped.header.frame_id, stamped.child_frame_id, stamp.sec * 10**9 + stamp.nanosec, position, quaternion


def _readable(messages: Iterator[BagMessage]) -> Iterator[BagMessage]:
    """Yields the messages up to a cut, of which whoever reads the images tells."""
    while True:
        try:
            message = next(messages, None)
        except DataError:
            return
        if message is None:
            return
        yield message


def _between(before: _Pose, after: _Pose, stamp_ns: int) -> _Pose:
    """Returns the pose at a time between two others: on the straight line, and on the shortest turn."""
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    one, other = before.turn_xyzw, after.turn_xyzw
    cosine = float(one @ other)
    if cosine < 0:  # the same turn, the shorter way
        other, cosine = -other, -cosine
    if cosine > 0.9995:  # the sine of the angle is almost 0
        turn = one + share * (other - one)
    else:
        angle = math.acos(cosine)
        turn = (math.sin((1 - share) * angle) * one + math.sin(share * angle) * other) / math.sin(angle)
    position = before.position_m + share * (after.position_m - before.position_m)
    return _Pose(stamp_ns, position, turn / np.linalg.norm(turn))


def _matrix(pose: _Pose) -> np.ndarray:
    x, y, z, w = pose.turn_xyzw
    matrix = np.eye(4)
    matrix[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    matrix[:3, 3] = pose.position_m
    return matrix


def _inverse(matrix: np.ndarray) -> np.ndarray:
    back = np.eye(4)
    back[:3, :3] = matrix[:3, :3].T
    back[:3, 3] = -back[:3, :3] @ matrix[:3, 3]
    return back
