# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.reading import read_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def check(path: Path) -> None:
    found = read_tensors(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(found[key].equal(value) and found[key].dtype == value.dtype for key, value in WEIGHTS.items())


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        {"model": {"state_dict": WEIGHTS}},
        {"state_dict": {f"module.{key}": value for key, value in WEIGHTS.items()}},
        {"state_dict": WEIGHTS, "best_iou": np.float64(0.7), "prec": {"Pr@50": np.float32(0.8)}, "step": np.int64(3)},
        {**WEIGHTS, "note": "text", "numbers": [1, 2]},
    ],
    ids=["plain", "training state", "nested", "data parallel", "numpy scalars", "notes"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles(tmp_path: Path, content: dict, zipped: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    check(tmp_path / "a.pth")


def test_numpy_scalars_as_numpy_1_wrote_them(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "best_iou": np.float64(0.7)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    check(tmp_path / "old.pth")


def test_module_is_kept_where_it_is_part_of_the_names(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth").keys() == {"module.a", "b"}


def test_groups_are_joined_with_a_slash(tmp_path: Path) -> None:
    torch.save({"proj": {"weight": torch.ones(1)}, "clip": {"ln0.bias": torch.zeros(1)}}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth").keys() == {"proj/weight", "clip/ln0.bias"}


def test_a_bare_tensor(tmp_path: Path) -> None:
    torch.save(torch.ones(2, 3), tmp_path / "text.pth")
    assert read_tensors(tmp_path / "text.pth")[""].shape == (2, 3)


class Archived(nn.Module):
    """Half-precision weights and whole numbers, as in OpenAI's archives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 2, bias=False).half()
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv1(image)


def test_a_torchscript_archive(tmp_path: Path) -> None:
    module = Archived()
    torch.jit.save(torch.jit.script(module), str(tmp_path / "ViT-B-16.pt"))
    found = read_tensors(tmp_path / "ViT-B-16.pt")
    assert found.keys() == {"conv1.weight", "input_resolution"}
    assert found["conv1.weight"].equal(module.conv1.weight)
    assert found["conv1.weight"].dtype == torch.float16
    assert found["input_resolution"] == 224


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_program_in_a_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    victim, file = tmp_path / "victim", tmp_path / "evil.pth"
    torch.save({"state_dict": WEIGHTS, "meta": Malicious(victim)}, file, _use_new_zipfile_serialization=zipped)

    with pytest.raises(WeightsError, match=r"evil\.pth holds more than tensors.*can run any program"):
        read_tensors(file)

    assert not victim.exists()
    # It would have worked: the test can fail.
    torch.load(file, weights_only=False)
    assert victim.exists()


def test_a_program_in_a_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps(Malicious(victim)))

    with pytest.raises(WeightsError):
        read_tensors(file)

    assert not victim.exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
@pytest.mark.parametrize("keep", [0, 50, 700])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, keep: int) -> None:
    file = tmp_path / name
    if name.endswith("safetensors"):
        save_file({**WEIGHTS, "long": torch.zeros(500)}, file)
    else:
        torch.save({**WEIGHTS, "long": torch.zeros(500)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as caught:
        read_tensors(file)
    assert "\n" not in str(caught.value).strip()


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>Sign in to download</html>")
    with pytest.raises(WeightsError, match=r"page\.pth"):
        read_tensors(tmp_path / "page.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {}}])
def test_no_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no tensors by name"):
        read_tensors(tmp_path / "a.pth")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weight file"):
        read_tensors(tmp_path / "a.pth")
