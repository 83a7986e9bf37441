# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Source, antialiased, assemble, count_blocks, require, shapes_of

WANTED = {"qkv": torch.Size((6, 2)), "proj": torch.Size((2, 3)), "pool": torch.Size((4, 5)), "scale": torch.Size(())}
SOURCES = {
    "qkv": Source(("q", "k", "v")),
    "proj": Source(("head.weight",), transposed=True),
    "pool": Source(("conv.weight",), unit_axes=True),
    "scale": Source(("scale",)),
}


def published() -> dict[str, torch.Tensor]:
    numbers = torch.arange(100.0)
    return {
        "q": numbers[:4].reshape(2, 2),
        "k": numbers[4:8].reshape(2, 2),
        "v": numbers[8:12].reshape(2, 2),
        "head.weight": numbers[:6].reshape(3, 2),
        "conv.weight": numbers[:20].reshape(4, 5, 1, 1).half(),
        "scale": torch.tensor(7),
    }


def build(tensors: dict[str, torch.Tensor], **more: object) -> dict[str, torch.Tensor]:
    return assemble(WANTED, SOURCES.__getitem__, tensors, "file", **more)


def test_joins_turns_and_reshapes() -> None:
    tensors = published()
    built = build(tensors)
    assert built.keys() == WANTED.keys()
    assert built["qkv"].equal(torch.arange(12.0).reshape(6, 2))
    assert built["proj"].equal(tensors["head.weight"].T)
    assert built["proj"].is_contiguous()
    assert built["pool"].equal(torch.arange(20.0).reshape(4, 5))
    assert built["pool"].dtype == torch.float32
    assert built["scale"] == 7
    assert built["scale"].dtype == torch.int64


def test_every_fault_is_named_in_the_words_of_the_file() -> None:
    tensors = published()
    del tensors["k"]
    tensors["other"] = torch.ones(1)
    tensors["head.weight"] = torch.ones(2, 3)  # not turned
    tensors["conv.weight"] = torch.ones(5, 4, 1, 1)
    tensors["q"] = torch.ones(2, 3)
    with pytest.raises(WeightsError) as caught:
        build(tensors)
    assert str(caught.value) == (
        "file is not whole: k is missing; other is unexpected; q is (2, 3) and should be (2, 2); "
        "head.weight is (2, 3) and should be (3, 2); conv.weight is (5, 4, 1, 1) and should be (4, 5)"
    )


def test_known_extras_may_be_left_out() -> None:
    tensors = {**published(), "position_ids": torch.ones(1)}
    with pytest.raises(WeightsError, match="position_ids is unexpected"):
        build(tensors)
    assert build(tensors, ignored=lambda key: key == "position_ids").keys() == WANTED.keys()


def test_looking_into_a_file() -> None:
    tensors = {f"blocks.{index}.weight": torch.ones(1) for index in range(12)} | {"blocks.norm": torch.ones(1)}
    assert count_blocks(tensors, "blocks.") == 12
    assert count_blocks(tensors, "layers.") == 0
    assert require(tensors, "blocks.3.weight", "file").equal(torch.ones(1))
    with pytest.raises(WeightsError, match=r"file is not whole: blocks\.12\.weight is missing"):
        require(tensors, "blocks.12.weight", "file")


def test_shapes_need_no_memory() -> None:
    # 4 TB, were it made.
    assert shapes_of(lambda: nn.Linear(1_000_000, 1_000_000, bias=False)) == {"weight": torch.Size((1_000_000,) * 2)}


def test_smoothing_is_off_unless_it_is_asked_for() -> None:
    assert [antialiased({}), antialiased({"antialias": False})] == [True, False]
    with pytest.raises(ValueError, match="antialias must be true or false, got 'yes'"):
        antialiased({"antialias": "yes"})
