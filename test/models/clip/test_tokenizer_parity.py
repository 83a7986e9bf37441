# SPDX-License-Identifier: Apache-2.0
"""CLIP's tokenizer against ids recorded from the authors' (see test/data/golden)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_seg_ros.models.clip.tokenizer import ClipTokenizer


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> dict:
    folder: Path = request.config.getoption("--golden")
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("key", "length"), [("openai_len77", 77), ("cris_len22_truncate", 22), ("cris_len17_truncate", 17)]
)
def test_awkward_texts(recorded: dict, key: str, length: int) -> None:
    ids = ClipTokenizer(length)(recorded["texts"])
    for text, row, expected in zip(recorded["texts"], ids.tolist(), recorded[key], strict=True):
        assert row == expected, text


def test_class_names(recorded: dict) -> None:
    ids = ClipTokenizer(5)(recorded["denseclip_names"])
    assert ids.tolist() == recorded["denseclip_len5_truncate_false"]
