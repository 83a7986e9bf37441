# SPDX-License-Identifier: Apache-2.0
"""Words that a model never learnt get rows of their own, and all others keep theirs."""

from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer, CompactTokenizer
from clip_seg_ros.zoo.build import StoredModel
from clip_seg_ros.zoo.factory import read_stored
from clip_seg_ros.zoo.vocabulary import grow, new_words
from nearness import assert_near

PHRASES = ("the red spool", "a Sprocket", "two spools", "spool, and funnel", "a red cup")


def test_new_words_are_counted_once_a_phrase_and_plurals_with_their_singular() -> None:
    known = CompactTokenizer(("the", "a", "red", "cup", "and", "two", ","), 12)
    assert list(new_words(known, PHRASES).items()) == [("spool", 3), ("funnel", 1), ("sprocket", 1)]
    assert new_words(known, ["spools", "spool of the spool"]) == {"spool": 2, "of": 1}
    assert new_words(known, ["spools"]) == {"spools": 1}, "nothing tells what it is the plural of"
    assert new_words(ClipTokenizer(), PHRASES) == {}


@pytest.mark.parametrize("name", ["clipseg-pocket", "cris-pocket"])
def test_a_grown_model_is_the_old_one_with_more_words(name: str) -> None:
    stored = read_stored(name)
    before = stored.build("before")
    grown = grow(stored, PHRASES)
    assert set(grown.words) == {"spool", "sprocket", "funnel", "two", "and"}
    model = grown.stored.build("after")
    assert model.unknown_words("the red spool, two sprockets and a dragon") == ("dragon",)
    assert before.unknown_words("the red spool") == ("spool",)
    known = ["the red cup", "a photo of a dragon."]
    with torch.no_grad():
        old, new, words = (m.encode_text(p).pooled for m, p in ((before, known), (model, known), (model, PHRASES)))
    torch.testing.assert_close(new, old, atol=1e-4 * float(old.abs().max()), rtol=0)
    # No two of the new words mean the same, as they do where they share one embedding.
    assert torch.pdist(words).min() > 0.01 * float(words.abs().max())
    table = model.clip.token_embedding.weight
    assert len(grown.rows) == len(table) - len(before.clip.token_embedding.weight)
    rows, others = table.detach()[list(grown.rows)], before.clip.token_embedding.weight.detach()[2:-2]
    assert 0.5 < float(rows.std() / others.std()) < 2, "they are as large as the known words"


def test_the_same_seed_grows_the_same_rows() -> None:
    stored = read_stored("clipseg-pocket")
    key = "clip.token_embedding.weight"
    first, again, other = (grow(stored, PHRASES, seed).stored.tensors[key] for seed in (1, 1, 2))
    assert_near(again, first)
    assert (first - other).abs().max() > 0.01 * first.abs().max()


def test_nothing_grows_where_all_words_are_known() -> None:
    stored = read_stored("clipseg-pocket")
    grown = grow(stored, ["the red cup"])
    assert grown.stored is stored
    assert (grown.rows, grown.words) == ((), {})


def test_weights_without_a_vocabulary_are_refused() -> None:
    stored = StoredModel({"tokenizer": {"kind": "ids", "vocab_size": 9, "context_length": 5}}, {}, "some.safetensors")
    with pytest.raises(WeightsError, match=r"some.safetensors holds no vocabulary, so its prompts are token ids"):
        grow(stored, ["a cup"])
