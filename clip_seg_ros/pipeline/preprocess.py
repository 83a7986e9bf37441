# SPDX-License-Identifier: Apache-2.0
"""RGB image -> normalised pixels on the device, and the results resized back to the image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.pipeline.letterbox import from_square, letterbox_affine, to_image, to_square

# With ``short_side`` the long side, and with it the cost, grows with the aspect ratio: a 1 x 10000 image must be
# refused and not resized to gigabytes. The widest panoramic cameras stay below 6.
MAX_ASPECT_RATIO = 8.0


@dataclass(frozen=True)
class Geometry:
    """How an image was resized: to the model's size, or, with a letterbox, into the middle of a square."""

    source_size: tuple[int, int]
    """(H, W) of the camera's image."""
    model_size: tuple[int, int]
    """(h, w) of the model's pixels."""
    letterbox: bool = False

    @classmethod
    def fit(cls, source_size: tuple[int, int], spec: InputSpec) -> Geometry:
        """Computes the model's size for an image of ``source_size`` (H, W).

        Raises:
            ValueError: A side is zero, or the model keeps the aspect ratio and it exceeds ``MAX_ASPECT_RATIO``.
        """
        height, width = source_size
        if height < 1 or width < 1:
            raise ValueError(f"an image needs at least one pixel, got {width}x{height}")
        if spec.resize == "short_side" and max(source_size) > MAX_ASPECT_RATIO * min(source_size):
            raise ValueError(
                f"a {width}x{height} image is too narrow: its sides may differ {MAX_ASPECT_RATIO:g} times at most"
            )
        return cls(source_size, spec.model_size(source_size), spec.resize == "letterbox")

    def restore(self, maps: np.ndarray) -> np.ndarray:
        """Resizes maps of any resolution to the camera's image: bilinearly, or cubically with a letterbox.

        For four maps of 192x256 at 640x480, one cv2.resize for each map took 0.2 ms, and torch's interpolate 0.9 ms.

        Args:
            maps: (P, h', w') float32, each covering the whole image.

        Returns:
            (P, H, W) float32, within 0..1 where ``maps`` are.
        """
        if self.letterbox:
            # Cubic interpolation overshoots.
            return from_square(maps, self.model_size[0], self.source_size).clip(0.0, 1.0)
        height, width = self.source_size
        if maps.shape[1:] == self.source_size:
            return maps
        restored = np.empty((len(maps), height, width), np.float32)
        for source, target in zip(maps, restored):
            cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        return restored

    def fine(self, maps: np.ndarray) -> np.ndarray:
        """Returns maps whose places are the middles of equal parts of the image, dense enough for linear interpolation.

        Without a letterbox, these are the maps themselves. With one, they are interpolated cubically to about the
        pixels of the square. This differs from ``restore`` at the border of the image, where ``restore`` mixes with the
        zeros beyond the square, and between the pixels of the square, where it interpolates once more.

        Args:
            maps: (P, h', w') float32, each covering the whole square or image.

        Returns:
            (P, h'', w'') float32, within 0..1 where ``maps`` are.
        """
        if not self.letterbox:
            return maps
        return to_image(maps, self.model_size[0], self.source_size)

    def to_cells(
        self, picture: np.ndarray, cells: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
    ) -> np.ndarray:
        """Samples a map of the camera's image, of any resolution, at the cells of maps that ``restore`` takes.

        Args:
            picture: (h, w), covering the whole image.
            cells: (h', w') of the maps.
            interpolation: OpenCV's interpolation.

        Returns:
            (h', w') of the same type; beyond the image, the values of its border.
        """
        if not self.letterbox:
            return cv2.resize(picture, cells[::-1], interpolation=interpolation)
        affine = letterbox_affine(self.source_size, self.model_size[0])
        matrix = np.zeros((2, 3))
        for axis, side, places, pixels in zip((1, 0), picture.shape, cells, self.source_size):
            # Cell -> pixel of the square, whose corners are cells -> pixel of the image -> place of the picture.
            step = (self.model_size[0] - 1) / max(places - 1, 1) / affine[axis, axis]
            start = -affine[axis, 2] / affine[axis, axis]
            matrix[axis, axis] = step * side / pixels
            matrix[axis, 2] = (start + 0.5) * side / pixels - 0.5
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, matrix, cells[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class ModelInput:
    """One image, prepared for a model."""

    pixels: torch.Tensor
    """(1, 3, h, w) float32 of any memory format, normalised, on the model's device."""
    geometry: Geometry


class Preprocessor:
    """Prepares images for one model on one device.

    Args:
        spec: The size and the normalisation that the model needs.
        device: The device on which to put the pixels.
    """

    def __init__(self, spec: InputSpec, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
        # (x / 255 - mean) / std as one multiplication and one addition.
        self._scale = 1.0 / (255.0 * std)
        self._shift = -mean / std

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> ModelInput:
        """Resizes and normalises one image.

        Resizing is bilinear, with anti-aliasing where it shrinks if the model's input wants it. From 640x480 to 256x192
        with the normalisation, the median on a CPU was 0.3 ms for torch on uint8, 0.8 ms for torch on float32, and
        1.3 ms for cv2's INTER_AREA; the three differ by about one grey level of 255. Other devices, on which torch has
        no such kernel for uint8, resize in float32; the bytes are still sent as uint8.

        Args:
            rgb: (H, W, 3) uint8 of any size from one pixel.

        Raises:
            ValueError: ``rgb`` is not such an array, or too narrow for a model that keeps the aspect ratio.
        """
        if not isinstance(rgb, np.ndarray) or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            found = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise ValueError(f"rgb must be a (H, W, 3) uint8 array, got {found}")
        geometry = Geometry.fit(rgb.shape[:2], self._spec)
        if geometry.letterbox:
            rgb = to_square(rgb, self._spec.size, self._spec.mean)
        pixels = send(rgb, self._device).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)
        if self._device.type != "cpu":
            pixels = pixels.float()
        if pixels.shape[2:] != geometry.model_size:
            pixels = functional.interpolate(
                pixels,
                size=geometry.model_size,
                mode="bilinear",
                align_corners=False,
                antialias=self._spec.antialias,
            )
        return ModelInput(torch.addcmul(self._shift, pixels.float(), self._scale), geometry)


def send(rgb: np.ndarray, device: torch.device) -> torch.Tensor:
    """Sends an image to a device; a CUDA device fetches it while the program goes on.

    Args:
        rgb: (H, W, 3) uint8 of any strides, perhaps read-only, as images that come directly from messages are. It may
            change as soon as this returns, unless the device is the CPU.
        device: The device.

    Returns:
        (H, W, 3) uint8 on the device; on the CPU it may share the memory of ``rgb``.
    """
    if device.type != "cuda":
        # torch needs contiguous and writable memory.
        return torch.from_numpy(np.require(rgb, requirements="CW")).to(device)
    # Only pinned memory can be fetched at any time. It comes from a pool, into which torch puts it back after the copy.
    staged = torch.empty(rgb.shape, dtype=torch.uint8, pin_memory=True)
    np.copyto(staged.numpy(), rgb)
    return staged.to(device, non_blocking=True)
