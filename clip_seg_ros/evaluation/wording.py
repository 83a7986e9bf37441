# SPDX-License-Identifier: Apache-2.0
"""How the papers' authors put the names of classes into words when they measure.

``data``: every class goes by its name in the data set.
``maskclip``: MaskCLIP's authors respell names that are no English: "tvmonitor" is "tv monitor", and "wall-brick" is
"brick wall". The lists of the package have both (``resources.class_list``).
``clipseg``: CLIPSeg's authors ask PASCAL-5i for "a photo of a tvmonitor.", everything else by its name, and in their
zero-shot table on VOC they call "aeroplane" "airplane".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, get_args

from clip_seg_ros.data.pascal5i import SPOKEN
from clip_seg_ros.resources import class_list, class_list_names

Author = Literal["data", "maskclip", "clipseg"]
AUTHORS: tuple[Author, ...] = get_args(Author)
_PASCAL5I = "a photo of a {}."
_CLIPSEG = {"aeroplane": "airplane"}


def class_prompts(class_names: Sequence[str], author: Author, known: Collection[str] | None = None) -> tuple[str, ...]:
    """Returns the phrase that asks for each class.

    Args:
        class_names: Names in the data set.
        author: Whose words they are put into.
        known: The classes of a model with a fixed list, in which a name that it lacks stays as it is; ``None`` for a
            model that takes any phrase.
    """
    words = _words(author)
    prompts = tuple(words.get(name, name) for name in class_names)
    if known is None:
        return prompts
    return tuple(prompt if prompt in known else name for prompt, name in zip(prompts, class_names))


def phrase_wording(kind: str, author: Author) -> Callable[[str], str]:
    """Returns a function that puts the phrase of a sample into the author's words.

    Args:
        kind: Kind of the data set in ``data.catalog``.
        author: Whose words.
    """
    if author == "clipseg" and kind == "pascal5i":
        names = {spoken: name for name, spoken in SPOKEN.items()}
        return lambda phrase: _PASCAL5I.format(names.get(phrase, phrase))
    words = _words(author) if author == "maskclip" else {}
    return lambda phrase: words.get(phrase, phrase)


def _words(author: Author) -> Mapping[str, str]:
    """Returns the author's words for names that they respell."""
    if author == "maskclip":
        lists = class_list_names()
        return {name: word for each in lists for name, word in zip(class_list(each), class_list(each, asked=True))}
    return _CLIPSEG if author == "clipseg" else {}
