# SPDX-License-Identifier: Apache-2.0
"""Finds files: the configuration, messages and embedded weights of the package, and downloaded or converted weights.

Lists of class names are read here, too: ``config/class_lists/NAME.txt``, with one name in each line, in the order of
the data set. A name that is no English has words for it behind it: "wall-brick = brick wall".

The package runs from a clone, from a colcon workspace and from a pip installation, which have
these files in different places.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "clip_seg_ros"
WEIGHTS_VARIABLE = "CLIP_SEG_WEIGHTS_DIR"
CACHE_VARIABLE = "CLIP_SEG_CACHE_DIR"


def share_dir() -> Path:
    """Returns the folder that contains ``config/``, ``msg/`` and ``weights/``.

    A clone has precedence over a sourced ROS 2 workspace, and that over a pip installation.

    Raises:
        FileNotFoundError: There is none of them; the message says where they were searched and what to do.
    """
    candidates = _candidates(Path(__file__))
    for candidate in candidates:
        if (candidate / "package.xml").is_file():
            return candidate
    looked = "\n  ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"the files that come with {PACKAGE} were not found. Source the workspace's setup.bash, or install the package "
        f"with pip. Looked for package.xml in:\n  {looked}"
    )


def config_dir() -> Path:
    """Returns the folder of configuration files, ``config/``. Raises FileNotFoundError if it is missing."""
    return _existing(share_dir() / "config", "the installation is not complete; build or install it again")


def message_dir() -> Path:
    """Returns the folder of the definitions of messages, ``msg/``. Raises FileNotFoundError if it is missing."""
    return _existing(share_dir() / "msg", "the installation is not complete; build or install it again")


def weights_dir() -> Path:
    """Returns the folder of weight files: the one that ``CLIP_SEG_WEIGHTS_DIR`` names, else the embedded ``weights/``.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        return _existing(Path(named).expanduser(), f"{WEIGHTS_VARIABLE} names it; correct or unset that variable")
    return _existing(share_dir() / "weights", "the installation is not complete; build or install it again")


def cache_dir() -> Path:
    """Returns the folder of downloaded and converted weights, which may not exist yet.

    It is the one that ``CLIP_SEG_CACHE_DIR`` names, else ``clip_seg_ros/weights`` in the user's cache.
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_dir() / "weights"


def user_cache_dir() -> Path:
    """Returns the package's folder in the user's cache, which may not exist; the set-up scripts use it, too."""
    # The XDG standard says to ignore relative paths.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / PACKAGE


def class_list_names() -> tuple[str, ...]:
    """Returns the names of all class lists."""
    return tuple(sorted(path.stem for path in (config_dir() / "class_lists").glob("*.txt")))


def class_list(name: str, asked: bool = False) -> tuple[str, ...]:
    """Returns the classes of the list ``name``.

    Args:
        name: One of ``class_list_names``.
        asked: Whether to return the words by which MaskCLIP's authors ask for them, and not the data set's names.

    Raises:
        ValueError: There is no such list; the message names all lists.
    """
    if name not in class_list_names():
        raise ValueError(f'there is no class list "{name}": use {", ".join(class_list_names())}')
    text = (config_dir() / "class_lists" / f"{name}.txt").read_text(encoding="utf-8")
    pairs = [line.partition(" = ") for line in text.splitlines() if line.strip()]
    return tuple((words if asked and words else own).strip() for own, _, words in pairs)


def _candidates(module_file: Path) -> list[Path]:
    """Lists the folders in which the files may be, best first, for a package whose module is at ``module_file``.

    Links are not followed: a colcon workspace may hold links to the clone, and has its own share folder.
    """
    module_file = module_file.absolute()
    share = Path("share", PACKAGE)
    prefixes = [Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    # pip: <prefix>/lib/python3.x/site-packages/clip_seg_ros/resources.py, where the prefix may be a user's own.
    prefixes += [parent.parent for parent in module_file.parents if parent.name == "lib"]
    prefixes.append(Path(sys.prefix))
    candidates = [module_file.parent.parent, *(prefix / share for prefix in prefixes)]
    return list(dict.fromkeys(candidates))


def _existing(folder: Path, advice: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: {advice}")
    return folder
