# SPDX-License-Identifier: Apache-2.0
"""The words of references: one table that their parser and ``docs/commands.md`` share, as ``words`` has of verbs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlaceRule:
    """One row: what a condition is called, how it is said, and what becomes of an example."""

    name: str
    """The kind of a ``Relation`` or a ``Superlative``, or a name for another condition."""
    forms: tuple[str, ...]
    """Ways to say it, in lower case."""
    example: str
    """A phrase, as a user would type it."""
    means: str
    """``str`` of its reference, which parses to the same reference."""


RELATION_RULES = (
    PlaceRule(
        "left of",
        ("left of", "to the left of", "on the left of", "on the left side of", "on my left", "to my left"),
        "the cup to the left of the blue box",
        '"cup" left of "blue box"',
    ),
    PlaceRule(
        "right of",
        ("right of", "to the right of", "on the right of", "on the right side of", "on my right", "to my right"),
        "the cups on my right",
        '"cups" right of me',
    ),
    PlaceRule("in front of", ("in front of",), "the ball in front of me", '"ball" in front of me'),
    PlaceRule(
        "behind",
        ("behind", "in back of"),
        "the ball behind the cup left of the box",
        '"ball" behind ("cup" left of "box")',
    ),
    PlaceRule("above", ("above", "over"), "the lamp above the table", '"lamp" above "table"'),
    PlaceRule("below", ("below", "beneath"), "the box below the shelf", '"box" below "shelf"'),
    PlaceRule(
        "on",
        ("on", "on top of", "atop", "upon"),
        "the two cups on the table and near the box",
        '2 "cups" on "table" and near "box"',
    ),
    PlaceRule("in", ("in", "inside", "inside of", "within"), "the ball inside the bowl", '"ball" in "bowl"'),
    PlaceRule("under", ("under", "underneath"), "everything under the table", 'all "object" under "table"'),
    PlaceRule(
        "next to",
        ("next to", "beside", "by", "alongside", "adjacent to"),
        "the can next to the red one",
        '"can" next to "red can"',
    ),
    PlaceRule("near", ("near", "near to", "close to"), "the cups close to me", '"cups" near me'),
    PlaceRule(
        "between",
        ("between", "in between"),
        "the red cup between the box and the bowl, not the small one",
        '"red cup" between "box" and "bowl" except "small cup"',
    ),
    PlaceRule(
        "touching",
        ("touching", "touches", "touch", "in contact with", "against"),
        "the can touching the bottle",
        '"can" touching "bottle"',
    ),
    PlaceRule(
        "within",
        ("within 40 cm of", "less than 1 m from", "no more than 30 cm from", "at most 2 m from", "closer than 1 m to"),
        "the cups within 40 cm of the bowl",
        '"cups" within 0.4 m of "bowl"',
    ),
)

SUPERLATIVE_RULES = (
    PlaceRule(
        "leftmost",
        ("leftmost", "farthest left", "furthest left", "on the left", "to the left"),
        "the cup on the left",
        'leftmost "cup"',
    ),
    PlaceRule(
        "rightmost",
        ("rightmost", "farthest right", "furthest right", "on the right", "to the right"),
        "the two rightmost cups",
        'rightmost 2 "cups"',
    ),
    PlaceRule(
        "nearest",
        ("nearest", "closest", "nearer", "closer", "nearest to", "closest to", "frontmost", "foremost", "in front"),
        "the cup closest to the bowl",
        '"cup" nearest to "bowl"',
    ),
    PlaceRule(
        "farthest",
        ("farthest", "furthest", "farthest from", "furthest from", "most distant", "rearmost", "at the back"),
        "the ball farthest from me",
        'farthest "ball"',
    ),
    PlaceRule("largest", ("largest", "biggest", "larger", "bigger"), "the biggest red box", 'largest "red box"'),
    PlaceRule(
        "smallest", ("smallest", "tiniest", "littlest", "smaller"), "the smallest of the cups", 'smallest 1 of "cups"'
    ),
    PlaceRule("tallest", ("tallest", "taller"), "the tallest bottle on the table", 'tallest "bottle" on "table"'),
    PlaceRule("shortest", ("shortest", "shorter"), "the shortest bottle", 'shortest "bottle"'),
    PlaceRule(
        "highest", ("highest", "topmost", "uppermost", "on top", "at the top"), "the topmost book", 'highest "book"'
    ),
    PlaceRule("lowest", ("lowest", "bottommost", "lowermost", "at the bottom"), "the lowest book", 'lowest "book"'),
)

OTHER_RULES = (
    PlaceRule(
        "order",
        ("first", "second", "2nd", "last", "second to last", "third largest", "number 2"),
        "the second cup from the left",
        '"cup" number 2 from the left',
    ),
    PlaceRule(
        "number",
        ("two", "2", "both", "a couple of", "all", "how many"),
        "both cups left of the box",
        '2 "cups" left of "box"',
    ),
    PlaceRule(
        "exclusion",
        ("not", "except", "without"),
        "the red cups, not the leftmost one",
        '"red cups" except (leftmost "red cups")',
    ),
)
PLACE_RULES = (*RELATION_RULES, *SUPERLATIVE_RULES, *OTHER_RULES)
"""All rows, in the order of the page."""

_IN_PATTERNS = ("left of", "right of", "within")
RELATION_OF = {form: rule.name for rule in RELATION_RULES for form in rule.forms if rule.name not in _IN_PATTERNS}
"""The relation of each of its forms, but for sides and distances, for which ``places`` has patterns."""
SUPERLATIVE_OF = {form: rule.name for rule in SUPERLATIVE_RULES for form in rule.forms}
"""Superlative of each form, with those that follow a noun."""
BEFORE_NOUNS = frozenset(form for form in SUPERLATIVE_OF if len(form.split()) == 1) | {"most distant"}
"""Superlatives that may stand before their noun."""

SIDE_OF = {
    **dict.fromkeys(("left", "leftmost"), "left"),
    **dict.fromkeys(("right", "rightmost"), "right"),
    **dict.fromkeys(("near", "front", "nearest", "me", "here", "you", "camera", "robot"), "near"),
    **dict.fromkeys(("far", "back", "rear", "farthest"), "far"),
    **dict.fromkeys(("top", "highest"), "top"),
    **dict.fromkeys(("bottom", "lowest"), "bottom"),
    **{word: word for word in ("largest", "smallest")},
}
"""Side that order counts from, by words and by superlatives: "second nearest"."""
ENDS = {
    "left": ("leftmost", "rightmost"),
    "right": ("rightmost", "leftmost"),
    "near": ("nearest", "farthest"),
    "far": ("farthest", "nearest"),
    "top": ("highest", "lowest"),
    "bottom": ("lowest", "highest"),
    "largest": ("largest", "smallest"),
    "smallest": ("smallest", "largest"),
}
"""Superlatives of the first and of the last from each side, for "the first two cups from the left"."""

ORDINALS = {
    word: place
    for place, names in enumerate(
        (
            "first 1st",
            "second 2nd",
            "third 3rd",
            "fourth 4th",
            "fifth 5th",
            "sixth 6th",
            "seventh 7th",
            "eighth 8th",
            "ninth 9th",
            "tenth 10th",
        ),
        start=1,
    )
    for word in names.split()
}
LAST = {
    "last": -1,
    "second to last": -2,
    "next to last": -2,
    "second last": -2,
    "last but one": -2,
    "penultimate": -2,
    "third to last": -3,
    "third last": -3,
}
"""Places that are counted from the other end."""
ORDINAL_NAMES = {
    "first": frozenset({"aid", "class", "base", "name"}),
    "second": frozenset({"hand", "class", "skin"}),
    "third": frozenset({"party", "eye"}),
    "last": frozenset({"supper", "name"}),
}
"""What follows an ordinal in names: "first aid kit"."""
SIDED_NAMES = frozenset(
    "glove gloves hand hands shoe shoes foot feet arm arms leg legs eye eyes ear ears boot boots sock socks "
    "mitten mittens knee elbow shoulder finger thumb wheel wheels wing wings headlight headlights earbud "
    "earbuds earphone speaker lane turn arrow click angle triangle button key joystick indicator signal "
    "mirror pedal handed".split()
)
"""What is called left or right by itself, wherever it lies: "left glove"."""

COLOURS = frozenset("red blue green yellow black white grey gray brown orange purple pink silver gold beige".split())
WORN = frozenset(
    "hat dress coat shirt jacket suit uniform skirt jeans helmet apron t-shirt sweater hoodie vest gown "
    "shorts trousers boots shoes glasses sunglasses mask costume kimono tuxedo armor armour".split()
)
"""With colours, what one is "in" without being inside: "man in red"."""
ANYTHINGS = frozenset("everything anything something one ones thing things all what".split())
"""Words that stand for an object of any kind where no thing was named before."""

OWN = frozenset("me us you myself yourself here".split())
"""The place of the person who speaks, who looks as the camera does."""
VAGUE = frozenset("it them him her that this those these there itself apart".split())
"""Words that do not say which thing, where nothing follows them."""
CLAUSES = frozenset("with without using wearing holding having carrying containing for".split())
"""Words after which "on it" still belongs to a name: "cup with a sticker on it"."""
FILLERS = (
    *("that is", "that are", "that's", "which is", "which are", "who is", "who are", "is", "are"),
    *("standing", "lying", "sitting", "located", "placed", "positioned", "resting", "lies", "stands", "sits", "that"),
    *("which", "who", "all", "leaning", "hanging", "situated", "the one", "the ones"),
)
"""Words without a meaning of their own between a thing and its place."""
DEGREES = (
    *("directly", "just", "immediately", "right", "straight", "exactly", "slightly", "a bit", "a little", "somewhat"),
    *("far", "further", "farther", "the", "very", "well", "away", "along"),
)
"""Words before a place that say how much, which is not measured."""
UNKNOWN_PLACES = {
    "far from": "farthest from the box",
    "far away from": "farthest from the box",
    "away from": "farthest from the box",
    "outside": "next to the box",
    "outside of": "next to the box",
    "opposite": "in front of the box",
    "across from": "in front of the box",
    "among": "between the boxes",
    "amongst": "between the boxes",
    "in the middle": "the second cup from the left",
    "at the center": "between the boxes",
    "at the centre": "between the boxes",
    "in the center": "between the boxes",
    "in the centre": "between the boxes",
    "at the bottom of": "below the box",
    "at the top of": "on the box",
    "more than": "farthest from the box",
    "further than": "farthest from the box",
    "farther than": "farthest from the box",
    "at least": "farthest from the box",
}
"""Places that are not understood, with what may be meant."""
MATTERS_OF_TASTE = frozenset(
    "prettiest nicest best worst newest oldest heaviest lightest cheapest fullest emptiest cleanest dirtiest brightest "
    "darkest longest widest thickest thinnest roundest reddest".split()
)
"""Superlatives of what is not measured."""
NO_THINGS = frozenset("why how when whose you are did does either neither then of out whatsit thingy doodah".split())
"""Words with which no name begins, unless it is in quotes."""
HANDLING = frozenset("put move place throw drop pour push pull turn open close lift carry bring".split())
"""What is asked of a hand, before an article: a node that finds things cannot do it."""
SPEAKERS_VIEW = ("from where i", "from my", "from your", "on my side", "on your side", "as i see it")
"""The view of the person who speaks, which nothing shows."""
SCENE = ("image", "picture", "photo", "scene", "view", "frame", "sight")
"""What is said of every thing: "the largest cup in the picture"."""

LIMITS = (
    *("within", "less than", "no more than", "not more than", "at most", "up to", "closer than", "nearer than"),
    *("no further than", "no farther than", "not further than", "not farther than", "under"),
)
"""Words before a greatest distance."""
METRES = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "cms", "centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 0.001),
    **dict.fromkeys(("inch", "inches"), 0.0254),
    **dict.fromkeys(("foot", "feet", "ft"), 0.3048),
}
"""Units of distance in metres."""
QUANTITIES = {
    **{
        word: float(place)
        for place, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
    },
    "a": 1.0,
    "an": 1.0,
    "half a": 0.5,
    "half": 0.5,
    "a half": 0.5,
    "a quarter of a": 0.25,
    "twenty": 20.0,
    "thirty": 30.0,
    "forty": 40.0,
    "fifty": 50.0,
    "sixty": 60.0,
    "seventy": 70.0,
    "eighty": 80.0,
    "ninety": 90.0,
    "fifteen": 15.0,
    "a hundred": 100.0,
}
"""Numbers in words."""


def place_table() -> str:
    """Returns ``PLACE_RULES`` as a Markdown table with one row for each rule, without a newline at the end."""
    lines = ["| place | ways to say it | example | understood as |", "|---|---|---|---|"]
    for rule in PLACE_RULES:
        forms = ", ".join(f"`{form}`" for form in rule.forms)
        lines.append(f"| {rule.name} | {forms} | `{rule.example}` | `{rule.means}` |")
    return "\n".join(lines)
