# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clip_seg_ros.models.checkpoints import (
    WeightsError,
    is_weight_file,
    load_safetensors,
    load_strict,
    save_safetensors,
    update_sum,
    update_sums,
)

CONFIG = {"width": 3, "names": ["a", "b"]}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    torch.manual_seed(0)
    tensors = {"matrix": torch.randn(40, 30), "vector": torch.tensor([1e-7, 0.1]), "count": torch.tensor(7)}
    save_safetensors(path, tensors, CONFIG)
    update_sums(tmp_path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load_safetensors(path)
    message = str(error.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert "clip-seg train" in message
    return message


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "made" / "exact.safetensors"
    # Not contiguous, as channels_last kernels are.
    tensors = {"kernel": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last), "count": torch.tensor(7)}
    save_safetensors(path, tensors, CONFIG, half=False)
    update_sums(path.parent)
    loaded, config = load_safetensors(path)
    assert config == CONFIG
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())


def test_half_is_loaded_as_float32(weights: Path) -> None:
    loaded, _ = load_safetensors(weights)
    torch.manual_seed(0)
    assert loaded["matrix"].equal(torch.randn(40, 30).half().float())
    assert loaded["vector"].equal(torch.tensor([1e-7, 0.1]))
    assert loaded["count"].dtype == torch.int64
    assert weights.stat().st_size < 40 * 30 * 4


def test_anyone_may_read_it_and_nothing_is_left_behind(weights: Path) -> None:
    assert weights.stat().st_mode & stat.S_IRGRP
    assert sorted(path.name for path in weights.parent.iterdir()) == ["SHA256SUMS", "small.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_refuses_to_store_what_float16_cannot_hold(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"matrix.*float16"):
        save_safetensors(tmp_path / "bad.safetensors", {"matrix": torch.full((2, 2), value)}, CONFIG)
    assert not list(tmp_path.iterdir())


def test_sums_are_those_of_sha256sum(weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (weights.parent / "SHA256SUMS").read_text() == f"{digest}  small.safetensors\n"


def test_missing_file(weights: Path) -> None:
    weights.unlink()
    assert "does not exist" in refusal(weights)


def test_truncated_file(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:100])
    assert "(100 bytes) was cut short or changed" in refusal(weights)


def test_tampered_file(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "was cut short or changed" in refusal(weights)


def test_missing_sums(weights: Path) -> None:
    weights.with_name("SHA256SUMS").unlink()
    assert "SHA256SUMS, which proves the weights, cannot be read" in refusal(weights)


def test_unlisted_file(weights: Path) -> None:
    other = weights.with_name("other.safetensors")
    other.write_bytes(weights.read_bytes())
    assert "not listed in SHA256SUMS" in refusal(other)


def test_listed_but_not_safetensors(weights: Path) -> None:
    weights.write_bytes(b"not weights")
    update_sums(weights.parent)
    assert "cannot be read" in refusal(weights)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, 'has format "none"'),
        ({"format": "pt"}, 'has format "pt"'),
        ({"format": "clip_seg_ros/1"}, "no readable configuration"),
        ({"format": "clip_seg_ros/1", "config": "{"}, "no readable configuration"),
    ],
)
def test_wrong_metadata(weights: Path, metadata: dict[str, str] | None, message: str) -> None:
    save_file({"x": torch.zeros(1)}, weights, metadata=metadata)
    update_sums(weights.parent)
    assert message in refusal(weights)


def test_load_strict_takes_all_keys() -> None:
    module = nn.Linear(3, 2)
    load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "here")
    assert module.weight.equal(torch.ones(2, 3))


def test_load_strict_lists_every_fault_and_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = module[0].bias.clone()
    tensors = {
        "0.weight": torch.ones(3, 2),
        "0.bias": torch.ones(2),
        "1.weight": torch.ones(2, 2),
        "2.scale": torch.ones(1),
    }
    with pytest.raises(WeightsError) as error:
        load_strict(module, tensors, "small.safetensors")
    message = str(error.value)
    assert "small.safetensors" in message
    assert "0.weight is (3, 2) and should be (2, 3)" in message
    assert "1.bias is missing" in message
    assert "2.scale is unexpected" in message
    assert module[0].bias.equal(before)


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(5)}
    files = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for file in files:
        save_safetensors(file, tensors, {"name": "ä"})
    assert len({file.read_bytes() for file in files}) == 1
    update_sums(tmp_path)
    loaded, config = load_safetensors(files[0])
    assert config == {"name": "ä"}
    assert torch.equal(loaded["b"], torch.ones(2, 3))


def test_one_sum_leaves_the_others_as_they_are(weights: Path) -> None:
    other = weights.with_name("other.safetensors")
    save_safetensors(other, {"x": torch.ones(2)}, CONFIG)
    weights.write_bytes(b"damaged")
    update_sum(other)
    assert load_safetensors(other)[0]["x"].equal(torch.ones(2))
    assert "was cut short or changed" in refusal(weights)
    save_safetensors(other, {"x": torch.zeros(2)}, CONFIG)
    update_sum(other)
    assert load_safetensors(other)[0]["x"].equal(torch.zeros(2))
    assert len((weights.parent / "SHA256SUMS").read_text().splitlines()) == 2


def test_what_this_package_wrote(weights: Path, tmp_path: Path) -> None:
    assert is_weight_file(weights)
    weights.write_bytes(b"damaged")
    assert is_weight_file(weights)  # SHA256SUMS says so
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "moved.safetensors"
    save_safetensors(moved, {"x": torch.ones(2)}, CONFIG)
    assert is_weight_file(moved)  # it says so itself
    save_file({"x": torch.ones(2)}, moved)
    assert not is_weight_file(moved)
    assert not is_weight_file(moved.with_name("none.safetensors"))
    assert not is_weight_file(moved.with_suffix(".pth"))


def test_assigned_weights_are_not_copied() -> None:
    module, tensors = nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strict(module, tensors, "here", assign=True)
    assert module.weight.data_ptr() == tensors["weight"].data_ptr()
    assert module.weight.requires_grad
