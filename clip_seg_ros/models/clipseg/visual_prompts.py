# SPDX-License-Identifier: Apache-2.0
"""Example images as prompts: shows CLIP which object of an image is meant (CLIPSeg, section 3.3 and table 1).

CLIP embeds a whole image. The embedding becomes that of one object if the rest of the image is blurred, darkened and
cut away. ``visual_prompt`` does all three by default, which the paper found best.
Everything here works on normalised images, as the authors do: darkening then fades the background to the mean colour of
the data, not to black.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import BEST_STYLE, ExampleStyle

BLUR_SIGMA, INTENSITY, MARGIN = BEST_STYLE.blur_sigma, BEST_STYLE.intensity, 0.1
_BLUR_RADIUS = 7
_EMPTY = "the mask of an example image is empty: it shows no object"
MEAN_RGB = np.array([123.675, 116.28, 103.53], dtype=np.float32)
"""The mean colour, which normalisation maps to 0, in 0..255."""


def visual_prompt(
    pixels: torch.Tensor, masks: torch.Tensor, size: int, style: ExampleStyle = BEST_STYLE
) -> torch.Tensor:
    """Blurs and darkens the background, then crops to the object, for ``CLIPSeg.encode_image_prompt``.

    Args:
        pixels: (N, 3, H, W), normalised.
        masks: (N, H, W), bool or 0..1; pixels that are not 0 are the object.
        size: Side in pixels of the result, which is resized to it by nearest pixels.
        style: What is done to the background, and whether the image is cut.

    Returns:
        (N, 3, size, size).

    Raises:
        ValueError: A mask is empty or of another size than the image, or the image is too small to be blurred.
    """
    emphasised = emphasise(pixels, masks, blur_sigma=style.blur_sigma, intensity=style.intensity)
    if style.margin is not None:
        return crop_to_object(emphasised, masks, size, margin=style.margin)
    if not (masks != 0).flatten(1).any(dim=1).all():
        raise ValueError(_EMPTY)
    return F.interpolate(emphasised, size=(size, size), mode="nearest")


def emphasise(
    pixels: torch.Tensor, masks: torch.Tensor, *, blur_sigma: float = BLUR_SIGMA, intensity: float = INTENSITY
) -> torch.Tensor:
    """Blurs and darkens the background.

    Args:
        pixels: (N, 3, H, W), normalised.
        masks: (N, H, W), bool or 0..1; values in between mix object and background.
        blur_sigma: Standard deviation in pixels of the Gaussian (15 x 15) over the background; 0 leaves it sharp.
        intensity: Factor on the background, 0..1; 1 leaves its brightness unchanged.

    Returns:
        (N, 3, H, W).

    Raises:
        ValueError: A mask is of another size than the image, or the image is too small to be blurred.
    """
    _require_same_size(pixels, masks)
    background = (_blur(pixels, blur_sigma) if blur_sigma > 0 else pixels) * intensity
    weight = masks[:, None].to(pixels.dtype)
    return pixels * weight + background * (1 - weight)


def crop_to_object(pixels: torch.Tensor, masks: torch.Tensor, size: int, *, margin: float = MARGIN) -> torch.Tensor:
    """Cuts out each object's bounding box, pads it to a square with zeros (the mean colour), and resizes it.

    Args:
        pixels: (N, 3, H, W), normalised.
        masks: (N, H, W), bool or 0..1; pixels that are not 0 are the object.
        size: Side in pixels of the result, which is resized to it by nearest pixels.
        margin: Share of its own side by which the box grows on each side, as far as the image goes.

    Returns:
        (N, 3, size, size).

    Raises:
        ValueError: A mask is empty or of another size than the image.
    """
    _require_same_size(pixels, masks)
    crops = []
    for image, mask in zip(pixels, masks != 0, strict=True):
        if not mask.any():
            raise ValueError(_EMPTY)
        top, bottom = _bounds(mask.any(dim=1), margin)
        left, right = _bounds(mask.any(dim=0), margin)
        cut = image[:, top:bottom, left:right]
        spare = max(cut.shape[1:]) - torch.tensor(cut.shape[1:])
        (before_y, before_x), (after_y, after_x) = (spare // 2).tolist(), (spare - spare // 2).tolist()
        square = F.pad(cut, (before_x, after_x, before_y, after_y))
        crops.append(F.interpolate(square[None], size=(size, size), mode="nearest")[0])
    return torch.stack(crops)


def _bounds(occupied: torch.Tensor, margin: float) -> tuple[int, int]:
    """Returns the first index of ``occupied`` (side,) bool and the one after the last, grown by ``margin``."""
    indices = occupied.nonzero()
    first, end = int(indices[0]), int(indices[-1]) + 1
    grown = margin * (end - first)
    return max(0, int(first - grown)), min(len(occupied), int(end + grown))


def _blur(pixels: torch.Tensor, sigma: float) -> torch.Tensor:
    if min(pixels.shape[-2:]) <= _BLUR_RADIUS:
        raise ValueError(f"an image of {pixels.shape[-2]}x{pixels.shape[-1]} pixels is too small to be blurred")
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=torch.float32, device=pixels.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(pixels.dtype).expand(3, 1, 1, -1)
    padded = F.pad(pixels, (_BLUR_RADIUS,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _require_same_size(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    if masks.shape != (len(pixels), *pixels.shape[-2:]):
        wanted = (len(pixels), *pixels.shape[-2:])
        raise ValueError(f"the masks of images {tuple(pixels.shape)} must be {wanted}, got {tuple(masks.shape)}")


def fade_background(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blurs and darkens the background of an RGB image, as ``emphasise`` does for normalised pixels, up to rounding.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool, True where the object is.

    Returns:
        (H, W, 3) uint8.
    """
    side = 2 * _BLUR_RADIUS + 1
    blurred = cv2.GaussianBlur(rgb, (side, side), BLUR_SIGMA).astype(np.float32)
    return np.where(mask[..., None], rgb, MEAN_RGB + INTENSITY * (blurred - MEAN_RGB)).astype(np.uint8)
