# SPDX-License-Identifier: Apache-2.0
"""The experiment behind visual prompts, on tiny models against plain steps."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.data.samples import DataError, InstanceSample
from clip_seg_ros.evaluation.alignment import (
    NamedObject,
    PreparedObject,
    dye_object,
    evaluate_alignment,
    named_objects,
    outline_object,
    ways,
)
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.models.clipseg.visual_prompts import visual_prompt
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near
from small_models import small_model

SIZE = (40, 60)
CLASSES = ("cup", "red_box", "green", "the")
LEFT, TOP, CORNER = np.zeros((3, *SIZE), bool)
LEFT[:, :20], TOP[:8, 30:], CORNER[35:, 55:] = True, True, True


def picture(*objects: tuple[int, np.ndarray], seed: int = 0) -> InstanceSample:
    labels = np.array([label for label, _ in objects], np.int64)
    masks = np.array([mask for _, mask in objects], bool)
    rgb = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    boxes = np.zeros((len(objects), 4), np.float32)
    return InstanceSample(rgb, labels, boxes, masks, masks.sum(axis=(1, 2)), np.zeros(len(objects), bool), f"p{seed}")


class Pictures(list):
    class_names = CLASSES


@pytest.fixture(scope="module")
def vit() -> CLIPSeg:
    return small_model("clipseg-vit")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures(
        [
            picture((0, LEFT), (1, TOP), (2, CORNER)),
            picture((0, LEFT), (1, TOP), seed=1),  # two names are too few
            picture((3, CORNER), (2, TOP), (0, CORNER), (2, LEFT), seed=2),
        ]
    )


def test_large_enough_classes_are_meant_once(pictures: Pictures) -> None:
    first, second, third = ([*named_objects(sample, CLASSES)] for sample in pictures)

    # The box covers just a tenth, and more is needed.
    assert [found.names for found in first] == [("cup", "red box", "green")]
    assert (first[0].mask == LEFT).all()
    assert second == []
    assert [found.names for found in third] == [("green", "cup", "the")]
    assert (third[0].mask == (LEFT | TOP)).all()
    with pytest.raises(DataError, match="p0: its objects are boxes alone"):
        next(named_objects(replace(pictures[0], masks=None), CLASSES))


def plain_probability(model: CLIPSeg, embedding: torch.Tensor, names: tuple[str, ...]) -> float:
    text = model.encode_text([f"a photo of a {name}" for name in names]).pooled
    scores = [model.clip.logit_scale.exp() * F.cosine_similarity(embedding, row[None]) for row in text]
    return float(torch.cat(scores).softmax(dim=0)[0])


@torch.inference_mode()
def test_figures_are_means_over_objects(vit: CLIPSeg, pictures: Pictures) -> None:
    figures = {figure.name.split(".")[1]: figure.value for figure in evaluate_alignment(vit, pictures, range(3))}
    side = vit.input_spec.size
    unchanged, emphasised = [], []
    for found in (named for sample in pictures for named in named_objects(sample, CLASSES)):
        square = cv2.resize(found.rgb, (side, side), interpolation=cv2.INTER_AREA)
        pixels = Preprocessor(vit.input_spec, torch.device("cpu"))(square).pixels
        mask = cv2.resize(found.mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
        cut = visual_prompt(pixels, torch.from_numpy(mask)[None], side)
        for kept, image in ((unchanged, pixels), (emphasised, cut)):
            sized = F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False)
            kept.append(plain_probability(vit, vit.encode_image_prompt(sized), found.names))
    assert figures["count"] == len(unchanged) == 2
    assert figures["unchanged"] == pytest.approx(np.mean(unchanged), rel=1e-4)
    assert figures["crop_blurred_10"] == pytest.approx(np.mean(emphasised) - np.mean(unchanged), abs=1e-5)
    assert set(figures) == {*ways(vit), "count"}


@torch.inference_mode()
def test_every_way_changes_the_embedding(vit: CLIPSeg, pictures: Pictures) -> None:
    found = next(named_objects(pictures[0], CLASSES))
    item = PreparedObject(vit, found)
    embeddings = {name: embed(item) for name, embed in ways(vit).items()}

    assert len(embeddings) == 16
    names = list(embeddings)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            difference = (embeddings[name] - embeddings[other]).abs().max()
            assert difference > 1e-4 * embeddings[name].abs().max(), (name, other)


@torch.inference_mode()
def test_on_black_the_background_does_not_matter(vit: CLIPSeg) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[:16, :16] = True
    other = np.where(mask[..., None], rgb, 255 - rgb)
    embed = ways(vit)["background_0"]
    first, second = (embed(PreparedObject(vit, NamedObject(image, mask, ("cup",)))) for image in (rgb, other))

    assert_near(first, second)


def test_attention_is_masked_in_a_vit_alone() -> None:
    resnet = build_segmenter("clipseg-pocket")

    assert not [name for name in ways(resnet) if name.startswith("masked")]
    assert len(ways(resnet)) == 13


def test_red_objects_and_outlines() -> None:
    rgb = np.full((*SIZE, 3), (10, 200, 90), np.uint8)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[0, 0]

    dyed, outlined = dye_object(rgb, LEFT), outline_object(rgb, CORNER)

    assert dyed[0, 40].tolist() == [grey] * 3
    assert dyed[0, 0].tolist() == [grey, round(grey / 5), round(grey / 5)]
    assert outlined[35, 57].tolist() == [255, 0, 0]
    assert outlined[0, 0].tolist() == [10, 200, 90]
    assert (rgb == (10, 200, 90)).all(), "the picture itself stays as it is"


def test_pictures_that_do_not_fit_are_said(vit: CLIPSeg, pictures: Pictures) -> None:
    with pytest.raises(DataError, match="no picture shows 3 classes or more of which one covers more than 10%"):
        evaluate_alignment(vit, pictures, [1])
