# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.vision_taps import TapFeatures
from clip_seg_ros.models.spec import InputSpec, SlidingWindow
from clip_seg_ros.runtime import graphs
from color_segmenter import ColorSegmenter
from nearness import assert_near
from small_models import CLASSES, CONFIGS, SHORT_SIDE, small_detector, small_model

TAPS = TapFeatures((torch.zeros(2, 5, 3), torch.ones(2, 4, 6)), (2, 2))


def test_features_come_apart_and_together_again() -> None:
    tensors = graphs.feature_tensors(TAPS)
    joined = graphs.with_tensors(graphs.emptied(TAPS), [tensor + 1 for tensor in tensors])

    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 5, 3), (2, 4, 6)]
    assert isinstance(joined, TapFeatures)
    assert joined.grid_size == (2, 2)
    assert joined.taps[1].unique().tolist() == [2.0]


def test_the_layout_tells_features_of_other_sizes_apart() -> None:
    layout = graphs.feature_layout(TAPS)

    assert graphs.feature_layout(TAPS.rows(0, 1)) == layout
    assert graphs.feature_layout(TapFeatures(TAPS.taps, (1, 4))) != layout
    assert graphs.feature_layout(TapFeatures((TAPS.taps[0], TAPS.taps[1][:, :3]), (2, 2))) != layout


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_layout_is_known_without_computing(kind: str) -> None:
    model = small_model(kind)
    with torch.inference_mode():
        computed = model.encode_image(torch.zeros(1, 3, 64, 96))

    assert graphs.feature_layout(graphs.features_without_numbers(model, (64, 96))) == graphs.feature_layout(computed)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (InputSpec(64, "squash", 32, (0, 0, 0), (1, 1, 1)), (64, 64)),
        (SHORT_SIDE, (48, 64)),
        (InputSpec(96, "short_side", 32, (0, 0, 0), (1, 1, 1), window=SlidingWindow(96, 64)), (96, 96)),
        (InputSpec(64, "short_side", 32, (0, 0, 0), (1, 1, 1), window=SlidingWindow(96, 64)), (64, 96)),
    ],
)
def test_the_usual_size_is_that_of_the_usual_camera(spec: InputSpec, size: tuple[int, int]) -> None:
    model = ColorSegmenter()
    model.input_spec = spec

    assert graphs.usual_size(model) == size


@pytest.mark.parametrize("kind", ["cris", "denseclip-pre", "maskclip", "scclip"])
def test_the_graphs_answer_as_the_model_for_any_number_of_images_and_prompts(kind: str) -> None:
    model = small_model(kind)
    exported = graphs.image_graphs(model, (64, 96), with_decoder=True)
    encoder, decoder = exported["encoder"].program.module(), exported["decoder"].program.module()

    # torch itself may refuse a single prompt, for which other runtimes are tested.
    for images, prompts in ((1, CLASSES), (3, model.class_names or CLASSES[:2])):
        pixels = torch.randn(images, 3, 64, 96)
        with torch.inference_mode():
            features, text = model.encode_image(pixels), model.encode_text(prompts)
            tensors = encoder(pixels)
            logits = decoder(*tensors, *graphs.text_tensors(text))
            expected = model.decode(features, text)
        for found, wanted in zip(tensors, graphs.feature_tensors(features), strict=True):
            assert_near(found, wanted)
        assert_near(logits, expected)


def test_names_and_shapes_of_a_graph() -> None:
    exported = graphs.image_graphs(small_model("cris"), (64, 64), with_decoder=True)
    encoder, decoder = exported["encoder"], exported["decoder"]

    assert encoder.input_names == ("pixels",)
    assert encoder.input_shapes == (("batch", 3, 64, 64),)
    assert encoder.output_names == decoder.input_names[:3] == ("feature_0", "feature_1", "feature_2")
    assert decoder.input_names[3:] == ("text_pooled", "text_tokens", "text_padding")
    assert decoder.input_shapes[3:] == (("prompts", 24), ("prompts", 12, 16), ("prompts", 12))
    assert decoder.open_shapes[0] == [-1, *decoder.input_shapes[0][1:]]
    assert decoder.output_names == ("logits",)


def test_a_model_answers_while_it_is_exported() -> None:
    model, pixels = small_model("clipseg-vit"), torch.randn(1, 3, 48, 64)
    text = TextFeatures(torch.randn(1, 24))
    with torch.inference_mode():
        expected = model.decode(model.encode_image(pixels), text)
    exporting = threading.Thread(target=graphs.image_graphs, args=(model, (48, 64), True))
    exporting.start()
    answers = 0
    while exporting.is_alive():
        with torch.inference_mode():
            found = model.decode(model.encode_image(pixels), text)
        assert_near(found, expected)
        answers += 1
    exporting.join()

    assert answers > 1


def test_a_model_that_cannot_be_exported_is_refused() -> None:
    class Undecided(ColorSegmenter):
        def encode_image(self, pixels: torch.Tensor):
            if pixels.sum() > 1:
                pixels = -pixels
            return super().encode_image(pixels)

    with pytest.raises(RuntimeError, match=r"torch .* cannot export the model: "):
        graphs.image_graphs(Undecided(), (48, 64), with_decoder=False)


def test_a_detector_is_not_exported() -> None:
    with pytest.raises(RuntimeError, match="small-detector finds objects one by one, and only PyTorch runs such"):
        graphs.image_graphs(small_detector(), (64, 64), with_decoder=True)
