# SPDX-License-Identifier: Apache-2.0
"""``clip-seg weights classes``: writes a distilled network with another list of classes, which words make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.zoo.classes import with_classes
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.writing import store


def add_parser(actions: argparse._SubParsersAction) -> None:
    """Adds the action."""
    parser = actions.add_parser(
        "classes",
        help="add, rename and remove classes of a distilled network by words",
        description="For networks that `clip-seg distill --classifier text` trained: their classifier is the text "
        "embeddings of the classes, and the text tower that made these makes others.",
    )
    parser.add_argument("file", metavar="FILE|NAME", help="the network")
    parser.add_argument("--add", nargs="+", default=[], metavar="WORDS", help="further classes")
    parser.add_argument("--rename", nargs="+", default=[], metavar="OLD=WORDS", help="other words for a class")
    parser.add_argument("--remove", nargs="+", default=[], metavar="CLASS", help="classes to leave out")
    parser.add_argument("--text-tower", metavar="NAME|FILE", help="its weights (default: those that FILE names)")
    parser.add_argument("--half", action="store_true", help="store float16: half the size, rounded")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")


def change_classes(args: argparse.Namespace) -> None:
    """Runs the action. Raises ValueError on wrong arguments, and WeightsError on weights that cannot be used."""
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out must end with .safetensors, got {args.out}")
    model = build_segmenter(args.file)
    names = _changed(model.class_names or (), args.add, args.rename, args.remove)
    changed = with_classes(model, names, args.text_tower)
    store(Converted(changed.file_config(), changed.state_dict()), args.out, args.half)
    print(f"{args.out} has the classes {', '.join(names)}")


def _changed(
    names: Sequence[str], added: Sequence[str], renamed: Sequence[str], removed: Sequence[str]
) -> tuple[str, ...]:
    """Returns the new list of classes. Raises ValueError if a change fits no class."""
    if not (added or renamed or removed):
        raise ValueError("nothing is to change: use --add, --rename or --remove")
    pairs = dict(pair.partition("=")[::2] for pair in renamed)
    if wrong := [old for old, words in pairs.items() if not words.strip()]:
        raise ValueError(f"--rename wants OLD=WORDS, got {', '.join(wrong)}")
    if strange := [name for name in (*pairs, *removed) if name not in names]:
        raise ValueError(f"there is no class {', '.join(strange)}; the classes are {', '.join(names)}")
    kept = (pairs.get(name, name) for name in names if name not in removed)
    return (*kept, *added)
