# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from clip_seg_ros.models.clip.tokenizer import ClipTokenizer, CompactTokenizer, IdTokenizer

WORDS = ("red", "cup", "bowl", "a", "photo", "of", ".")


@pytest.fixture
def tokenizer() -> CompactTokenizer:
    return CompactTokenizer(WORDS, context_length=8)


def test_ids_are_dense_and_the_end_is_the_largest(tokenizer: CompactTokenizer) -> None:
    assert tokenizer.vocab_size == len(WORDS) + 4
    start, end = tokenizer.vocab_size - 2, tokenizer.vocab_size - 1
    row = tokenizer(["red cup"])[0].tolist()
    assert row[0] == start
    assert row[3] == end
    assert row[4:] == [0] * 4
    assert all(2 <= piece < start for piece in row[1:3])
    known = {tokenizer([word])[0, 1].item() for word in WORDS}
    assert known == set(range(2, start))


def test_ids_do_not_depend_on_the_order_of_words(tokenizer: CompactTokenizer) -> None:
    shuffled = CompactTokenizer(WORDS[::-1], context_length=8)
    assert shuffled(["a photo of a red bowl."]).equal(tokenizer(["a photo of a red bowl."]))


def test_case_and_spaces_do_not_matter(tokenizer: CompactTokenizer) -> None:
    assert tokenizer(["  Red   CUP "]).equal(tokenizer(["red cup"]))


def test_unknown_pieces_share_one_id(tokenizer: CompactTokenizer) -> None:
    row = tokenizer(["red zebra"])[0]
    assert row[2] == 1


def test_a_plural_asks_for_the_same_as_its_singular(tokenizer: CompactTokenizer) -> None:
    assert tokenizer(["red Cups"]).equal(tokenizer(["red cup"]))
    assert tokenizer.unknown_words("cups") == ()
    assert CompactTokenizer(("box",), 8)(["boxes"])[0, 1] != 1
    assert tokenizer.unknown_words("zebras") == ("zebras",)


@pytest.mark.parametrize("phrase", ["berries", "knives", "boxes", "feet"])
def test_irregular_plurals_too(phrase: str) -> None:
    words = CompactTokenizer(("berry", "knife", "box", "foot"), context_length=8)
    assert words.unknown_words(phrase) == ()


@pytest.mark.parametrize(
    ("phrase", "read_as"),
    [
        ("red", "red object"),
        ("The Red.", "the red object"),
        ("something red", "red object"),
        ("red ones", "red object"),
        ("red one", "red object"),
        ("red thing", "red thing"),
        ("red cup", "red cup"),
        ("a photo of one cup", "a photo of one cup"),
    ],
)
def test_a_colour_alone_is_that_of_an_object(phrase: str, read_as: str) -> None:
    tokenizer = CompactTokenizer((*WORDS, "object", "thing", "one", "the"), context_length=8)
    start = tokenizer.vocab_size - 2
    pieces = [tokenizer([word])[0, 1].item() for word in read_as.split()]
    assert tokenizer([phrase])[0, : len(pieces) + 2].tolist() == [start, *pieces, start + 1]
    assert tokenizer.unknown_words(phrase) == ()


def test_a_colour_stays_alone_where_no_object_was_learnt(tokenizer: CompactTokenizer) -> None:
    assert tokenizer(["red"])[0, 2] == tokenizer.vocab_size - 1


def test_unknown_words(tokenizer: CompactTokenizer) -> None:
    assert tokenizer.unknown_words("a red cup.") == ()
    assert tokenizer.unknown_words("Zebra, a cup; the zebra cup") == ("Zebra", "the", "zebra")
    assert tokenizer.unknown_words("<end_of_text> cup") == ("end_of_text",)


def test_long_text_keeps_its_end(tokenizer: CompactTokenizer) -> None:
    rows = tokenizer(["red " * 6, "red " * 7, "red " * 100])
    end = tokenizer.vocab_size - 1
    assert (rows[:, -1] == end).all()
    assert rows[1].equal(rows[0])
    assert rows[2].equal(rows[0])


def test_empty_text(tokenizer: CompactTokenizer) -> None:
    assert tokenizer([""])[0, :3].tolist() == [tokenizer.vocab_size - 2, tokenizer.vocab_size - 1, 0]


def test_needs_words() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CompactTokenizer((), context_length=8)


def test_clip_vocabulary() -> None:
    tokenizer = ClipTokenizer()
    assert tokenizer.vocab_size == 49408
    assert tokenizer(["a cat"])[0, :5].tolist() == [49406, 320, 2368, 49407, 0]
    assert tokenizer(["cat " * 100])[0, -1] == 49407
    assert tokenizer.unknown_words("zyzzyva") == ()


def test_rows_of_an_older_vocabulary_go_to_the_same_pieces() -> None:
    older = CompactTokenizer(WORDS, context_length=8)
    newer = CompactTokenizer(("blue", "red", "cup", "zebra", "."), context_length=8)
    theirs, ours = newer.rows_from(older)
    assert len(set(theirs)) == len(theirs)
    assert len(set(ours)) == len(ours)
    moved = dict(zip(theirs, ours, strict=True))
    for phrase in ("red cup.", "a red photo", ""):
        before, after = (tokenizer([phrase])[0].tolist() for tokenizer in (older, newer))
        for piece, again in zip(before, after, strict=True):
            # What only the older one knows is an unknown piece here.
            assert moved.get(piece, 1) == again
    assert set(range(newer.vocab_size)) - set(ours) == {newer([word])[0, 1].item() for word in ("blue", "zebra")}
    same = newer.rows_from(newer)
    assert same[0] == same[1]
    assert sorted(same[0]) == list(range(newer.vocab_size))


def test_other_programs_get_the_ids_of_known_words(tmp_path: Path) -> None:
    tokenizer = CompactTokenizer(("red", "cup", "object"), 8)
    rules = tokenizer.write(tmp_path)
    words = [rules["words"][word] for word in ("red", "cup")]

    assert rules["kind"] == "words"
    row = [rules["start"], *words[0], *words[1], rules["end"]]
    assert row + [rules["padding"]] * (rules["context_length"] - len(row)) == tokenizer(["red cup"])[0].tolist()
    assert tokenizer(["blue cup"])[0, 1] == rules["unknown"]
    assert IdTokenizer(9, 4).write(tmp_path) == {"kind": "ids", "vocab_size": 9, "context_length": 4, "padding": 0}
