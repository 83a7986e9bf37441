"""The class lists that ship with the package: ``config/class_lists/NAME.txt``, one name a line, in the data set's order."""

from __future__ import annotations

from clip_seg_ros import resources


def class_list_names() -> tuple[str, ...]:
    """Returns the names of the lists that there are."""
    return tuple(sorted(path.stem for path in (resources.config_dir() / "class_lists").glob("*.txt")))


def class_list(name: str) -> tuple[str, ...]:
    """Returns the classes of the list called ``name``.

    Raises:
        ValueError: There is no such list; the message names those that there are.
    """
    if name not in class_list_names():
        raise ValueError(f'there is no class list "{name}": use {", ".join(class_list_names())}')
    text = (resources.config_dir() / "class_lists" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
