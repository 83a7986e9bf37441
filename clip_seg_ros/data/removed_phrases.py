# SPDX-License-Identifier: Apache-2.0
"""Which phrases CLIPSeg's training leaves out where a class must stay unseen.

A phrase is left out if it holds the name of the class or of any kind of it, as WordNet lists them: for "dog" also
"puppy" and "border collie". WordNet is read by the package nltk, which need not be installed for anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clip_seg_ros.data.class_splits import unseen_splits
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.data.suggestions import did_you_mean

SYNSETS = {
    "aeroplane": "aeroplane.n.01",
    "bicycle": "bicycle.n.01",
    "bird": "bird.n.01",
    "boat": "vessel.n.02",
    "bottle": "bottle.n.01",
    "bus": "bus.n.01",
    "car": "car.n.01",
    "cat": "cat.n.01",
    "chair": "chair.n.01",
    "cow": "cattle.n.01",
    "diningtable": "table.n.02",
    "dog": "dog.n.01",
    "horse": "horse.n.01",
    "motorbike": "motorcycle.n.01",
    "person": "person.n.01",
    "pottedplant": "pot_plant.n.01",
    "sheep": "sheep.n.01",
    "sofa": "sofa.n.01",
    "train": "train.n.01",
    "tvmonitor": "television.n.03",
}
"""The meanings of VOC's classes in WordNet that CLIPSeg's authors chose."""
PERSON_WORDS = ("person", "human", "man", "woman", "toddler", "baby", "body", "child", "infant")
"""The words for "person", in place of the thousands of kinds that WordNet has."""
AFFORDANCES = (
    "drink drinks drinking sit sits sitting ride rides riding fly flies flying drive drives driving driven swim swims "
    "swimming wheels wheel legs leg ear ears"
).split()
"""The words of CLIPSeg's experiment on affordances and attributes."""
_NO_WORDNET = (
    "phrases are removed by WordNet, which is read by the package nltk: pip install nltk, "
    "then python -m nltk.downloader wordnet"
)


def removals() -> dict[str, tuple[str, ...]]:
    """Returns the classes, or the words for "affordances", of everything that can be removed, by its name."""
    of_voc = {name: classes for name, classes in unseen_splits().items() if name.startswith(("pascal5i_", "voc_"))}
    return {**of_voc, "affordances": tuple(AFFORDANCES)}


def removal(name: str) -> Callable[[str], bool]:
    """Returns a function that says whether a phrase is left out.

    Args:
        name: A name in ``removals``.

    Raises:
        DataError: There is no such name, or WordNet is not installed.
    """
    known = removals()
    if name not in known:
        hint = did_you_mean(name, known)
        raise DataError(f"nothing called {name!r} can be removed; it may be {', '.join(known)}{hint}")
    if name == "affordances":
        words = frozenset(AFFORDANCES)
        return lambda phrase: not words.isdisjoint(phrase.split(" "))
    wordnet, singular = _wordnet()
    lemmas = {lemma for one in known[name] for lemma in _names(wordnet.synset(SYNSETS[one]))}
    single = frozenset(lemma for lemma in lemmas if " " not in lemma)
    several = tuple(sorted(lemmas - single))

    def removed(phrase: str) -> bool:
        return any(lemma in phrase for lemma in several) or not single.isdisjoint(map(singular, phrase.split(" ")))

    return removed


def _names(synset: Any) -> Iterator[str]:
    """Yields the names of a meaning and of all its kinds, in small letters and with spaces."""
    if synset.name() == "person.n.01":
        yield from PERSON_WORDS
        return
    for lemma in synset.lemmas():
        yield lemma.name().replace("_", " ").lower()
    for kind in synset.hyponyms():
        yield from _names(kind)


def _wordnet() -> tuple[Any, Callable[[str], str]]:
    """Returns WordNet, and the function that gives the singular of a word."""
    try:
        from nltk.corpus import wordnet
        from nltk.stem import WordNetLemmatizer

        wordnet.ensure_loaded()
    except (ImportError, LookupError) as error:
        raise DataError(_NO_WORDNET) from error
    return wordnet, WordNetLemmatizer().lemmatize
