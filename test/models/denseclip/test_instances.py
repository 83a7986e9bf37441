# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP's detectors: their parts, what they find and what they learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig
from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances, InstanceTargets
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec, SlidingWindow
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.writing import store
from nearness import assert_near

NAMES = ("5", "6 7", "8")
SPEC = InputSpec(64, "short_side", 32, CLIP_MEAN, CLIP_STD)
TOWERS: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 8},
    "vit": {"layers": 4, "width": 16, "image_size": 64, "patch_size": 16, "head_width": 8},
}


def make_config(head: str = "mask_rcnn", tower: str = "resnet", **changes: Any) -> dict[str, Any]:
    own = DenseCLIPInstancesConfig(
        **{
            "class_names": NAMES,
            "input_spec": SPEC,
            "n_contexts": 3,
            "context_width": 8,
            "context_heads": 2,
            "context_layers": 1,
            "blocks": (0, 1, 2, 3),
            "dropout": 0.0,
            "head": head,
            "pyramid_channels": 8,
            "box_channels": 16,
            "mask_channels": 8,
            "anchor_px": 16.0,
            "proposals": 20,
            "sampled_boxes": 16,
            **changes,
        }
    )
    return {
        "kind": "denseclip_instances",
        "embed_dim": 20,
        "quick_gelu": True,
        "text": {"context_length": 8, "vocab_size": 128, "width": 16, "heads": 2, "layers": 2},
        "vision": TOWERS[tower],
        "denseclip": own.to_dict(),
        "tokenizer": {"kind": "ids", "vocab_size": 128, "context_length": 77},
    }


def make_model(head: str = "mask_rcnn", tower: str = "resnet", **changes: Any) -> DenseCLIPInstances:
    torch.manual_seed(0)
    model = DenseCLIPInstances.from_config("tiny", make_config(head, tower, **changes))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bn3.weight") or name == "gamma":
                value.fill_(0.5)  # open_clip starts residual branches at zero
    return model.eval()


def pixels(size: tuple[int, int] = (64, 96), seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def targets(masks: bool = True) -> list[InstanceTargets]:
    drawn = torch.zeros(2, 64, 96, dtype=torch.uint8)
    drawn[0, 10:40, 8:50], drawn[1, 20:60, 40:90] = 1, 1
    boxes = torch.tensor([[8.0, 10, 50, 40], [40, 20, 90, 60]])
    empty = InstanceTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), drawn[:0] if masks else None)
    return [InstanceTargets(boxes, torch.tensor([0, 2]), drawn if masks else None), empty]


@pytest.fixture(params=["mask_rcnn", "retinanet"])
def head(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("tower", TOWERS)
def test_objects_lie_in_the_image_and_have_a_class(head: str, tower: str) -> None:
    model = make_model(head, tower, least_score=0.0, max_objects=7)
    with torch.no_grad():
        found = model.detect(model.encode_image(pixels()), model.encode_text(NAMES))
    assert len(found) == 2
    for one in found:
        assert one.boxes.shape == (7, 4)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= torch.tensor([96, 64, 96, 64])).all()
        assert (one.scores[:-1] >= one.scores[1:]).all(), "the best comes first"
        assert set(one.labels.tolist()) <= {0, 1, 2}
        if head == "retinanet":
            assert one.masks is None
        else:
            assert one.masks.shape == (7, 28, 28)


def test_all_classes_can_be_found(head: str) -> None:
    """With scores of 0 or more every class of every proposal remains, also the first and the last."""
    model = make_model(head, least_score=0.0, max_objects=200, overlap=0.9)
    with torch.no_grad():
        one, _ = model.detect(model.encode_image(pixels()), model.encode_text(NAMES))
    assert set(one.labels.tolist()) == {0, 1, 2}


def test_the_texts_reach_what_is_found(head: str) -> None:
    model = make_model(head)
    image = model.encode_image(pixels())
    text = model.encode_text(NAMES)
    model.train()
    losses, scores = model.losses(image, text, [(64, 96)] * 2, targets(head == "mask_rcnn"))
    assert scores.shape == (2, 3, *image.dense.shape[2:])
    sum(losses.values()).backward()
    assert model.contexts.grad.abs().sum() > 0
    assert model.context_decoder.out_proj[1].weight.grad.abs().sum() > 0


def test_the_joined_score_map_is_divided_by_its_temperature() -> None:
    model = make_model()
    image, text = model.encode_image(pixels()), model.encode_text(NAMES)
    maps, scores = model.guided_maps(image, text, model.config.tau)
    assert_near(maps[3][:, -3:], scores / 0.07)
    assert [part.shape[1] for part in maps] == model.guided_widths


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("mask_rcnn", {"proposed", "proposed_box", "class", "box", "mask"}),
        ("retinanet", {"class", "box"}),
    ],
)
def test_the_loss_falls(head: str, names: set[str]) -> None:
    model = make_model(head).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    totals = []
    for _ in range(12):
        torch.manual_seed(0)
        image = model.encode_image(pixels())
        terms, _ = model.losses(image, model.encode_text(NAMES), [(64, 96)] * 2, targets(head == "mask_rcnn"))
        assert terms.keys() == names
        total = sum(terms.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.9 * totals[0]


def test_padding_belongs_to_no_proposal() -> None:
    model = make_model().train()
    image = model.encode_image(pixels((64, 128)))
    seen: list[torch.Tensor] = []
    model.detector.roi_heads.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[1]))
    model.losses(image, model.encode_text(NAMES), [(64, 96)] * 2, targets())
    assert max(boxes[:, 2].max().item() for boxes in seen) <= 96


def test_classes_cover_the_places_of_their_objects() -> None:
    model = make_model(least_score=0.0, max_objects=5)
    image, text = model.encode_image(pixels()), model.encode_text(NAMES)
    with torch.no_grad():
        shares = model.decode(image, text).sigmoid()
        (found, _) = model.detect(image, text)
    assert shares.shape == (2, 3, 16, 24)
    # The middle of the best object's box has at least its score times its mask there.
    x, y = ((found.boxes[0, :2] + found.boxes[0, 2:]) / 8).int().tolist()
    least = found.scores[0] * found.masks[0, 12:16, 12:16].min()
    assert shares[0, found.labels[0], y, x] >= 0.9 * least
    assert shares[:, :, 0, 0].max() < 1.0


def test_what_is_stored_finds_the_same_objects(tmp_path, head: str) -> None:
    model = make_model(head, least_score=0.0, max_objects=6)
    path = tmp_path / "tiny.safetensors"
    again = store(Converted(make_config(head, least_score=0.0, max_objects=6), model.state_dict()), path)
    assert again.spec.finds_objects
    assert again.config == model.config
    with torch.no_grad():
        one, other = (each.detect(each.encode_image(pixels()), each.encode_text(NAMES))[0] for each in (model, again))
    assert_near(other.boxes, one.boxes, relative=1e-4)
    assert np.array_equal(other.labels, one.labels)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match='head must be "mask_rcnn" or "retinanet", got "yolo"'):
        make_config("yolo")
    letterbox = InputSpec(64, "letterbox", 32, CLIP_MEAN, CLIP_STD)
    with pytest.raises(ValueError, match="neither a letterbox nor windows"):
        make_config(input_spec=letterbox)
    windows = InputSpec(64, "short_side", 32, CLIP_MEAN, CLIP_STD, window=SlidingWindow(64, 32))
    with pytest.raises(ValueError, match="neither a letterbox nor windows"):
        make_config(input_spec=windows)
    with pytest.raises(ValueError, match="multiples of 32"):
        make_config(input_spec=InputSpec(64, "short_side", 16, CLIP_MEAN, CLIP_STD))
    config = make_config()
    with pytest.raises(WeightsError, match="does not describe a model of this version"):
        build_from_config("tiny", {**config, "denseclip": {**config["denseclip"], "heads": 3}}, {}, "a file")
