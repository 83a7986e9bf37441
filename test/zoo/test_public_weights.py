# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.zoo.build import MODEL_KINDS
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.public_weights import (
    PUBLIC_WEIGHTS,
    download_command,
    file_name,
    is_name,
    open_clip_tag,
)


def test_every_entry_is_whole() -> None:
    for name, entry in PUBLIC_WEIGHTS.items():
        assert is_name(name)
        assert name not in EMBEDDED_MODELS
        assert entry.kind in MODEL_KINDS
        assert entry.page.startswith("https://")
        assert entry.licence
        assert sum(way is not None for way in (entry.hub, entry.open_clip, entry.by_hand)) == 1, name
        if entry.by_hand:
            assert "--name {name}" in entry.by_hand
            assert entry.by_hand.count("{") == 1


def test_no_two_share_a_file() -> None:
    files = [file_name(name) for name in (*PUBLIC_WEIGHTS, *EMBEDDED_MODELS, "open_clip:ViT-B-16/openai")]
    assert len(set(files)) == len(files)
    assert files[-1] == "open_clip_ViT-B-16_openai.safetensors"


@pytest.mark.parametrize("name", ["a", "my-cris_2.1", "open_clip:ViT-B-16/laion2b_s34b_b88k"])
def test_names(name: str) -> None:
    assert is_name(name)
    assert Path(file_name(name)).name == file_name(name)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".a", "a b", "open_clip:a", "open_clip:../a", "open_clip:a/../b", "a\n"]
)
def test_no_names(name: str) -> None:
    assert not is_name(name)


def test_open_clip_tags() -> None:
    assert open_clip_tag("maskclip-rn50") == "RN50-quickgelu/openai"
    assert open_clip_tag("open_clip:RN50/cc12m") == "RN50/cc12m"
    assert open_clip_tag("clipseg-rd64") is None
    assert open_clip_tag("mine") is None


@pytest.mark.parametrize("name", ["clipseg-rd64-refined", "cris-r50", "open_clip:ViT-B-16/openai"])
def test_a_model_whose_weights_are_not_here_says_what_to_type(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match=f"not in {tmp_path} yet: type `clip-seg weights download {name}`"):
        build_segmenter(name)
    assert download_command("mine") is None


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        build_segmenter(str(tmp_path / "gone.safetensors"))


@pytest.mark.parametrize("name", ["mine", "a/b", "../a"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match=f'no model "{name}": use clipseg-pocket, .*clipseg-rd64-refined'):
        build_segmenter(name)
