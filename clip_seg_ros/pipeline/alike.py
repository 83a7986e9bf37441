# SPDX-License-Identifier: Apache-2.0
"""All objects of an image that are like those in some boxes of it, by a model that takes boxes as examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.cutting import Box
from clip_seg_ros.pipeline.instances import Instance, distinct, instances_of
from clip_seg_ros.pipeline.pointing import require_box
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.prompts import checked_prompts

UNNAMED = "thing"
"""The name of objects for which there is no phrase."""


def instances_like(
    predictor: Predictor,
    encoded: EncodedImage,
    boxes_px: Sequence[Box],
    is_positive: Sequence[bool] | None = None,
    phrase: str | None = None,
    least_score: float | None = None,
) -> list[Instance]:
    """Finds all objects of an image that are like those in some boxes of it.

    Args:
        predictor: Predictor of a model whose spec has ``box_phrase``, as SAM 3.
        encoded: The image, from ``predictor.encode``.
        boxes_px: Boxes of the image, (x_min, y_min, x_max, y_max) in pixels, of which each holds one object.
        is_positive: For each box, whether such objects are meant; False for objects that are not. By default, all are.
        phrase: What the objects are, for a model that is to know more than boxes; it becomes their name.
        least_score: Objects with a lower score are left out, 0..1; by default the model's threshold.

    Returns:
        The objects, the best first, as ``Predictor.instances`` does. Those in the boxes are among them if the model is
        sure of them.

    Raises:
        ValueError: The model takes no boxes, a box is empty or reaches out of the image, there are not as many answers
            as boxes, or neither a phrase nor a positive box says what is meant.
    """
    spec, geometry = predictor.spec, encoded.geometry
    words = phrase_of_boxes(spec)
    if phrase is not None:
        (words,) = checked_prompts([phrase], spec)
    positive = [True] * len(boxes_px) if is_positive is None else [bool(each) for each in is_positive]
    if len(positive) != len(boxes_px):
        raise ValueError(f"is_positive must have a value for each of the {len(boxes_px)} boxes, got {len(positive)}")
    if not boxes_px or (phrase is None and not any(positive)):
        raise ValueError("no box shows what is meant: give at least one, or a phrase with boxes of what is not meant")
    for box in boxes_px:
        require_box(box, geometry.source_size)
    (height, width), (model_height, model_width) = geometry.source_size, geometry.model_size
    boxes = torch.tensor(boxes_px, dtype=torch.float32) * torch.tensor([model_width / width, model_height / height] * 2)
    engine = predictor.engine
    with torch.inference_mode():
        found = engine.detect_like(encoded.features, engine.encode_text([words]), boxes, torch.tensor(positive))
    least = spec.threshold if least_score is None else least_score
    return distinct(instances_of(found, [phrase or UNNAMED], geometry, least))


def phrase_of_boxes(spec: ModelSpec) -> str:
    """Returns what a model is asked where only boxes say what is meant; raises ValueError if it takes no boxes."""
    if spec.box_phrase is None:
        raise ValueError(f"{spec.name} takes no boxes as examples: to find things that are alike, use SAM 3")
    return spec.box_phrase
