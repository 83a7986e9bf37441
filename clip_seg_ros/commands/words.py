# SPDX-License-Identifier: Apache-2.0
"""The words of the command language: one table that the parser, its advice and ``docs/commands.md`` share."""

from __future__ import annotations

from dataclasses import dataclass

from clip_seg_ros.commands.reference_words import LIMITS, RELATION_OF


@dataclass(frozen=True)
class Rule:
    """One row of the grammar: a verb, or an addition to the phrases of a verb."""

    name: str
    """The verb, which is also ``Command.verb``, or a name for the addition."""
    forms: tuple[str, ...]
    """All forms of it, in lower case."""
    example: str
    """A whole command, as a user would type it."""
    means: str
    """The same command in full and with every phrase in quotes: ``str`` of what ``parse_command`` returns."""
    does: str
    """A short description of its effect."""


COUNTING = ("how many", "count", "what is the number of", "what's the number of")
"""Verbs whose answer is a number."""
ASKING_WHERE = ("where is", "where are", "where's", "wheres")
"""Verbs of ``find`` to which the memory of objects adds what it knows."""
FETCHING = (
    "pick up",
    "pick",
    "grab me",
    "grab",
    "gimme",
    "get me",
    "get",
    "give me",
    "bring me",
    "bring",
    "fetch me",
    "fetch",
    "hand me",
    "pass me",
    "take",
    "go to",
    "point at",
    "point to",
)
"""Verbs that ask a robot to move. The nodes find the object, and say that they move nothing."""

RESETTING = (
    "reset threshold",
    "reset the threshold",
    "default threshold",
    "the default threshold",
    "use default threshold",
    "use the default threshold",
)
"""Forms that restore each model's own threshold if no number follows."""

OWN_THRESHOLD = frozenset(
    {
        "default",
        "the default",
        "its default",
        "own",
        "its own",
        "model's own",
        "the model's own",
        "auto",
    }
)
"""Words that stand for each model's own threshold after "threshold"."""

RECALLING_ALL = (
    "what have you seen",
    "what have you seen so far",
    "what did you see",
    "what did you see so far",
    "what do you remember",
    "what can you remember",
    "what else do you remember",
    "list what you remember",
    "list what you have seen",
    "recall everything",
)
FORGETTING_ALL = (
    "forget everything",
    "forget all things",
    "forget all objects",
    "forget what you saw",
    "forget what you have seen",
    "forget everything you have seen",
    "clear the memory",
    "clear your memory",
    "empty the memory",
)
OF_ALL = frozenset({*RECALLING_ALL, *FORGETTING_ALL})
"""Forms that mean everything that is remembered, and after which no phrase follows."""
OF_MEMORY = ("recall", "forget")
"""Verbs that are about what is remembered, and not about what is seen."""

GRAMMAR = (
    Rule(
        "segment",
        ("segment", "show me", "show", "detect", "highlight", "identify", "pick out", "select"),
        "segment the red cup and the blue box",
        'segment "red cup", "blue box"',
        "looks for the phrases in every image until the next command; a phrase without a verb does the same",
    ),
    Rule(
        "find",
        (
            "find",
            "find me",
            "look for",
            "search for",
            "locate",
            *ASKING_WHERE,
            "is there",
            "are there",
            "do you see",
            "see",
            "look at",
            *COUNTING,
            "i'm looking for",
            "i am looking for",
            "i need",
            "i want",
            *FETCHING,
        ),
        "where is my cup?",
        'find "cup"',
        "as `segment`, and says that you want to know where it is; nothing is moved, whatever you say",
    ),
    Rule(
        "track",
        ("track", "follow", "keep track of", "keep an eye on"),
        "follow the ball",
        'track "ball"',
        "as `segment`, and says that you want it followed from image to image",
    ),
    Rule(
        "use",
        ("use", "use model", "use the model", "using", "switch to", "change to", "set model to", "set the model to"),
        "switch to clipseg-pocket",
        "use clipseg-pocket",
        "changes the model",
    ),
    Rule(
        "classes",
        (
            "classes",
            "the classes",
            "segment classes",
            "segment the classes",
            "set classes to",
            "set the classes to",
            "label everything as",
        ),
        "classes: cup, table, floor",
        'classes "cup", "table", "floor"',
        "gives every pixel one of these classes; one word may be the name of a list, as in `classes: ade20k`",
    ),
    Rule(
        "threshold",
        (
            "threshold",
            "the threshold",
            "set threshold",
            "set the threshold",
            "use threshold",
            "use a threshold",
            "use the threshold",
            *RESETTING,
        ),
        "set the threshold to 0.4",
        "threshold 0.4",
        "sets the probability, 0 to 1, above which a pixel belongs to a phrase; `threshold default` is each "
        "model's own",
    ),
    Rule(
        "stop",
        ("stop", "stop it", "stop that", "stop everything", "stop segmenting", "stop tracking", "stop looking", "halt"),
        "stop",
        "stop",
        "stops the work and keeps the last answer",
    ),
    Rule(
        "clear",
        ("clear", "clear it", "clear all", "clear everything", "clear the masks", "forget it"),
        "clear",
        "clear",
        "stops the work and empties the outputs; what is remembered stays",
    ),
    Rule(
        "recall",
        (
            "recall",
            "where did you last see",
            "where did you see",
            "where have you seen",
            "where have you last seen",
            "where was",
            "where were",
            "when did you last see",
            "when did you see",
            "when have you seen",
            "did you see",
            "have you seen",
            "do you remember",
            "what do you remember of",
            "what do you remember about",
            *RECALLING_ALL,
        ),
        "where did you last see the red cup?",
        'recall "red cup"',
        "says from memory where things are and when they were seen, and goes on with what was asked before; the forms "
        "without a phrase, such as `what have you seen?`, list everything",
    ),
    Rule(
        "forget",
        ("forget", "forget about", "forget everything about", *FORGETTING_ALL),
        "forget the red cup",
        'forget "red cup"',
        "takes things out of the memory, and goes on with what was asked before; `forget everything` empties it",
    ),
    Rule(
        "describe",
        (
            "what do you see",
            "what can you see",
            "what is there",
            "what's there",
            "what is this",
            "what is here",
            "what's here",
            "what is on the table",
            "what's on the table",
            "what is in front of you",
            "what objects are there",
            "what things are there",
            "which objects are there",
            "list objects",
            "list the objects",
            "list all objects",
            "list everything",
            "list",
            "describe the scene",
            "describe what you see",
            "describe",
            "look around",
            "name everything",
        ),
        "what do you see?",
        "describe",
        "lists what one image holds of the things that the model knows, and goes on with what was asked before",
    ),
    Rule(
        "help",
        (
            "help",
            "help me",
            "what can i say",
            "what can you do",
            "what can i ask",
            "how does this work",
            "commands",
            "show help",
            "usage",
        ),
        "help",
        "help",
        "answers with examples of commands",
    ),
    Rule(
        "quit",
        ("quit", "exit", "bye", "goodbye", "good bye"),
        "quit",
        "quit",
        "ends the demo; a node of a robot says that it is ended where it was started, and works on",
    ),
    Rule(
        "not",
        ("not", "but not", "and not"),
        "segment the cup, not the blue one",
        'segment "cup" except "blue cup"',
        'leaves things out: the phrases joined to it by "and" or "or"; a comma ends it',
    ),
    Rule(
        "except",
        ("except for", "except", "apart from", "other than", "excluding", "ignoring", "not counting", "besides"),
        "all fruit except the apples, the pears and the small banana",
        'segment "fruit" except "apples", "pears", "small banana"',
        "leaves things out: all phrases to the end of the command",
    ),
    Rule(
        "without",
        ("without", "but"),
        "find the cups without the small ones",
        'find "cups" except "small cups"',
        'as `not`, but only before "one" or "ones": "cup without a handle" stays one phrase',
    ),
    Rule(
        "with threshold",
        ("with threshold", "with a threshold of", "at threshold", "at a threshold of"),
        "find the cup with threshold 0.4",
        'find "cup" with threshold 0.4',
        "sets the threshold together with the command",
    ),
    Rule(
        "using",
        ("using", "using model", "using the model", "with model"),
        "find the largest ball using cris",
        'find largest "ball" using cris',
        "asks this model; comes last, before or after the threshold",
    ),
)

FORMS = {rule.name: rule.forms for rule in GRAMMAR}

VERBS = (
    *("segment", "find", "track", "use", "classes", "threshold", "stop", "clear"),
    *("recall", "forget", "describe", "help", "quit"),
)
"""The rows that begin a command; the others add to the phrases of segment, find and track."""

DETERMINERS = frozenset(
    "a an the some any all my your our his her their this that these those each every another".split()
)
"""Determiners, which are dropped at the beginning of a phrase."""

ALL = frozenset("some any all these those each every".split())
"""Determiners of several things, which a singular noun may follow: "every cup"."""

NUMBERS = frozenset("one two three four five six seven eight nine ten eleven twelve both".split())
"""Numbers that are dropped, as digits are, at the beginning of a phrase if a noun in this number follows: all objects
of that name are found."""

RELATIONS = tuple(
    dict.fromkeys(
        (
            *RELATION_OF,
            *LIMITS,
            *("left of", "right of", "closest to", "nearest to", "farthest from", "furthest from"),
            *("of", "at", "to", "with", "without", "from", "for", "that", "which", "wearing", "holding"),
            *("standing", "lying", "sitting"),
        )
    )
)
"""Words that follow the noun of a phrase: "on" after "cup" in "red cup on the table"."""


def grammar_table() -> str:
    """Returns ``GRAMMAR`` as a Markdown table with one row for each rule, without a newline at the end."""
    lines = ["| what | ways to say it | example | understood as | what it does |", "|---|---|---|---|---|"]
    for rule in GRAMMAR:
        forms = ", ".join(f"`{form}`" for form in rule.forms)
        lines.append(f"| {rule.name} | {forms} | `{rule.example}` | `{rule.means}` | {rule.does} |")
    return "\n".join(lines)
