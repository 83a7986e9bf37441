# SPDX-License-Identifier: Apache-2.0
"""``clip-seg cache``: shows what the package keeps in the user's cache, and removes it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_seg_ros import resources


@dataclass(frozen=True)
class _Part:
    """One kind of data in the cache."""

    what: str
    again: str
    """How to restore it."""
    paths: tuple[Path, ...]


def add_parser(subparsers: Any) -> None:
    """Adds ``cache`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "cache",
        help="show what the package keeps on the disk, and remove it",
        description=f"Shows what the package keeps in {resources.user_cache_dir()} and how large that is. Nothing else "
        "on this machine belongs to it but the clone, and what pip or colcon installed.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--clear",
        nargs="*",
        choices=[*_FINDERS, "all"],
        metavar="WHAT",
        help=f'remove some of it: {", ".join(_FINDERS)}; without a name, or with "all", everything',
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")


def run(args: argparse.Namespace) -> int:
    """Shows or removes the cache; returns 0, or 1 if something cannot be removed or the user declines."""
    if args.yes and args.clear is None:
        print("clip-seg cache: --yes goes with --clear", file=sys.stderr)
        return 2
    parts = [_Part(what, again, tuple(find())) for what, (find, again) in _FINDERS.items()]
    sizes = {part.what: sum(map(_size, part.paths)) for part in parts}
    for part in parts:
        print(f"{part.what:<13} {_shown(sizes[part.what]):>9}  {part.again}")
        for path in part.paths:
            print(f"{'':<24} {path}")
    print(f"{'all':<13} {_shown(sum(sizes.values())):>9}")
    if args.clear is None:
        print("\nTo remove it: clip-seg cache --clear [WHAT]\n" + _elsewhere())
        return 0
    wanted = list(_FINDERS) if not args.clear or "all" in args.clear else args.clear
    doomed = [path for part in parts if part.what in wanted for path in part.paths]
    if not doomed:
        print("There is nothing to remove.")
        return 0
    if not args.yes and not _agreed(wanted, sum(sizes[what] for what in wanted)):
        print("Nothing was removed.")
        return 1
    return _remove(doomed)


def _environments() -> Iterator[Path]:
    yield from sorted(resources.user_cache_dir().glob("venv-*"))


def _workspaces() -> Iterator[Path]:
    yield from sorted(path for path in resources.user_cache_dir().glob("ws-*") if path.is_dir())


def _weights() -> Iterator[Path]:
    # They are found by name, because the user may keep other files in the folder.
    folder = resources.cache_dir()
    yield from sorted(folder.glob("*.safetensors"))
    if (folder / "SHA256SUMS").is_file():
        yield folder / "SHA256SUMS"


def _engines() -> Iterator[Path]:
    folder = resources.user_cache_dir() / "engines"
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _verdicts() -> Iterator[Path]:
    folder = resources.user_cache_dir() / "verdicts"
    if folder.is_dir():
        yield folder


_FINDERS = {
    "environments": (_environments, "Python and ROS 2; `make env` installs them again"),
    "workspaces": (_workspaces, "the built package; `make env` builds it again"),
    "weights": (_weights, "downloaded or converted; `clip-seg weights download NAME` fetches them again"),
    "engines": (
        _engines,
        "models for OpenVINO and ONNX Runtime; a node converts, `clip-seg export` exports them again",
    ),
    "verdicts": (_verdicts, "what was measured of engines; the next start measures it again"),
}


def _elsewhere() -> str:
    hub = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return f"The files as they were published are kept by huggingface_hub in {hub}; it is not this package's to remove."


def _size(path: Path) -> int:
    """Returns the size of a file, or of a folder with its contents, in bytes; links do not count."""
    if path.is_symlink():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # removed meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _agreed(wanted: list[str], size: int) -> bool:
    try:
        return input(f"Remove {', '.join(wanted)} ({_shown(size)})? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def _remove(paths: list[Path]) -> int:
    failed = 0
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            print(f"clip-seg cache: {path} cannot be removed: {error.strerror or error}", file=sys.stderr)
            failed = 1
    print("Some of it is left." if failed else "Removed.")
    return failed
