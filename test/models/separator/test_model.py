# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError, save_safetensors, update_sums
from clip_seg_ros.models.separator.model import (
    CELLS,
    CHANNELS,
    WINDOW_PX,
    SeparatorConfig,
    SeparatorNet,
    load_separator,
)


def test_each_window_has_its_own_votes() -> None:
    torch.manual_seed(0)
    net = SeparatorNet(SeparatorConfig(4)).eval()
    windows = torch.rand(3, CHANNELS, WINDOW_PX, WINDOW_PX)
    with torch.inference_mode():
        votes, alone = net(windows), net(windows[1:2])
    assert votes.heat.shape == (3, CELLS, CELLS)
    assert votes.offsets.shape == (3, 2, CELLS, CELLS)
    assert votes.several.shape == (3,)
    for many, one in ((votes.heat, alone.heat), (votes.offsets, alone.offsets), (votes.several, alone.several)):
        torch.testing.assert_close(many[1:2], one)


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SeparatorNet(SeparatorConfig(4)).eval()
    path = tmp_path / "separator.safetensors"
    save_safetensors(path, net.state_dict(), {"separator": net.config.to_dict()}, half=False)
    update_sums(tmp_path)
    read = load_separator(path)
    assert not read.training
    for name, value in net.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], value)


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for config in ({"kind": "clipseg"}, {"separator": {"width": 0}}, {"separator": {"depth": 3}}):
        save_safetensors(path, {"a": torch.zeros(1)}, config)
        update_sums(tmp_path)
        with pytest.raises(WeightsError, match="does not describe a separator of this version"):
            load_separator(path)
