# SPDX-License-Identifier: Apache-2.0
"""How well an example image agrees with the name of its object, prepared in each way that CLIPSeg's authors tried.

This is the experiment behind CLIPSeg's visual prompt engineering (section 3.3 and table 1 of the paper). CLIP embeds an
image of several objects and compares it with the names of all of them. P is the probability, by CLIP's own softmax, of
the object that is meant. A good preparation raises it above that of the unchanged image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.data.samples import DataError, InstanceDataset, InstanceSample
from clip_seg_ros.evaluation.prefetch import read_ahead
from clip_seg_ros.evaluation.protocols import Progress
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.models.clip.vision_taps import ViTTaps
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.models.clipseg.visual_prompts import BLUR_SIGMA, crop_to_object, emphasise
from clip_seg_ros.pipeline.preprocess import Preprocessor

TEMPLATE = "a photo of a {}"
MIN_SHARE = 0.1
"""The least share of the image that a class covers to be meant, as in the authors' code."""
MIN_NAMES = 3
"""The least number of classes in an image, as in the authors' code."""
_RED = (255, 0, 0)
_TINT = (1.0, 0.2, 0.2)
_OUTLINE_PX = 5
_WIDE, _TIGHT = 0.5, 0.1


@dataclass(frozen=True)
class NamedObject:
    """One class in an image that shows several."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool, of all objects of the class."""
    names: tuple[str, ...]
    """The classes in the image, of which the first is meant."""


Embed = Callable[["PreparedObject"], torch.Tensor]
"""Returns the image embedding (1, D)."""


class PreparedObject:
    """An object at the size that the model sees, in which the ways of preparing it share what is resized.

    Args:
        model: The model, in evaluation mode.
        found: The object.
    """

    def __init__(self, model: CLIPSeg, found: NamedObject) -> None:
        self.model = model
        device = model.clip.positional_embedding.device
        self._preprocess = Preprocessor(model.input_spec, device)
        side = model.input_spec.size
        self.rgb = cv2.resize(found.rgb, (side, side), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(found.mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
        self.mask = mask.astype(bool)
        self.masks = torch.from_numpy(self.mask)[None].to(device)

    def pixels(self, rgb: np.ndarray | None = None) -> torch.Tensor:
        """Returns the image, or another one of its size, normalised: (1, 3, side, side)."""
        rgb = self.rgb if rgb is None else rgb
        # The sides are those of the model already; a model with another resize than to a square gets this square.
        return self._preprocess(np.ascontiguousarray(rgb)).pixels

    def embedded(self, pixels: torch.Tensor, masked: dict | None = None) -> torch.Tensor:
        """Embeds normalised pixels (1, 3, h, w) at the size of CLIP's own training."""
        side = _tower_side(self.model)
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        if masked is None:
            return self.model.encode_image_prompt(pixels)
        masks = F.interpolate(self.masks[None].float(), size=(side, side), mode="nearest")[0]
        return self.model.encode_image_prompt(pixels, masks, **masked)


def ways(model: CLIPSeg) -> dict[str, Embed]:
    """Returns the ways to prepare an object, by their names in figures; the first leaves the image as it is."""
    found: dict[str, Embed] = {"unchanged": lambda item: item.embedded(item.pixels())}
    if isinstance(model.taps, ViTTaps):
        last = len(model.clip.visual.transformer.resblocks) - 1
        for name, masked in (
            ("masked_class_token_last_block", {"masked_layers": (last,), "masked_queries": "class"}),
            ("masked_class_token", {"masked_queries": "class"}),
            ("masked_all_tokens", {"masked_queries": "all"}),
        ):
            found[name] = partial(_masked, masked=masked)
    found["red_object"] = lambda item: item.embedded(item.pixels(dye_object(item.rgb, item.mask)))
    found["red_outline"] = lambda item: item.embedded(item.pixels(outline_object(item.rgb, item.mask)))
    for name, blur, intensity, margin in (
        ("background_50", 0.0, 0.5, None),
        ("background_10", 0.0, 0.1, None),
        ("background_0", 0.0, 0.0, None),
        ("background_blurred", BLUR_SIGMA, 1.0, None),
        ("background_blurred_10", BLUR_SIGMA, 0.1, None),
        ("crop_wide", 0.0, 1.0, _WIDE),
        ("crop_tight", 0.0, 1.0, _TIGHT),
        ("crop_blurred", BLUR_SIGMA, 1.0, _TIGHT),
        ("crop_10", 0.0, 0.1, _TIGHT),
        ("crop_blurred_10", BLUR_SIGMA, 0.1, _TIGHT),
    ):
        found[name] = partial(_emphasised, blur=blur, intensity=intensity, margin=margin)
    return found


def evaluate_alignment(
    model: CLIPSeg,
    dataset: InstanceDataset,
    indices: Sequence[int],
    template: str = TEMPLATE,
    progress: Progress = iter,
) -> tuple[Figure, ...]:
    """Measures every way on the objects of a data set.

    Every class that covers more than ``MIN_SHARE`` of an image of ``MIN_NAMES`` classes or more is meant once. Where
    several objects have the class, their masks are joined.

    Args:
        model: The model, in evaluation mode; its decoder is not used.
        dataset: Pictures of several objects with masks.
        indices: The pictures to measure.
        template: What puts a class into words.
        progress: Wraps the samples, for a progress bar.

    Returns:
        P of the unchanged image, how much each way adds to it, and the number of objects.

    Raises:
        DataError: A picture cannot be read, the objects have no masks, or no picture fits.
    """
    embeds = ways(model)
    sums = dict.fromkeys(embeds, 0.0)
    count = 0
    with torch.inference_mode():
        for _, sample in progress(read_ahead(dataset, indices)):
            for found in named_objects(sample, dataset.class_names):
                item = PreparedObject(model, found)
                text = model.encode_text([template.format(name) for name in found.names]).pooled
                for name, embed in embeds.items():
                    sums[name] += float(_probabilities(model, embed(item), text)[0])
                count += 1
    if not count:
        raise DataError(
            f"no picture shows {MIN_NAMES} classes or more of which one covers more than {MIN_SHARE:.0%}, as needed"
        )
    base, *others = sums
    figures = [Figure(f"alignment.{base}", sums[base] / count, "P of the object that is meant")]
    figures += [Figure(f"alignment.{name}", (sums[name] - sums[base]) / count, "added to P") for name in others]
    return (*figures, Figure("alignment.count", count, "objects"))


def named_objects(sample: InstanceSample, class_names: Sequence[str]) -> Iterator[NamedObject]:
    """Yields the classes of a picture that are large enough to be meant.

    Raises:
        DataError: The objects have no masks.
    """
    if sample.masks is None:
        raise DataError(f"{sample.name}: its objects are boxes alone, and masks are needed")
    there = sorted(set(sample.labels.tolist()))
    if len(there) < MIN_NAMES:
        return
    for label in there:
        mask = sample.masks[sample.labels == label].any(axis=0)
        if mask.mean() > MIN_SHARE:
            order = [label, *(other for other in there if other != label)]
            names = tuple(class_names[other].replace("_", " ") for other in order)
            yield NamedObject(sample.rgb, mask, names)


def dye_object(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Makes an image grey and its object red; (H, W, 3) uint8 and (H, W) bool to (H, W, 3) uint8."""
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    return np.where(mask[..., None], grey * np.float32(_TINT), grey).round().astype(np.uint8)


def outline_object(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draws a red line around the object; (H, W, 3) uint8 and (H, W) bool to (H, W, 3) uint8."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(rgb.copy(), outlines, -1, _RED, _OUTLINE_PX)


def _masked(item: PreparedObject, masked: dict) -> torch.Tensor:
    return item.embedded(item.pixels(), masked)


def _emphasised(item: PreparedObject, blur: float, intensity: float, margin: float | None) -> torch.Tensor:
    pixels = emphasise(item.pixels(), item.masks, blur_sigma=blur, intensity=intensity)
    if margin is not None:
        pixels = crop_to_object(pixels, item.masks, max(pixels.shape[2:]), margin=margin)
    return item.embedded(pixels)


def _probabilities(model: CLIPSeg, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Returns CLIP's probability (P,) of each text (P, D) for an image (1, D)."""
    cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    return (model.clip.logit_scale.exp() * cosines).softmax(dim=-1)[0]


def _tower_side(model: CLIPSeg) -> int:
    """Returns the side in pixels of the images on which the image tower was trained."""
    size = model.clip.visual.image_size
    return size if isinstance(size, int) else size[0]
