# SPDX-License-Identifier: Apache-2.0
"""A program that speaks viser's protocol over a WebSocket, and keeps what a browser would draw."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from clip_seg_ros.viewer.space_door import KEY_HEADER, VIEWER_HEADER, Door
from patience import until

PROTOCOL = f"viser-v{viser.__version__}"
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (0.0, 0.0, -1.0),
    "fov": 1.0,
    "near": 0.01,
    "far": 1000.0,
    "image_height": 480,
    "image_width": 640,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
"""What a browser says first: from where it looks."""
CLICK = {
    "type": "SceneNodeClickMessage",
    "instance_index": None,
    "modifier": None,
    "owner": "",
    "ray_origin": (0.0, 0.0, 0.0),
    "ray_direction": (0.0, 0.0, 1.0),
    "screen_pos": (0.5, 0.5),
}
"""What it says when the node "name" is clicked."""


class ViserClient:
    """Keeps the scene that a server sends. Use it as a context manager.

    Args:
        address: Of the server, such as ws://127.0.0.1:8080.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        """The properties of each node in the scene, by its name; "type" is that of the message that made it.
        "visible" comes last of a node that is new."""
        self.messages: list[dict[str, Any]] = []
        self.received_bytes = 0
        self.error: Exception | None = None
        self.reading = threading.Event()
        """Cleared, it reads no more, like a browser that hangs; with ``max_queue`` at 1, hardly anything waits."""
        self.reading.set()
        self._socket = connect(address, subprotocols=[PROTOCOL], compression=None, max_size=None, proxy=None, **options)
        self.subprotocol = self._socket.subprotocol
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> ViserClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.reading.set()
        self._socket.close()
        self._thread.join(10)

    def vanish(self) -> None:
        """Breaks the connection without a word, as a machine does that loses its power."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)

    @property
    def closed_with(self) -> int | None:
        """The code with which the server closed; ``None`` while it is open."""
        return None if self._thread.is_alive() else self._socket.protocol.close_code

    @property
    def reason(self) -> str | None:
        """What the server said when it closed."""
        return self._socket.protocol.close_reason

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message, as a browser does when it is clicked."""
        self._socket.send(msgspec.msgpack.encode(message))

    def until(self, condition: Callable[[dict[str, dict[str, Any]]], Any], what: str, patience_s: float = 60.0) -> Any:
        """Waits until ``condition`` holds for ``nodes``."""

        def found() -> Any:
            if self.error is not None:
                raise self.error
            return condition(dict(self.nodes))

        return until(found, what, patience_s)

    def _listen(self) -> None:
        try:
            while self.reading.wait():
                packet = self._socket.recv(decode=False)
                self.received_bytes += len(packet)
                for message in _decode(packet):
                    self.messages.append(message)
                    self._apply(message)
        except ConnectionClosed:
            pass
        except Exception as error:
            self.error = error

    def _apply(self, message: dict[str, Any]) -> None:
        kind, name = message["type"], message.get("name")
        if kind == "RemoveSceneNodeMessage":
            self.nodes.pop(name, None)
        elif kind == "SceneNodeUpdateMessage":
            self.nodes[name].update(message["updates"])
        elif kind in ("SetPositionMessage", "SetOrientationMessage") and name in self.nodes:
            key = "position" if kind == "SetPositionMessage" else "wxyz"
            self.nodes[name][key] = np.array(message[key])
        elif kind == "SetSceneNodeVisibilityMessage" and name in self.nodes:
            self.nodes[name]["visible"] = message["visible"]
        elif kind == "SetSceneNodeClickBindingsMessage":
            self.nodes[name]["bindings"] = message["bindings"]
        elif "props" in message and name is not None:
            place = {"position": np.zeros(3), "wxyz": np.array([1.0, 0.0, 0.0, 0.0])}
            self.nodes[name] = {"type": kind, **place, **message["props"]}


def near(door: Door, viewer: str = "", **options: Any) -> ViserClient:
    """A client that connects to viser itself, with the key, as the viewer's server does."""
    headers = {KEY_HEADER: door.key, VIEWER_HEADER: viewer}
    return ViserClient(f"ws://127.0.0.1:{door.port}", additional_headers=headers, **options)


def _decode(data: bytes) -> list[dict[str, Any]]:
    """Decodes one packet: compressed msgpack with placeholders, and the arrays behind it."""
    size, packed = (int.from_bytes(data[start : start + 8], "little") for start in (0, 8))
    text = zstandard.ZstdDecompressor().decompress(data[16 : 16 + packed], size)
    content = msgspec.msgpack.decode(text)
    offset, arrays = 16 + packed, []
    for length in content.get("binaryBufferLengths", ()):
        offset += -offset % 8
        arrays.append(data[offset : offset + length])
        offset += length
    return [_filled(message, arrays) for message in content["messages"]]


def _filled(value: Any, arrays: list[bytes]) -> Any:
    if isinstance(value, dict):
        if "__binary_index" in value:
            return np.frombuffer(arrays[value["__binary_index"]], np.dtype(value.get("dtype", "uint8")))
        return {key: _filled(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, arrays) for part in value]
    return value
