# SPDX-License-Identifier: Apache-2.0
"""Things at a point or in a box by SAM 2 or EdgeTAM, as the package transformers runs them, where both are there.

The models know no words: they only serve where somebody points. Their weights are not part of this package. Those of
SAM 2 (facebook/sam2.1-hiera-tiny and its sisters) and of EdgeTAM (yonigozlan/EdgeTAM-hf) are under Apache-2.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clip_seg_ros.pipeline.cutting import Box, largest_part, part_at
from clip_seg_ros.pipeline.pointing import require_box, require_point
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.types import ObjectRegion

LICENCES = {"facebook/sam2": "Apache-2.0", "yonigozlan/EdgeTAM": "Apache-2.0"}
"""The licences of published weights, by the beginning of their names."""


class SegmentAnything:
    """A SAM 2 or an EdgeTAM with its weights.

    Args:
        source: A folder that ``save_pretrained`` wrote, with model and processor, or the name of such a folder on the
            Hugging Face hub.
        device: "auto", "cpu", "cuda" or "cuda:N".
        download: Whether what is not in the cache of the hub is fetched.

    Raises:
        ValueError: transformers is not installed, the weights are not there, or they are of another model; the message
            says what to type.
    """

    def __init__(self, source: str, device: str = "auto", download: bool = False) -> None:
        self.source, self.device = source, resolve_device(device)
        self._processor, model = _loaded(source, download)
        self._model = model.to(self.device).eval()

    def thing_at(self, rgb: np.ndarray, point_px: tuple[float, float], name: str = "thing") -> ObjectRegion:
        """Finds the thing at a point (x, y) of an image (H, W, 3) uint8, as ``pointing.thing_at`` does.

        Raises:
            ValueError: The point is outside of the image, or nothing is found.
        """
        require_point(point_px, rgb.shape[:2])
        mask, score = self._best(rgb, input_points=[[[list(map(float, point_px))]]], input_labels=[[[1]]])
        x, y = (min(max(round(at), 0), side - 1) for at, side in zip(point_px, rgb.shape[1::-1], strict=True))
        part = part_at(mask, (x, y))
        return self._region(part if part.any() else largest_part(mask), score, name)

    def thing_in(self, rgb: np.ndarray, box_px: Box, name: str = "thing") -> ObjectRegion:
        """Finds the thing in a box of an image (H, W, 3) uint8, as ``pointing.thing_in`` does.

        Raises:
            ValueError: The box is empty or reaches out of the image, or nothing is found.
        """
        require_box(box_px, rgb.shape[:2])
        mask, score = self._best(rgb, input_boxes=[[list(map(float, box_px))]])
        return self._region(largest_part(mask), score, name)

    @torch.inference_mode()
    def _best(self, rgb: np.ndarray, **prompts: Any) -> tuple[np.ndarray, float]:
        """Returns the best of the masks that the model gives, (H, W) bool, and the IoU that it expects of it."""
        inputs = self._processor(images=np.ascontiguousarray(rgb), return_tensors="pt", **prompts).to(self.device)
        found = self._model(**inputs, multimask_output=True)
        masks = self._processor.post_process_masks(found.pred_masks.cpu(), inputs["original_sizes"].cpu())[0][0]
        scores = found.iou_scores[0, 0]
        best = int(scores.argmax())
        return masks[best].numpy().astype(np.bool_), float(scores[best])

    def _region(self, mask: np.ndarray, score: float, name: str) -> ObjectRegion:
        if not mask.any():
            raise ValueError(f"{self.source} finds nothing there")
        return ObjectRegion.of_mask(name, 1, min(max(score, 0.0), 1.0), mask)


def licence_of(source: str) -> str:
    """Returns the licence of published weights by their name; empty if it is not known."""
    return next((licence for name, licence in LICENCES.items() if source.startswith(name)), "")


def _loaded(source: str, download: bool) -> tuple[Any, Any]:
    """Returns the processor and the model of ``source``; raises what ``SegmentAnything`` raises."""
    # This import comes first, because it makes torchvision importable even if it does not fit torch.
    from clip_seg_ros.models.clip import backbone  # noqa: F401

    try:
        from transformers import AutoConfig, AutoModelForMaskGeneration, AutoProcessor
    except ImportError as error:
        raise ValueError(
            f"{source} needs transformers, which cannot be imported ({error}): type `pip install clip_seg_ros[sam2]`, "
            "or in a clone `pip install .[sam2]`"
        ) from error
    try:
        kind = AutoConfig.from_pretrained(source, local_files_only=not download).model_type
        if kind not in ("sam2", "sam2_video", "edgetam", "edgetam_video"):
            raise ValueError(f"{source} is a {kind}: name weights of SAM 2 or EdgeTAM")
        processor = AutoProcessor.from_pretrained(source, local_files_only=not download)
        return processor, AutoModelForMaskGeneration.from_pretrained(source, local_files_only=not download)
    except (OSError, ImportError) as error:
        raise ValueError(
            f"the weights {source} cannot be loaded: type `hf download {source}` where there is a network, set the "
            f"parameter download, or name a folder with config.json and model.safetensors ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
