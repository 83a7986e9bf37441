# SPDX-License-Identifier: Apache-2.0
from itertools import product

import numpy as np
import pytest

from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.sim.naming import COLOR_WORDS, KIND_WORDS
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS
from clip_seg_ros.training.pocket.phrases import (
    TRAIN_PAIRS,
    UNKNOWN_NOUNS,
    known_words,
    make_query,
    sample_query,
    unknown_query,
)

SCENE = [("red", "cup"), ("blue", "box"), ("black", "ball")]


@pytest.fixture(scope="module")
def tokenizer():
    return CompactTokenizer(known_words(), 24)


def test_training_pairs_and_held_out_pairs_are_all_there_is():
    assert sorted([*TRAIN_PAIRS, *HELD_OUT_PAIRS]) == sorted(product(COLORS, KINDS))


def test_every_word_that_training_uses_is_known(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(600):
        color, kind = TRAIN_PAIRS[rng.integers(len(TRAIN_PAIRS))]
        query = make_query(rng, color if rng.random() < 0.7 else None, kind)
        assert tokenizer.unknown_words(query.text) == (), query.text


@pytest.mark.parametrize("noun", UNKNOWN_NOUNS)
def test_an_unknown_noun_is_unknown(tokenizer, noun):
    assert tokenizer.unknown_words(f"the red {noun}") == (noun,)


def test_no_phrase_speaks_of_a_held_out_pair():
    rng = np.random.default_rng(1)
    words = [(c, k) for color, kind in HELD_OUT_PAIRS for c in COLOR_WORDS[color] for k in KIND_WORDS[kind]]
    for _ in range(3000):
        query = sample_query(rng, SCENE, SCENE, kinds_only=False)
        assert (query.color, query.kind) not in HELD_OUT_PAIRS
        assert not any(f"{color} {kind}" in query.text for color, kind in words)


def test_the_share_of_phrases_that_name_something_there():
    rng = np.random.default_rng(2)
    queries = [sample_query(rng, SCENE, SCENE, kinds_only=False) for _ in range(4000)]
    there = np.mean([any(query.matches(pair) for pair in SCENE) for query in queries])
    hard = np.mean(
        [
            not any(q.matches(p) for p in SCENE)
            and q.color in ("red", "blue", "black")
            and q.kind in ("cup", "box", "ball")
            for q in queries
        ]
    )
    assert there == pytest.approx(0.6, abs=0.03)
    assert hard > 0.1


def test_recoloured_pictures_are_asked_for_kinds_alone():
    rng = np.random.default_rng(3)
    for _ in range(500):
        query = sample_query(rng, SCENE, SCENE, kinds_only=True)
        assert query.color is None
        assert not any(color in query.text.split() for color in COLORS)


def test_nothing_visible_and_nothing_present_still_gives_phrases():
    rng = np.random.default_rng(4)
    queries = [sample_query(rng, [], [], kinds_only=False) for _ in range(100)]
    assert all(query.text for query in queries)


@pytest.mark.parametrize(
    ("color", "kind", "pair", "matches"),
    [
        ("red", "cup", ("red", "cup"), True),
        ("red", "cup", ("red", "box"), False),
        (None, "cup", ("blue", "cup"), True),
        ("red", None, ("red", "box"), True),
        ("red", None, ("blue", "box"), False),
    ],
)
def test_what_a_query_matches(color, kind, pair, matches):
    assert make_query(np.random.default_rng(0), color, kind).matches(pair) is matches


def test_an_unknown_query_matches_nothing():
    query = unknown_query(np.random.default_rng(0))
    assert not any(query.matches(pair) for pair in product(COLORS, KINDS))
