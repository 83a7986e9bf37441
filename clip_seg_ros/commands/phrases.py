# SPDX-License-Identifier: Apache-2.0
"""The text after a verb -> its phrases: what to look for, what to leave out, and what each of them refers to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clip_seg_ros.commands.errors import CommandError, shown
from clip_seg_ros.commands.places import Text, Word, any_of
from clip_seg_ros.commands.plurals import means_several, singulars
from clip_seg_ros.commands.reference_parser import Understood, understand
from clip_seg_ros.commands.reference_words import BEFORE_NOUNS, COLOURS, QUANTITIES
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.commands.refusals import check_meant
from clip_seg_ros.commands.words import ALL, DETERMINERS, FORMS, NUMBERS, RELATIONS

EXAMPLE = '"segment the red cup"'
_NEGATIVE_EXAMPLE = '"find the cup, not the blue one"'
PUNCTUATION = " .,;:!?"
_ONE = ("one", "ones")
_PRONOUNS = ("it", "them", "him")
_NO_NOUNS = ("everything", "anything", *_ONE)

_WORD_END = r'(?=[\s,;&"]|$)'
# "without" and "but" leave something out only before a phrase that ends in "one": "cup without a handle".
_BEFORE_ONE = rf'(?= (?:(?!and )[^\s,;&"]+ ){{0,9}}(?:ones?|{any_of(BEFORE_NOUNS)})[.:!?]*(?:[,;&]| and\b| ?$))'


def _marker(names: Sequence[str]) -> str:
    # Without the flag "a", "i" would match the dotless and the dotted I, which lower() does not convert to "i".
    return f"(?ai:{any_of([form for name in names for form in FORMS[name]])})"


# "Not more than 40 cm from" is a distance.
_MARKER = (
    rf"{_marker(('not', 'except'))}(?! (?:more|further|farther) than){_WORD_END}|{_marker(('without',))}{_BEFORE_ONE}"
)
_MARKER_KIND = {form: kind for kind in ("not", "except", "without") for form in FORMS[kind]}
_TOKEN = re.compile(
    rf'"(?P<quoted>[^"]*)"|(?P<marker>{_MARKER})|(?P<separator>[,;&]|(?:and|or|nor){_WORD_END})|(?P<word>[^\s,;&"]+)',
    re.IGNORECASE,
)
_RELATION_STARTS = frozenset(relation.split()[0] for relation in RELATIONS)
_RELATION = re.compile(rf" (?ai:{any_of(RELATIONS)}) ")
# A clause would be split wrongly at "not".
_CLAUSE = re.compile(r"(?<![\w'-])(?:(?:is|are|do|does|has|have)(?:n't| not)|never)(?![\w'-])", re.IGNORECASE)


@dataclass(frozen=True)
class Phrases:
    """The phrases of a command, each once and in the order of the text."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    counted: tuple[str, ...]
    """Those that were typed with a number."""
    references: tuple[Reference, ...]
    """What each phrase to look for refers to."""
    printed: str
    """All phrases as one text in which names are in quotes; it splits into the same phrases and references."""


@dataclass
class _Part:
    """The words between two separators."""

    marker: str = ""
    """The word that leaves the phrase out, as typed; "" if there is none or it belongs to an earlier part."""
    kind: str = ""
    """The marker's row in the grammar (not, except, without); "" for a phrase to look for."""
    words: list[Word] = field(default_factory=list)
    """The words without determiners at the beginning."""
    is_determined: bool = False
    """Whether there were determiners: "all of the cups"."""
    is_all: bool = False
    """Whether one of them was "all" or the like."""
    number: int | None = None
    """The number before the words."""

    def text(self) -> str:
        # It is split once more because quoted texts may begin or end with a space.
        return " ".join(_joined([word.text for word in self.words]).split()).strip(PUNCTUATION)


@dataclass
class _Wanted:
    """A phrase to look for, and what is left out of it."""

    phrase: str
    reference: Reference
    printed: str
    without: dict[str, tuple[Reference, str]] = field(default_factory=dict)
    """The phrases that were left out after it, each with its reference and how it is printed."""

    @property
    def noun(self) -> str:
        return _noun(self.reference.name if self.reference.is_conditional else self.phrase)


def split_phrases(text: str, are_places_read: bool = True) -> Phrases:
    """Splits the text after a verb into its phrases.

    Args:
        text: The text.
        are_places_read: Whether a phrase may refer to a place; if not, each is a name.

    Raises:
        CommandError: A quote is not closed, a word needs another after it, or a phrase does not say what it means.
    """
    if text.count('"') % 2:
        raise CommandError('a quote is not closed: type for example find "salt and pepper"')
    if clause := _CLAUSE.search(re.sub(r'"[^"]*"', '""', text)):
        raise CommandError(
            f'"{clause[0]}" is not understood: type for example {_NEGATIVE_EXAMPLE}, or "stop"; '
            "double quotes keep a phrase whole"
        )
    parts = _parts(text, are_places_read)
    for part in parts:
        if part.marker and not part.text():
            raise CommandError(f'"{part.marker}" needs a phrase after it: type for example {_NEGATIVE_EXAMPLE}')
    parts = [part for part in parts if part.text()]
    if parts and all(part.kind for part in parts):
        raise CommandError(f"the command names only what to leave out: type for example {_NEGATIVE_EXAMPLE}")
    if are_places_read and len(parts) > 1 and not (parts[0].kind or parts[1].kind) and _is_place(parts[0].words):
        # "From the left, the second cup" is said the other way round.
        parts[1].words += parts.pop(0).words
    return _gathered(parts, are_places_read)


def _gathered(parts: Sequence[_Part], are_places_read: bool) -> Phrases:
    wanted: dict[str, _Wanted] = {}
    early: dict[str, tuple[Reference, str]] = {}
    counted: list[str] = []
    last: _Wanted | None = None
    for part in parts:
        had_number = _drop_number(part)
        if part.kind:
            _complete(part, last.noun if last else "")
        phrase = part.text()
        if not any(character.isalnum() for character in phrase):
            raise CommandError(f'"{shown(phrase)}" holds no word: type what to look for, for example {EXAMPLE}')
        if phrase in _PRONOUNS and not part.words[0].is_quoted:
            raise CommandError(f'"{phrase}" does not say which thing: type its name, for example {EXAMPLE}')
        counted += [phrase] if had_number else []
        if are_places_read:
            check_meant(part.words, has_thing_before=bool(last))
            understood = understand(
                part.words, part.number, part.is_all, last.reference.name if last else "", needs_name=not part.kind
            )
        else:
            understood = Understood(Reference(phrase), frozenset())
        if part.kind:
            # What is in brackets is complete.
            is_whole = last is None or (part.words[0].text.startswith("(") and not part.words[0].is_quoted)
            left_out = understood.reference if is_whole else _left_out(understood.reference, last)
            (last.without if last else early)[phrase] = (left_out, _printed(part, understood))
        else:
            new = _Wanted(phrase, understood.reference, _printed(part, understood))
            last = wanted.setdefault(phrase, new)
    things = list(wanted.values())
    if things:
        things[0].without = {**early, **things[0].without}
    unwanted = tuple(dict.fromkeys(phrase for thing in things for phrase in thing.without))
    for phrase in unwanted:
        if phrase in wanted:
            raise CommandError(
                f'"{shown(phrase)}" is both to be found and to be left out: type for example {_NEGATIVE_EXAMPLE}'
            )
    references = tuple(
        replace(thing.reference, exclusions=tuple(reference for reference, _ in thing.without.values()))
        for thing in things
    )
    return Phrases(tuple(wanted), unwanted, tuple(dict.fromkeys(counted)), references, _all_printed(things))


def _parts(text: str, are_places_read: bool) -> list[_Part]:
    """Splits the text at markers and separators outside quotes; a part may be empty."""
    parts = [_Part()]
    tokens = list(_TOKEN.finditer(text))
    groups, depth = '"' in text, 0
    for index, token in enumerate(tokens):
        last = parts[-1]
        # It is lower() and not casefold(), which would change the spelling of words ("ß" -> "ss") for the model.
        # NFKC is applied again, because small letters have composed forms that capital letters lack.
        word = unicodedata.normalize("NFKC", (token[0] if token["quoted"] is None else token["quoted"]).lower())
        if groups and token["word"]:
            depth = max(0, depth + word.count("(") - word.count(")"))
        if token["marker"] and not depth:
            parts.append(_Part(word, _MARKER_KIND[word]))
        elif (
            token["separator"]
            and word not in ("or", "nor")
            and (depth or (are_places_read and _goes_on(last, tokens[index + 1 :], word)))
        ):
            last.words.append(Word("," if word in (",", ";") else "and"))
        elif token["separator"] and (last.kind or word not in ("or", "nor")):
            ended = last.kind != "except" and word in (",", ";")
            parts.append(_Part(kind="" if ended else last.kind))
        elif token["quoted"] is not None:
            last.words += [Word(" ".join(word.split()), True)] if word.strip() else []
        elif last.words or not (word in DETERMINERS or (word == "of" and last.is_determined)):
            last.words.append(Word(word))
        else:
            last.is_determined = True
            last.is_all = last.is_all or word in ALL
    return parts


def _goes_on(part: _Part, following: Sequence[re.Match[str]], separator: str) -> bool:
    """Returns whether a phrase goes on after "and" or a comma: "between A and B", "behind A, left of B"."""
    words = _outside_brackets(part.words)
    if not words or (part.kind and separator in (",", ";")):
        return False
    if separator in ("and", "&") and _is_between_open(words):
        return bool(following)
    coming: list[Word] = []
    for token in following:
        if token["marker"] or token["separator"]:
            break
        coming.append(
            Word((token[0] if token["quoted"] is None else token["quoted"]).lower(), token["quoted"] is not None)
        )
    if separator in ("and", "&") and any(word.text in _ONE for word in coming[:4]):
        return False
    while coming and coming[0].text in DETERMINERS - {"the"} and not coming[0].is_quoted:
        coming = coming[1:]
    return _is_place(coming)


def _outside_brackets(words: Sequence[Word]) -> list[str]:
    """Returns the words outside brackets; what is in brackets or quotes is one quote."""
    seen: list[str] = []
    depth = 0
    for word in words:
        text = '"' if word.is_quoted else word.text
        seen += [] if depth else ['"' if text.startswith("(") else text]
        depth = max(0, depth + text.count("(") - text.count(")"))
    return seen


def _is_place(words: Sequence[Word]) -> bool:
    """Returns whether the words begin like a place, understood or not."""
    try:
        return Text(words).place(0, is_strict=True) is not None
    except CommandError:
        return True


def _is_between_open(words: Sequence[str]) -> bool:
    """Returns whether "between" has only one thing yet, which is not "the two boxes"."""
    if "between" not in words[1:]:
        return False
    after = words[len(words) - words[::-1].index("between") :]
    things = [word for word in after if word not in DETERMINERS]
    is_several = bool(things) and (things[0] in NUMBERS - {"one"} or (things[0].isdecimal() and things[0] != "1"))
    return bool(things) and "and" not in after and not is_several


def _drop_number(part: _Part) -> bool:
    """Removes "two" from "two balls" and "two of the balls", but not from "two euro coin"; returns whether it did."""
    first, rest = part.words[0], part.words[1:]
    is_couple = first.text == "couple"
    if not first.is_quoted and first.text == "couple" and len(rest) > 1 and rest[0].text == "of":
        first = Word("two")
    number = first.text
    if first.is_quoted or not rest or rest[0].text in ("and", ",") or not (number in NUMBERS or number.isdecimal()):
        return False
    noun = _noun(" ".join(word.text for word in rest)).strip(PUNCTUATION)
    is_plural = noun in _ONE or noun in BEFORE_NOUNS or bool(singulars(noun))
    is_name = rest[0].is_quoted and len(rest) == 1
    if is_name and (number not in ("one", "1") or not is_plural):
        pass
    elif number in ("one", "1") and rest[0].text != "of":
        if rest[0].text in _ONE:
            return False
        # "one on the shelf" stands for a thing; "one sheep" and "one glass" name it.
        if rest[0].text in _RELATION_STARTS or (is_plural and noun not in _ONE):
            return False
    elif not (is_plural or (rest[0].text == "of" and any(word.is_quoted for word in rest) and not is_couple)):
        return False
    while len(rest) > 1 and not rest[0].is_quoted and (rest[0].text == "of" or rest[0].text in DETERMINERS):
        rest = rest[1:]
    part.words[:] = rest
    part.number = 2 if number == "both" else int(number) if number.isdecimal() else int(QUANTITIES[number])
    return True


def _complete(part: _Part, noun: str) -> None:
    """Replaces "one" with the noun of the earlier phrase, or puts this noun beside "on the table" and "largest"."""
    is_completed = False
    for position, word in enumerate(part.words):
        if word.is_quoted or word.text.strip(PUNCTUATION) not in _ONE:
            continue
        if len(part.words) == 1:
            raise CommandError(f'"{word.text}" alone does not say which: type for example {_NEGATIVE_EXAMPLE}')
        if not noun or noun in _NO_NOUNS:
            raise CommandError(
                f'"{word.text}" stands for a thing named before it: type for example {_NEGATIVE_EXAMPLE}'
            )
        part.words[position] = Word(noun, True)
        is_completed = True
    if is_completed or not noun or part.words[0].is_quoted:
        return
    if _RELATION.match(f" {part.text()} "):
        part.words.insert(0, Word("object" if noun in _NO_NOUNS else noun, True))
    elif part.words[-1].text.strip(PUNCTUATION) in BEFORE_NOUNS or part.text() in COLOURS:
        part.words.append(Word(noun, True))


def _left_out(reference: Reference, wanted: _Wanted) -> Reference:
    """Returns what is left out of a thing: for "not the leftmost one", the leftmost of the same things."""
    if not reference.is_conditional or reference.name != wanted.noun:
        return reference
    base = wanted.reference
    relations = tuple(dict.fromkeys((*base.relations, *reference.relations)))
    return replace(reference, name=base.name, relations=relations)


def _noun(phrase: str) -> str:
    """Returns the noun of a phrase: its last word, or the one before "on the table"; "" for an empty phrase."""
    relation = _RELATION.search(f"{phrase} ")
    words = (phrase[: relation.start()] if relation else phrase).split()
    return words[-1] if words else ""


def _joined(texts: Sequence[str]) -> str:
    """Returns the texts with spaces between them, but for those before a comma."""
    return "".join(text if text == "," else f" {text}" for text in texts).strip()


def _printed(part: _Part, understood: Understood) -> str:
    """Returns a phrase as typed, with its names in quotes and its number as digits."""
    reference = understood.reference
    number = f"{part.number} " if part.number is not None else ""
    if not reference.is_conditional:
        link = "of " if part.number == 1 or (number and not means_several(reference.name)) else ""
        return f'{number}{link}"{part.text()}"'
    pieces: list[str] = []
    name: list[str] = []
    for index, word in enumerate(part.words):
        if index in understood.names:
            name += word.text.split()
            continue
        pieces += [f'"{" ".join(name)}"'] if name else []
        name = []
        pieces.append(word.text)
    pieces += [f'"{" ".join(name).rstrip(PUNCTUATION)}"'] if name else []
    several = "all " if part.is_all and part.number is None else ""
    link = "of " if number and (part.number == 1 or not means_several(reference.name)) else ""
    return (several + number + link + _joined(pieces)).rstrip(PUNCTUATION)


def _all_printed(things: Sequence[_Wanted]) -> str:
    """Returns all phrases: the last one leaves out with "except", those before it with "not", which a comma ends."""
    text = ""
    for thing in things:
        if text:
            # After a comma, "the one on the left" would go on with the thing before it.
            is_one = re.search(r"\bones?\b", re.sub(r'"[^"]*"', "", thing.printed)) and " not " not in text
            text += " and " if is_one else ", "
        text += thing.printed
        left_out = [printed for _, printed in thing.without.values()]
        if left_out:
            text += f" except {', '.join(left_out)}" if thing is things[-1] else f" not {' or '.join(left_out)}"
    return text
