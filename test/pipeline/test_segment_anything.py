# SPDX-License-Identifier: Apache-2.0
"""SAM 2 and EdgeTAM with random weights give the masks of transformers' own processor and model."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.pipeline.cutting import largest_part
from clip_seg_ros.pipeline.segment_anything import SegmentAnything, licence_of
from small_sam import write_small_sam

# After the models, which make torchvision importable where it does not fit torch.
from transformers import AutoModelForMaskGeneration, Sam2Processor  # isort: skip

POINT, BOX = (40.0, 20.0), (10, 10, 60, 40)


@pytest.fixture(scope="module", params=["sam2", "edgetam"])
def folder(request, tmp_path_factory):
    return str(write_small_sam(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module")
def rgb():
    picture = np.random.default_rng(0).integers(0, 90, (48, 80, 3)).astype(np.uint8)
    picture[15:30, 30:55] += 150
    return picture


def theirs(folder, rgb, **prompts):
    """The best mask of transformers' own example, (H, W) bool."""
    processor, model = Sam2Processor.from_pretrained(folder), AutoModelForMaskGeneration.from_pretrained(folder).eval()
    inputs = processor(images=rgb, return_tensors="pt", **prompts)
    with torch.no_grad():
        outputs = model(**inputs)
    masks = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0]
    return masks[0, outputs.iou_scores[0, 0].argmax()].numpy()


def test_a_point_gives_their_mask(folder, rgb):
    wanted = theirs(folder, rgb, input_points=[[[list(POINT)]]], input_labels=[[[1]]])
    region = SegmentAnything(folder, "cpu").thing_at(rgb, POINT, "it")
    assert wanted.any()
    assert not (region.mask & ~wanted).any(), "a part of theirs"
    assert region.prompt == "it"
    assert 0.0 <= region.score <= 1.0


def test_a_box_gives_their_mask(folder, rgb):
    wanted = theirs(folder, rgb, input_boxes=[[list(map(float, BOX))]])
    region = SegmentAnything(folder, "cpu").thing_in(rgb, BOX)
    assert mask_iou(region.mask, largest_part(wanted)) > 0.99


def test_points_and_boxes_outside_of_the_image_are_refused(folder, rgb):
    model = SegmentAnything(folder, "cpu")
    with pytest.raises(ValueError, match="outside of the picture of 80x48"):
        model.thing_at(rgb, (80, 5))
    with pytest.raises(ValueError, match="the box is empty"):
        model.thing_in(rgb, (5, 5, 5, 9))


def test_weights_that_are_not_there_say_what_to_type(tmp_path):
    with pytest.raises(ValueError, match=r"type `hf download .*/nothing` where there is a network, set the parameter"):
        SegmentAnything(str(tmp_path / "nothing"), "cpu")


def test_weights_of_another_model_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a bert: name weights of SAM 2 or EdgeTAM"):
        SegmentAnything(str(tmp_path), "cpu")


def test_without_transformers_it_says_what_to_type(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"type `pip install clip_seg_ros\[sam2\]`"):
        SegmentAnything(folder, "cpu")


def test_licences_are_known_by_name():
    assert licence_of("facebook/sam2.1-hiera-tiny") == licence_of("yonigozlan/EdgeTAM-hf") == "Apache-2.0"
    assert licence_of("/home/me/weights") == ""
