# SPDX-License-Identifier: Apache-2.0
"""Opens data sets by a mapping, such as ``{kind: ade20k, root: /data/ade, split: validation}`` in a YAML file."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from clip_seg_ros.data.ade20k import Ade20k
from clip_seg_ros.data.annotated import open_annotated
from clip_seg_ros.data.class_splits import SplitClasses, chosen_classes
from clip_seg_ros.data.coco import CocoInstances, open_coco
from clip_seg_ros.data.coco20i import Coco20i
from clip_seg_ros.data.coco_stuff import CocoStuff10k, CocoStuff164k
from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.labelled_things import LabelledThings
from clip_seg_ros.data.lvis_affordances import LvisAffordances
from clip_seg_ros.data.pascal5i import Pascal5i
from clip_seg_ros.data.pascal_context import PascalContext
from clip_seg_ros.data.phrasecut import PhraseCut
from clip_seg_ros.data.refcoco import RefCOCO
from clip_seg_ros.data.samples import DataError, InstanceDataset, ReferringDataset, SemanticDataset
from clip_seg_ros.data.suggestions import did_you_mean
from clip_seg_ros.data.voc import Voc2012

BUILDERS: dict[str, Callable[..., ReferringDataset | SemanticDataset | InstanceDataset]] = {
    "ade20k": Ade20k,
    "annotated": open_annotated,
    "coco": open_coco,
    "coco20i": Coco20i,
    "coco_stuff_10k": CocoStuff10k,
    "coco_stuff_164k": CocoStuff164k,
    "folder": PhraseFolder,
    "labelled_folder": LabelledFolder,
    "lvis_affordances": LvisAffordances,
    "pascal5i": Pascal5i,
    "pascal_context": PascalContext,
    "phrasecut": PhraseCut,
    "refcoco": RefCOCO,
    "voc": Voc2012,
}
"""The kinds of data sets. The options of a kind are the arguments of its class or function."""
OBJECTS = (CocoInstances, LabelledThings)
"""The data sets of objects, which have classes, but none for every pixel."""
SPLITTING = ("hide", "drop", "unseen")
"""The options of every kind that gives a class for every pixel; see ``class_splits.SplitClasses``. Each is the name of
a published split, or names of classes."""
THINGS = "things"
"""One more of these options: the names of the classes whose regions are objects; see ``labelled_things``."""
_UNIONS = (types.UnionType, typing.Union)
"""The types of ``X | None``, in annotations and after ``get_type_hints``."""
_WORDS = {
    Path: "a path",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    type(None): "null",
    tuple[str, ...]: "a list of texts, as [a,b,c]",
    tuple[int, ...]: "a list of whole numbers, as [0,11]",
    dict[int, str]: "a mapping of numbers to texts",
}


def open_dataset(values: Mapping[str, Any]) -> ReferringDataset | SemanticDataset | InstanceDataset:
    """Opens the data set that ``values`` describes: its ``kind``, and the options of that kind.

    Folders and files are text; "~" stands for the home folder.

    Raises:
        DataError: The kind or an option is unknown or missing, or a value has the wrong type.
        ValueError: The data set refuses its options; it is a DataError if files are missing or wrong.
    """
    if not isinstance(values, Mapping) or "kind" not in values:
        raise DataError(f"a data set needs a kind: {', '.join(BUILDERS)}")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in BUILDERS:
        hint = did_you_mean(kind, BUILDERS)
        raise DataError(f"there is no kind of data set {kind!r}; the kinds are {', '.join(BUILDERS)}{hint}")
    builder = BUILDERS[kind]
    splitting = {name: values[name] for name in SPLITTING if name in values}
    options = {name: value for name, value in values.items() if name not in ("kind", THINGS, *splitting)}
    known = inspect.signature(builder).parameters
    unknown = [str(name) for name in options if name not in known]
    missing = [name for name, option in known.items() if option.default is option.empty and name not in options]
    for fault, names in (("does not know", unknown), ("needs", missing)):
        if names:
            hint = did_you_mean(unknown[0], known) if unknown else ""
            raise DataError(f"the data set {kind} {fault} {', '.join(names)}; its options are {', '.join(known)}{hint}")
    hints = typing.get_type_hints(builder.__init__ if inspect.isclass(builder) else builder)
    dataset = builder(**{name: _converted(kind, name, value, hints[name]) for name, value in options.items()})
    for name in (*splitting, *({THINGS} & values.keys())):
        if not hasattr(dataset, "class_names") or isinstance(dataset, OBJECTS):
            raise DataError(f"{name} is for data sets with a class for every pixel, which {kind} is not here")
    if splitting:
        dataset = _split(kind, dataset, splitting)
    if THINGS in values:
        dataset = LabelledThings(dataset, _converted(kind, THINGS, values[THINGS], tuple[str, ...]))
    return dataset


def _split(kind: str, dataset: Any, splitting: Mapping[str, Any]) -> SplitClasses:
    """Hides, leaves out or names classes of a data set with a class for every pixel."""
    chosen = {
        name: chosen_classes(_converted(kind, name, value, tuple[str, ...] | str), dataset.class_names)
        for name, value in splitting.items()
    }
    return SplitClasses(dataset, **chosen)


def _converted(kind: str, name: str, value: Any, expected: Any) -> Any:
    """Converts ``value`` to the type of the option, for example a text to a Path. Raises DataError if it cannot."""
    members = typing.get_args(expected) if typing.get_origin(expected) in _UNIONS else (expected,)
    for member in members:
        if member is Path and isinstance(value, (str, Path)) and str(value):
            return Path(value).expanduser()
        if typing.get_origin(member) is Literal and value in typing.get_args(member):
            return value
        if _is_many(member, value):
            return typing.get_origin(member)(value)
        # The comparison is exact, because True is an int, too.
        if type(value) is member:
            return value
    words = " or ".join(_words(member) for member in members)
    raise DataError(f"{name} of the data set {kind} is {value!r}; it must be {words}")


def _is_many(expected: Any, value: Any) -> bool:
    """Returns whether ``value`` is a list or a mapping of the types in ``tuple[str, ...]``, ``dict[int, str]`` etc."""
    kind, types_of = typing.get_origin(expected), typing.get_args(expected)
    if kind is tuple:
        return isinstance(value, (list, tuple)) and all(type(item) is types_of[0] for item in value)
    if kind is dict:
        return isinstance(value, dict) and all((type(key), type(item)) == types_of for key, item in value.items())
    return False


def _words(expected: Any) -> str:
    """Says what a value of the type is."""
    return ", ".join(typing.get_args(expected)) if typing.get_origin(expected) is Literal else _WORDS[expected]
