# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP as a detector and instance segmenter (section 3.4): Mask R-CNN or RetinaNet on maps with the score map.

``prompting`` makes the maps. An FPN and the heads are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.backbone import TextTransformer
from clip_seg_ros.models.clip.tokenizer import Tokenizer
from clip_seg_ros.models.denseclip.backbones import STRIDES, DenseBackbone, DenseFeatures
from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig, build_mask_rcnn, build_retinanet
from clip_seg_ros.models.denseclip.prompting import PromptingConfig, TextGuided
from clip_seg_ros.models.detections import Detections, in_window

_LEAST_DOUBT = 1e-4
"""The distance from 0 and 1 that probabilities keep as logits."""


@dataclass(frozen=True)
class InstanceTargets:
    """The true objects of one image, for the loss."""

    boxes: torch.Tensor
    """(N, 4) left, top, right, bottom in pixels, all sides longer than 0."""
    labels: torch.Tensor
    """(N,) int64 index into the model's class names."""
    masks: torch.Tensor | None
    """(N, H, W) uint8, 1 inside; ``None`` for a model of boxes."""


class DenseCLIPInstances(TextGuided[DenseCLIPInstancesConfig]):
    """Finds the objects of a fixed list of classes, with boxes and, with Mask R-CNN, masks."""

    competition = "sigmoid"
    finds_objects = True
    config_type: ClassVar[type[PromptingConfig]] = DenseCLIPInstancesConfig

    def __init__(
        self,
        name: str,
        backbone: DenseBackbone,
        text_encoder: TextTransformer,
        config: DenseCLIPInstancesConfig,
        tokenizer: Tokenizer,
    ) -> None:
        """Combines the parts; all weights but those of the towers are random.

        Raises:
            ValueError: The length of the text tower's context is not that of contexts and names together.
        """
        super().__init__(name, backbone, text_encoder, config, tokenizer)
        build = build_mask_rcnn if config.head == "mask_rcnn" else build_retinanet
        self.detector = build(config, self.guided_widths)

    def detect(self, image: DenseFeatures, text: TextFeatures) -> list[Detections]:
        """Returns the objects of every image. ``text`` has all classes in their order."""
        maps, _ = self.guided_maps(image, text, self.config.tau)
        images = _image_list(maps, [_size(maps)] * len(maps[0]))
        pyramid = self._pyramid(maps)
        if self.config.head == "retinanet":
            return [
                self._detections(image, found["boxes"], found["scores"], found["labels"], None)
                for found in self._retinanet_answers(images, list(pyramid.values()))
            ]
        proposals, _ = self.detector.rpn(images, pyramid)
        answers, _ = self.detector.roi_heads(pyramid, proposals, images.image_sizes)
        # torchvision's class 0 is the background.
        return [
            self._detections(image, found["boxes"], found["scores"], found["labels"] - 1, found["masks"][:, 0])
            for found in answers
        ]

    def losses(
        self, image: DenseFeatures, text: TextFeatures, sizes: Sequence[tuple[int, int]], targets: list[InstanceTargets]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Returns the terms of the detector's own loss, and the score map (B, K, h, w), which has a loss of its own.

        Args:
            image: The features of B images.
            text: The features of all classes.
            sizes: (H, W) of each image without its padding.
            targets: The objects of each image.
        """
        maps, scores = self.guided_maps(image, text, self.config.tau)
        images, pyramid = _image_list(maps, list(sizes)), self._pyramid(maps)
        first = 0 if self.config.head == "retinanet" else 1
        true: list[dict[str, torch.Tensor]] = [
            {"boxes": target.boxes, "labels": target.labels + first}
            | ({} if target.masks is None else {"masks": target.masks})
            for target in targets
        ]
        if self.config.head == "retinanet":
            levels = list(pyramid.values())
            outputs, anchors = self.detector.head(levels), self.detector.anchor_generator(images, levels)
            return _named(self.detector.compute_loss(true, outputs, anchors)), scores
        proposals, of_proposals = self.detector.rpn(images, pyramid, true)
        _, of_boxes = self.detector.roi_heads(pyramid, proposals, images.image_sizes, true)
        return _named({**of_proposals, **of_boxes}), scores

    def decode(self, image: DenseFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, K, H / 4, W / 4) of the probability that an object of the class covers the place.

        ``text`` has all classes in their order.
        """
        return torch.stack([found.maps for found in self.detect(image, text)])

    def _detections(
        self,
        image: DenseFeatures,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor | None,
    ) -> Detections:
        """Adds the maps of all classes to the objects of one of the images."""
        size = tuple(image.maps[0].shape[2:])
        shares = image.dense.new_zeros(len(self.class_names), *size)
        for place, label in enumerate(labels.tolist()):
            window, inside = in_window(None if masks is None else masks[place], boxes[place] / STRIDES[0], size)
            part = shares[label][window]
            torch.maximum(part, (scores[place] * inside).to(part.dtype), out=part)
        return Detections(boxes, scores, labels, masks, shares.float().logit(eps=_LEAST_DOUBT))

    def _pyramid(self, maps: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns five maps of equal width by name, the finest first."""
        first = len(maps) - len(self.detector.backbone.inner_blocks)
        return self.detector.backbone(OrderedDict((str(level), maps[level]) for level in range(first, len(maps))))

    def _retinanet_answers(self, images: Any, levels: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        outputs, anchors = self.detector.head(levels), self.detector.anchor_generator(images, levels)
        per_place = self.detector.anchor_generator.num_anchors_per_location()
        counts = [level.shape[2] * level.shape[3] * count for level, count in zip(levels, per_place, strict=True)]
        by_level = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
        anchors = [list(part.split(counts)) for part in anchors]
        return self.detector.postprocess_detections(by_level, anchors, images.image_sizes)


def _size(maps: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Returns (H, W) of the images of ``maps``."""
    return maps[0].shape[2] * STRIDES[0], maps[0].shape[3] * STRIDES[0]


def _image_list(maps: Sequence[torch.Tensor], sizes: list[tuple[int, int]]) -> Any:
    """Returns torchvision's list of images, of which the detectors only read the sizes."""
    from torchvision.models.detection.image_list import ImageList

    return ImageList(maps[0].new_empty(len(sizes), 0, *_size(maps)), sizes)


def _named(losses: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns torchvision's terms with names like those of the other recipes."""
    names = {
        "loss_objectness": "proposed",
        "loss_rpn_box_reg": "proposed_box",
        "loss_classifier": "class",
        "loss_box_reg": "box",
        "loss_mask": "mask",
        "classification": "class",
        "bbox_regression": "box",
    }
    return {names[name]: value for name, value in losses.items()}
