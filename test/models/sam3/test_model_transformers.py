# SPDX-License-Identifier: Apache-2.0
"""SAM 3 against transformers' own model and processor, on a small network of random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.sam3.model import LEAST_SCORE, SAM3
from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.instances import MASK_THRESHOLD, instances_of
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.eager import EagerEngine
from nearness import assert_near

PROMPTS = ("cup", "the red screwdriver on the left!", "!")
SIZE = (90, 130)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    blocks = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return blocks.repeat(10, axis=0).repeat(10, axis=1)


@pytest.fixture(scope="module")
def model(make: Callable[..., SAM3]) -> SAM3:
    return make()


@pytest.fixture(scope="module")
def theirs(network: Any, processor: Any, image: np.ndarray) -> Any:
    """(what went in, what came out) of transformers for all prompts, each on the same image."""
    inputs = processor(images=[image] * len(PROMPTS), text=list(PROMPTS), return_tensors="pt")
    with torch.inference_mode():
        return inputs, network(**inputs)


@pytest.fixture(scope="module", params=[0.15, 0.5, 0.8])
def threshold(theirs: Any, request: pytest.FixtureRequest) -> float:
    """A score below which about this share of the objects lies, as far as can be from the nearest ones."""
    _, output = theirs
    scores = (output.pred_logits.sigmoid() * output.presence_logits.sigmoid()).flatten().sort().values
    place = int(request.param * len(scores))
    near = scores[place - 4 : place + 4]
    widest = near.diff().argmax()
    return float(near[widest] + near[widest + 1]) / 2


@torch.inference_mode()
def test_phrases(model: SAM3, network: Any, theirs: Any) -> None:
    inputs, _ = theirs
    text = model.encode_text(PROMPTS)
    used = inputs["attention_mask"].bool()
    assert torch.equal(~text.padding_mask, used)
    assert torch.equal(model.tokenizer(PROMPTS)[used], inputs["input_ids"][used])
    expected = network.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    assert_near(text.tokens[used], expected[used])
    assert_near(text.pooled[0], expected[0, int(used[0].sum()) - 1])


def test_pixels(model: SAM3, theirs: Any, image: np.ndarray) -> None:
    inputs, _ = theirs
    pixels = Predictor(EagerEngine(model, "cpu")).encode(image)
    assert pixels.geometry.model_size == (112, 112)
    # transformers rounds to whole numbers of 0..255, which are 2 / 255 apart after the normalisation.
    own = Predictor(EagerEngine(model, "cpu"))._preprocess(image).pixels
    assert_near(own[0], inputs["pixel_values"][0], 1.01 / 255, scale=1.0)


@torch.inference_mode()
def test_objects(model: SAM3, processor: Any, theirs: Any, image: np.ndarray, threshold: float) -> None:
    inputs, output = theirs
    expected = processor.post_process_instance_segmentation(output, threshold, MASK_THRESHOLD, [SIZE] * len(PROMPTS))
    assert threshold > LEAST_SCORE
    (found,) = model.detect(model.encode_image(inputs["pixel_values"][:1]), model.encode_text(PROMPTS))
    geometry = Predictor(EagerEngine(model, "cpu")).encode(image).geometry
    objects = instances_of(found, PROMPTS, geometry, threshold)
    assert [item.score for item in objects] == sorted((item.score for item in objects), reverse=True)
    assert 3 < len(objects) < output.pred_logits.numel()
    for prompt, right in zip(PROMPTS, expected, strict=True):
        shown = right["masks"].flatten(1).any(dim=1)  # an object without a pixel is none here
        order = right["scores"][shown].argsort(descending=True)
        ours = [item for item in objects if item.name == prompt]
        assert len(ours) == len(order)
        assert_near(torch.tensor([item.score for item in ours]), right["scores"][shown][order])
        assert_near(torch.tensor([item.box for item in ours]).reshape(-1, 4), right["boxes"][shown][order])
        for item, mask in zip(ours, right["masks"][shown][order], strict=True):
            assert (item.region(1).mask == mask.numpy().astype(bool)).mean() > 0.999


@torch.inference_mode()
def test_map_of_objects(model: SAM3, theirs: Any, threshold: float) -> None:
    inputs, output = theirs
    logits = model.decode(model.encode_image(inputs["pixel_values"][:1]), model.encode_text(PROMPTS))
    scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
    for least in (threshold, 0.6 * threshold):
        sure = (scores > least)[:, :, None, None]
        expected = ((output.pred_masks.sigmoid() > least) & sure).any(dim=1)
        assert 0.0 < expected.float().mean() < 1.0
        assert ((logits[0].sigmoid() > least) == expected).float().mean() > 0.999


@torch.inference_mode()
def test_semantic_map(make: Callable[..., SAM3], theirs: Any) -> None:
    inputs, output = theirs
    model = make(phrase_map="semantic")
    logits = model.decode(model.encode_image(inputs["pixel_values"][:1]), model.encode_text(PROMPTS))
    assert_near(logits[0], output.semantic_seg[:, 0])


@torch.inference_mode()
def test_images_and_prompts_are_answered_alone(model: SAM3) -> None:
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(2))
    image, text = model.encode_image(pixels), model.encode_text(PROMPTS)
    together, objects = model.decode(image, text), model.detect(image, text)
    assert together.shape[:2] == (2, 3)
    for row in range(2):
        for column in range(3):
            pair = image.rows(row, row + 1), TextFeatures(*(part[column : column + 1] for part in _parts(text)))
            assert_near(together[row, column], model.decode(*pair)[0, 0])
            (alone,) = model.detect(*pair)
            mine = objects[row].labels == column
            assert_near(objects[row].scores[mine], alone.scores)
            assert_near(objects[row].masks[mine], alone.masks)


def _parts(text: TextFeatures) -> tuple[torch.Tensor, ...]:
    return text.pooled, text.tokens, text.padding_mask


def test_serves_phrases_objects_and_classes(model: SAM3, image: np.ndarray, threshold: float) -> None:
    predictor = Predictor(EagerEngine(model, "cpu"))
    encoded = predictor.encode(image)
    assert predictor.ask(encoded, PROMPTS).values.shape == (3, *SIZE)
    objects = predictor.instances(encoded, PROMPTS, threshold, keep_same=True)
    assert {item.name for item in objects} <= set(PROMPTS)
    assert objects[0].score == max(item.score for item in objects)
    classes = predictor.classify(encoded, PROMPTS, threshold)
    best = predictor.instances(encoded, PROMPTS, threshold)[0]
    window = classes.labels[best.box_px[1] : best.box_px[3], best.box_px[0] : best.box_px[2]]
    assert (window[best.inside] == PROMPTS.index(best.name)).all()


def test_answers_are_the_objects_of_each_phrase(model: SAM3, image: np.ndarray, threshold: float) -> None:
    predictor = Predictor(EagerEngine(model, "cpu"))
    encoded = predictor.encode(image)
    passes: list[int] = []
    hook = model.network.detr_decoder.register_forward_hook(lambda *_: passes.append(1))
    found = answer(predictor, encoded, Question(PROMPTS, threshold=threshold))
    hook.remove()
    assert len(passes) == 1, "three phrases are answered together, and once"
    for prompt in PROMPTS:
        expected = predictor.instances(encoded, [prompt], threshold)
        mine = [region for region in found.regions if region.prompt == prompt]
        assert_near(np.array([region.score for region in mine]), np.array([item.score for item in expected]))
        assert all((one.mask == other.region(1).mask).mean() > 0.999 for one, other in zip(mine, expected, strict=True))
    assert_near(found.maps.restored().values, predictor.ask(encoded, PROMPTS).values)


def test_objects_without_names_are_refused(model: SAM3, image: np.ndarray) -> None:
    predictor = Predictor(EagerEngine(model, "cpu"))
    with pytest.raises(ValueError, match="no prompts: ask about at least one phrase"):
        predictor.instances(predictor.encode(image))
