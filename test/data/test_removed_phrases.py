# SPDX-License-Identifier: Apache-2.0
"""Phrases that name what must stay unseen, by a WordNet of a few words."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from clip_seg_ros.data.class_splits import unseen_splits
from clip_seg_ros.data.removed_phrases import SYNSETS, removal, removals
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.resources import class_list


@dataclass
class Meaning:
    """What nltk calls a synset."""

    called: str
    words: tuple[str, ...]
    kinds: tuple[Meaning, ...] = ()

    def name(self) -> str:
        return self.called

    def lemmas(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=lambda word=word: word) for word in self.words]

    def hyponyms(self) -> tuple[Meaning, ...]:
        return self.kinds


COLLIE = Meaning("collie.n.01", ("collie",), (Meaning("border_collie.n.01", ("Border_collie",)),))
WORDS = {
    "dog.n.01": Meaning("dog.n.01", ("dog", "domestic_dog"), (Meaning("puppy.n.01", ("puppy",)), COLLIE)),
    "person.n.01": Meaning("person.n.01", ("person", "soul"), (Meaning("baker.n.01", ("baker",)),)),
    "horse.n.01": Meaning("horse.n.01", ("horse",)),
    "table.n.02": Meaning("table.n.02", ("table",)),
    "motorcycle.n.01": Meaning("motorcycle.n.01", ("motorcycle", "bike")),
}


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk, corpus, stem = ModuleType("nltk"), ModuleType("nltk.corpus"), ModuleType("nltk.stem")
    corpus.wordnet = SimpleNamespace(synset=WORDS.__getitem__, ensure_loaded=lambda: None)
    stem.WordNetLemmatizer = lambda: SimpleNamespace(lemmatize=lambda word: word.removesuffix("s"))
    for module in (nltk, corpus, stem):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(
    ("phrase", "left_out"),
    [
        ("black dogs", True),
        ("the puppy", True),
        ("a border collie lying", True),
        ("parked bikes", True),
        ("dogged cup", False),
        ("a woman", True),
        ("a baker", False),  # of the many kinds of persons, only the usual words count
        ("a soul", False),
        ("white cow", False),
    ],
)
def test_phrases_that_name_a_class_of_the_fold_are_left_out(wordnet: None, phrase: str, left_out: bool) -> None:
    assert removal("pascal5i_2")(phrase) == left_out


def test_affordances_need_no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    removed = removal("affordances")

    assert [removed(phrase) for phrase in ("man riding horse", "front wheel", "wheelchair", "sitting", "a ride.")] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_without_wordnet_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)

    with pytest.raises(DataError, match=r"pip install nltk, then python -m nltk\.downloader wordnet"):
        removal("voc_zs4")


def test_every_class_of_voc_has_a_meaning() -> None:
    assert set(SYNSETS) == set(class_list("voc20"))
    assert removals()["voc_zs4"] == unseen_splits()["voc_zs4"]
    with pytest.raises(DataError, match=r"'pascal5i_4' can be removed; it may be voc_zs2, .*did you mean pascal5i_"):
        removal("pascal5i_4")
