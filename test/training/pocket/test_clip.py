# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.text_tower import encode_text
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near


@torch.inference_mode()
def test_more_words_change_nothing_about_those_it_knew(pocket_folder: Path) -> None:
    old = build_segmenter("clipseg-pocket", pocket_folder)
    clip, config, tokenizer = pocket_clip(pocket_folder / "clip_pocket.safetensors", ("leftmost", "cup"), 24)
    assert tokenizer.unknown_words("the leftmost cup") == ()
    assert old.unknown_words("the leftmost cup") == ("leftmost",)
    assert config.text.vocab_size == tokenizer.vocab_size > old.tokenizer.vocab_size
    assert config.vision.output_stride == 32
    phrases = ["red cup", "a photo of a violet mug.", "a giraffe"]
    found = encode_text(clip.eval(), tokenizer(phrases)).pooled
    assert_near(found, old.encode_text(phrases).pooled)
    other = encode_text(clip, tokenizer(["leftmost cup", "giraffe cup"])).pooled
    assert not torch.allclose(other[0], other[1]), "a new word is no unknown one"


@torch.inference_mode()
def test_the_image_tower_is_the_same_at_another_stride(pocket_folder: Path) -> None:
    old = build_segmenter("clipseg-pocket", pocket_folder).clip.visual
    for stride in (16, 32):
        clip, _, _ = pocket_clip(pocket_folder / "clip_pocket.safetensors", (), 24, output_stride=stride)
        assert all(torch.equal(value, old.state_dict()[name]) for name, value in clip.visual.state_dict().items())


def test_missing_weights_are_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        pocket_clip(tmp_path / "clip_pocket.safetensors", (), 24)
