# SPDX-License-Identifier: Apache-2.0
"""``clip-seg weights``: lists, downloads, converts and verifies published weights."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, is_weight_file
from clip_seg_ros.models.conversion.reading import published_config, read_tensors
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.tools import weights_classes
from clip_seg_ros.zoo.build import build_from_config, build_from_file
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS, embedded_folder, embedded_models, embedded_name
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.formats import convert, recognise
from clip_seg_ros.zoo.public_weights import (
    MAX_NAME,
    PUBLIC_WEIGHTS,
    SAFE_NAME,
    PublicWeights,
    download_command,
    fetched_by_hand,
    file_name,
    how_to_get,
    is_name,
)
from clip_seg_ros.zoo.writing import store

_WIDTH = 100
"""The largest number of characters per line, so that listings fit a screen."""
_PROVEN = "whole: its SHA-256 is the one in SHA256SUMS, and it loads"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``weights`` subcommand and its own subcommands."""
    parser = subparsers.add_parser(
        "weights",
        help="list, download, convert and verify published weights",
        description="Published weights are kept converted, one file a model, in "
        f"{resources.cache_dir()} (CLIP_SEG_CACHE_DIR names another folder).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    list_ = actions.add_parser("list", help="what there is, and what is here")
    list_.add_argument("--licences", action="store_true", help="where they come from, and on which terms")
    download = actions.add_parser("download", help="fetch published weights and convert them")
    download.add_argument("what", metavar="NAME", help="a name of the list, or open_clip:ARCHITECTURE/TAG")
    download.add_argument("--name", help="name to keep them under (default: NAME)")
    download.add_argument("--again", action="store_true", help="even if they are here already")
    convert_ = actions.add_parser("convert", help="convert a published file that you have")
    convert_.add_argument("file", type=Path, metavar="FILE", help=".pth, .pt, .bin or .safetensors, or a hub folder")
    where = convert_.add_mutually_exclusive_group(required=True)
    where.add_argument("--name", help="keep it in the cache folder under this name")
    where.add_argument("--out", type=Path, metavar="FILE", help="write this .safetensors file")
    for action in (download, convert_):
        action.add_argument("--half", action="store_true", help="store float16: half the size, rounded")
    verify = actions.add_parser("verify", help="prove that a file, or weights by name, are whole and load")
    verify.add_argument(
        "file", metavar="FILE|NAME", help="a file of this package or a published one, or a name of the list"
    )
    weights_classes.add_parser(actions)
    for action in (convert_, verify):
        _add_file_options(action)
    for action in (download, convert_, verify):
        action.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="set what the file does not record, e.g. variant=naclip; a wrong KEY lists all",
        )
    parser.set_defaults(run=run)


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="the CLIP that goes with a file which holds none, OpenAI's or open_clip's",
    )
    parser.add_argument("--dino", type=Path, metavar="FILE", help="Talk2DINO: the DINOv2 that goes with its projection")
    parser.add_argument(
        "--classes",
        metavar="LIST|FILE",
        help=f"names of the classes: {', '.join(class_list_names())}, or a text file with one a line",
    )
    parser.add_argument("--word-length", type=int, metavar="N", help="CRIS: words read of a phrase (17; 22 for G-Ref)")
    parser.add_argument(
        "--text-embeddings", type=Path, metavar="FILE", help="MaskCLIP's own: embeddings of the classes"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the action; returns the exit code: 1 if it failed, 2 for wrong arguments, 130 if interrupted."""
    actions = {
        "list": _list,
        "download": _download,
        "convert": _convert,
        "verify": _verify,
        "classes": weights_classes.change_classes,
    }
    try:
        actions[args.action](args)
    except WeightsError as error:
        print(f"clip-seg weights: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"clip-seg weights: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nclip-seg weights: interrupted; nothing was written. Type the command again.", file=sys.stderr)
        return 130
    return 0


def _list(args: argparse.Namespace) -> None:
    if args.licences:
        for name, entry in PUBLIC_WEIGHTS.items():
            _print_terms(name, entry)
        return
    folder = resources.cache_dir()
    print("These come with the package. They know one simulated table, and no real pictures:")
    for name in embedded_models():
        _print_row(name, name.partition("-")[0], "", "")
    print("\nThese were published for real pictures:")
    for name, entry in PUBLIC_WEIGHTS.items():
        here = (folder / file_name(name)).is_file()
        state = "here" if here else "by hand" if entry.by_hand else "download"
        _print_row(name, entry.kind, f"{entry.megabytes} MB", f"{state:<9} {entry.title}")
    known = {file_name(name) for name in PUBLIC_WEIGHTS}
    own = [path for path in sorted(folder.glob("*.safetensors")) if path.name not in known]
    if own:
        print("\nThese were converted by you, or downloaded under names of your own:")
    for path in own:
        _print_row(path.stem, "", f"{path.stat().st_size // 10**6} MB", "here")
    print(
        "\ndownload   clip-seg weights download NAME\n"
        "by hand    clip-seg weights download NAME says how\n"
        f"here       in {folder}\n"
        "Their pages and licences: clip-seg weights list --licences\n"
        "Any CLIP that open_clip lists on the hub: clip-seg weights download open_clip:ARCHITECTURE/TAG"
    )


def _print_row(name: str, kind: str, size: str, text: str) -> None:
    print(f"  {name:<25} {kind:<10} {size:>8}  {text}".rstrip())


def _print_terms(name: str, entry: PublicWeights) -> None:
    how = entry.by_hand.replace("{name}", name) if entry.by_hand else f"`{download_command(name)}`"
    print(name)
    for what, text in (("page", entry.page), ("licence", entry.licence), ("get", how)):
        print(
            textwrap.fill(
                text,
                _WIDTH,
                initial_indent=f"  {what:<8} ",
                subsequent_indent=" " * 11,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def _download(args: argparse.Namespace) -> None:
    # The import is not at the top, because nothing else needs the libraries for downloads.
    from clip_seg_ros.zoo.download import check_options, fetch, find, load

    name = args.what if args.name is None else _own_name(args.name)
    path = resources.cache_dir() / file_name(name)
    if embedded_name(args.what):
        raise ValueError(f'"{args.what}" comes with the package: there is nothing to download')
    found, options = find(args.what), _parse_options(args.option)
    check_options(args.what, found, options)
    if path.is_file() and not args.again:
        try:
            _report(build_from_file(path, name), path, "is here already")
            return
        except WeightsError as error:
            print(f"what is here cannot be used and is fetched again: {error}")
    print(f"{args.what}: {found.hub.repository} of {found.page}\nlicence: {found.licence}", flush=True)
    model = store(load(found, fetch(found.hub), options), path, args.half, name)
    _report(model, path, "was downloaded, its checksum compared with the hub's, converted and loaded")


def _convert(args: argparse.Namespace) -> None:
    if args.out is not None:
        path = args.out
        if path.suffix != ".safetensors":
            raise ValueError(f"--out must end with .safetensors, got {path}")
        name = None
        if path.exists() and path.samefile(args.file):
            raise ValueError(f"--out would overwrite {args.file} itself")
    else:
        name = _own_name(args.name)
        path = resources.cache_dir() / file_name(name)
    if is_weight_file(args.file):
        raise ValueError(
            f"{args.file} is converted already: use it as it is, or look at it with `clip-seg weights verify`"
        )
    tensors = read_tensors(args.file)
    options = _with_config(_file_options(args), args.file, tensors)
    model = store(convert(tensors, args.file.name, options), path, args.half, name)
    _report(model, path, f"was converted from {args.file} and loaded")


def _verify(args: argparse.Namespace) -> None:
    path = Path(args.file).expanduser()
    if not path.exists() and (embedded := embedded_name(args.file)):
        _verify_embedded(embedded)
        return
    if not path.exists() and is_name(args.file):
        path = resources.cache_dir() / file_name(args.file)
        if not path.is_file():
            raise WeightsError(_not_here(args.file, path.parent))
    if is_weight_file(path):
        _report(build_from_file(path), path, f"is {_PROVEN}")
        return
    tensors = read_tensors(path)
    options = _with_config(_file_options(args), path, tensors)
    title = recognise(tensors, path.name).title
    converted = convert(tensors, path.name, options)
    model = build_from_config(path.stem, converted.config, converted.tensors, path.name)
    print(f"{path} is a whole {title}: {_describe(model)}\nto use it: clip-seg weights convert {path} --name NAME")


def _verify_embedded(name: str) -> None:
    folder = embedded_folder(name)
    model = build_segmenter(name)
    files = EMBEDDED_MODELS[name].files
    print(f"{name} comes with the package; it is {_PROVEN}")
    print(f"  {_describe(model)}")
    for file in files:
        print(f"  {folder / file}, {(folder / file).stat().st_size / 1e6:.0f} MB")
    print(f"It knows the simulated table alone. For real pictures: `{download_command(model.for_real_pictures)}`")


def _not_here(name: str, folder: Path) -> str:
    """Returns a message about weights to verify that are not in ``folder``, with advice."""
    if by_hand := fetched_by_hand(name):
        return f"the weights {name} are not in {folder}. {by_hand}"
    advice = how_to_get(name) or "`clip-seg weights list` says what there is"
    return f"there is no file {name}, and there are no weights of that name in {folder}: {advice}"


def _own_name(name: str) -> str:
    if not is_name(name) or ":" in name:
        raise ValueError(
            f'weights cannot be called "{name[:MAX_NAME]}": use at most {MAX_NAME} letters, digits, dots, dashes and '
            f"underscores ({SAFE_NAME})"
        )
    if embedded_name(name):
        raise ValueError(f'"{name}" is the name of weights that come with the package: use another')
    return name


def _parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Parses KEY=VALUE pairs, where VALUE is JSON or otherwise a plain string."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--option wants KEY=VALUE, got {pair}")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def _file_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of the converter from the command line."""
    options = _parse_options(args.option)
    if args.clip is not None:
        options["clip"] = read_tensors(args.clip)
    if args.dino is not None:
        options["dino"] = read_tensors(args.dino)
    if args.classes is not None:
        options["class_names"] = _class_names(args.classes)
    if args.word_length is not None:
        if args.word_length < 3:
            raise ValueError(f"--word-length must be at least 3, two of them for start and end, got {args.word_length}")
        options["word_length"] = args.word_length
    if args.text_embeddings is not None:
        tensors = read_tensors(args.text_embeddings)
        if len(tensors) != 1:
            raise ValueError(
                f"--text-embeddings wants a file of one tensor, and {args.text_embeddings} has {len(tensors)}"
            )
        options["text_embeddings"] = next(iter(tensors.values()))
    return options


def _with_config(options: dict[str, Any], path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Adds the configuration beside a published file to the options, if its layout needs it."""
    if "config" in recognise(tensors, path.name).options and (config := published_config(path)) is not None:
        return {**options, "config": config}
    return options


def _class_names(text: str) -> tuple[str, ...]:
    if text in class_list_names():
        return class_list(text)
    try:
        lines = Path(text).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--classes {text} is none of {', '.join(class_list_names())}, and no text file that can be read ({error})"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def _describe(model: PromptableSegmenter) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    prompts = "any phrase" if model.class_names is None else f"{len(model.class_names)} classes"
    return f"{type(model).__name__}, {parameters / 1e6:.1f} million parameters, {prompts}"


def _report(model: PromptableSegmenter, path: Path, happened: str) -> None:
    print(f"{model.name} {happened}")
    print(f"  {_describe(model)}\n  {path}, {path.stat().st_size / 1e6:.0f} MB")
    name = model.name if path == resources.cache_dir() / file_name(model.name) else path
    print(f'to use it: Predictor.from_name("{name}"), or ros2 launch clip_seg_ros seg.launch.py model:={name}')
