# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product

import pytest

from clip_seg_ros.models.clip.backbone import (
    KEPT_WORDS,
    ClipConfig,
    TextConfig,
    VisionConfig,
    bpe_tokenizer,
    build_open_clip,
)


@pytest.mark.parametrize(
    "vision",
    [
        VisionConfig(layers=5, width=24, image_size=32, patch_size=8, head_width=12),
        VisionConfig(layers=(1, 2, 1, 1), width=8, image_size=64, output_stride=16),
    ],
)
def test_config_survives_json(vision: VisionConfig) -> None:
    config = ClipConfig(20, vision, TextConfig(12, 30, 16, 2, 2), quick_gelu=True)
    assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_refuses_unknown_names() -> None:
    values = ClipConfig(20, VisionConfig(5, 24, 32), TextConfig(12, 30, 16, 2, 2)).to_dict()
    values["vision"]["depth"] = 5
    with pytest.raises(TypeError, match="depth"):
        ClipConfig.from_dict(values)


def test_builds_what_open_clip_knows() -> None:
    clip = build_open_clip("RN50-quickgelu")
    assert clip.visual.output_dim == 1024
    assert clip.context_length == 77


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-Z-99", 'knows no architecture "ViT-Z-99"; it knows .*ViT-B-16'),
        ("ViT-B-16-SigLIP", "is a CustomTextCLIP with a TimmModel"),
    ],
)
def test_refuses_what_cannot_be_looked_into(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_open_clip(name)


def _words(count: int) -> list[str]:
    return ["".join(letters) for letters in islice(product("bdfklmnprt", "aeiou", "cghsvwz", "aeiou", "bdfk"), count)]


def test_words_without_end_take_no_more_memory() -> None:
    tokenizer, words = bpe_tokenizer(), _words(3 * KEPT_WORDS)
    assert len(set(words)) == 3 * KEPT_WORDS
    tracemalloc.start()
    try:
        taken = []
        for first in range(0, len(words), KEPT_WORDS):
            for word in words[first : first + KEPT_WORDS]:
                tokenizer.encode(word)
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert taken[2] - taken[1] < taken[0] / 10


def test_threads_share_the_pieces_of_words() -> None:
    tokenizer, words = bpe_tokenizer(), [*_words(KEPT_WORDS + 500), "<start_of_text>"]
    untouched = type(tokenizer)()
    expected = [untouched.encode(word) for word in words]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: [tokenizer.encode(word) for word in words], range(4)))
    assert answers == [expected] * 4
