# SPDX-License-Identifier: Apache-2.0
"""Messages as a broken driver, a careless peer or an enemy sends them: random and mutated, by a seed."""

from __future__ import annotations

import array
import random
import string
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time as Stamp
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

BYTES_OF = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "8UC1": 1,
    "8UC3": 3,
    "8UC4": 4,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "mono16": 2,
    "16UC1": 2,
    "32FC1": 4,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "bayer_rggb16": 2,
    "bayer_bggr16": 2,
    "yuv422": 2,
    "uyvy": 2,
    "yuyv": 2,
    "yuv422_yuy2": 2,
    "nv21": 2,
    "nv24": 3,
    "32FC3": 12,
    "64FC1": 8,
    "8SC1": 1,
    "16SC1": 2,
    "nonsense": 1,
    "": 1,
}
MAX_SIDE = 700
CAMERA_SIZE = (480, 640)
"""Height and width of images of one size."""
LONG_TEXT = 1_000_000
WORDS = (
    "segment find track use classes: threshold stop clear not and or the red blue cup box ball cris clipseg-pocket "
    "left of , ; \" ' & 0.4 -1 nan 1e400 all everything one without except with model using help"
).split()


class HostileMessages:
    """Makes the messages of one trial.

    Args:
        seed: Of the random numbers.
        good: Proper messages, by name: "color", "depth" and "info" of a camera, and "command".
        one_size: Whether raw images have one size and their usual encoding, as those of a camera do; they lie as often.
    """

    def __init__(self, seed: int, good: dict[str, Any], one_size: bool = False) -> None:
        self._random = random.Random(seed)
        self._good, self._one_size = good, one_size
        # Cut from one block: random bytes of their own for every message would take longer than sending it.
        self._noise = np.random.default_rng(seed).integers(0, 256, 12 * MAX_SIDE * MAX_SIDE, np.uint8)
        _, jpeg = cv2.imencode(".jpg", self._noise[: 64 * 64 * 3].reshape(64, 64, 3))
        _, png = cv2.imencode(".png", np.zeros((48, 64), np.uint16))
        self._pictures = {"jpeg": jpeg.tobytes(), "png": png.tobytes()}

    def header(self) -> Header:
        """A header with any stamp, also those from before time began, and any frame."""
        sec = self._random.choice((0, 1, 1_700_000_000, -1, -(2**31), 2**31 - 1, self._random.randrange(2**31)))
        nanosec = self._random.choice((0, 999_999_999, 2**32 - 1, self._random.randrange(10**9)))
        return Header(
            stamp=Stamp(sec=sec, nanosec=nanosec), frame_id=self._random.choice(("camera", "", self.text(40)))
        )

    def text(self, most: int = 300) -> str:
        """Any characters: letters, control characters, right-to-left marks, emojis."""
        kind = self._random.randrange(4)
        length = self._random.randrange(most)
        if kind == 0:
            return "".join(self._random.choices(string.printable, k=length))
        if kind == 1:
            return " ".join(self._random.choices(WORDS, k=1 + length // 5))
        ranges = (
            (0x1, 0x7F),
            (0x80, 0x7FF),
            (0x2000, 0x206F),
            (0xE000, 0xFFFD),
            (0x1F300, 0x1FAFF),
            (0x10000, 0x10FFFF),
        )
        low, high = self._random.choice(ranges)
        return "".join(chr(self._random.randint(low, high)) for _ in range(length))

    def phrase(self) -> str:
        """What should be named by it; now and then a megabyte of it."""
        return self.text(20) * (LONG_TEXT // 20) if self._random.random() < 0.01 else self.text()

    def command(self) -> String:
        """A command, or what was meant to be none."""
        return String(data=self.phrase())

    def image(self, usual: str) -> Image:
        """An image of a random size and encoding; most are readable, the others lie about something.

        Args:
            usual: The encoding of half of them.
        """
        pick = self._random
        encoding = usual if pick.random() < 0.5 else pick.choice(list(BYTES_OF))
        height, width = pick.randint(1, MAX_SIDE), pick.randint(1, MAX_SIDE)
        if self._one_size:
            encoding, height, width = usual, *CAMERA_SIZE
        step = width * BYTES_OF[encoding] + pick.choice((0, 0, 0, 1, 64))
        rows = height * (3 if encoding.startswith("nv") else 1)
        data = self._noise[: min(rows * step, len(self._noise))]
        if encoding == "32FC1" and pick.random() < 0.5:
            values = np.full(data.size // 4 + 1, pick.choice((np.nan, np.inf, -1.0, 1e38, 0.0, 1.0)), np.float32)
            data = values.view(np.uint8)[: data.size]
        message = Image(
            header=self.header(),
            height=height,
            width=width,
            encoding=encoding,
            step=step,
            is_bigendian=pick.choice((0, 0, 0, 1, 255)),
        )
        self._lie(message)
        end = pick.choice((len(data),) * 8 + (0, len(data) // 2, max(0, len(data) - 1)))
        message.data = array.array("B", data[:end].tobytes())
        return message

    def _lie(self, message: Image) -> None:
        """Lets one message in four claim what is not so."""
        if self._random.random() < 0.25:
            name = self._random.choice(("height", "width", "step", "encoding"))
            huge = self._random.choice((0, 1, 2**16, 2**30, 2**32 - 1))
            setattr(message, name, self.text(60) if name == "encoding" else huge)

    def compressed(self) -> CompressedImage:
        """A picture of a random size, cut, mutated or mislabelled; or one that claims a thousand times its size."""
        pick = self._random
        kind = pick.choice(("jpeg", "png"))
        data = bytearray(self._pictures[kind])
        if pick.random() < 0.5:
            height, width = pick.randint(1, MAX_SIDE), pick.randint(1, MAX_SIDE)
            pixels = self._noise[: height * width * 3].reshape(height, width, 3) // 32
            data = bytearray(cv2.imencode(f".{kind}", pixels)[1].tobytes())
        elif pick.random() < 0.2:
            data = bytearray(self._pictures["png"])
            data[16:24] = pick.choice((30_000, 2**31 - 1)).to_bytes(4, "big") * 2  # its width and height
        for _ in range(pick.choice((0, 0, 1, 10, 100))):
            data[pick.randrange(len(data))] = pick.randrange(256)
        data = data[: pick.choice((len(data),) * 4 + (len(data) // 2, 3, 0))]
        label = pick.choice((kind, "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "", self.text(60)))
        return CompressedImage(header=self.header(), format=label, data=array.array("B", bytes(data)))

    def info(self) -> CameraInfo:
        """A lens with nonsense in any of its fields."""
        pick = self._random
        numbers = (0.0, 1.0, -1.0, 500.0, float("nan"), float("inf"), 1e300)
        return CameraInfo(
            header=self.header(),
            height=pick.choice((0, 48, 480, 2**32 - 1)),
            width=pick.choice((0, 64, 640, 2**31)),
            distortion_model=pick.choice(("plumb_bob", "rational_polynomial", "", "fisheye", self.text(40))),
            d=[pick.choice(numbers) for _ in range(pick.choice((0, 4, 5, 8, 14, 1000)))],
            k=[pick.choice(numbers) for _ in range(9)],
            p=[pick.choice(numbers) for _ in range(12)],
            binning_x=pick.choice((0, 1, 2**32 - 1)),
        )

    def mutated(self, name: str) -> bytes:
        """The bytes of a proper message with some changed, added or cut off: no message any more, or another."""
        data = bytearray(serialize_message(self._good[name]))
        pick = self._random
        for _ in range(pick.choice((1, 1, 10, 100))):
            # Mostly in its head, where sizes and strings are.
            data[pick.randrange(min(len(data), pick.choice((4, 64, len(data)))))] = pick.randrange(256)
        if pick.random() < 0.3:
            data = data[: pick.randrange(len(data))] or data[:1]
        return bytes(data)
