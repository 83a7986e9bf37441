# SPDX-License-Identifier: Apache-2.0
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write under a hidden name, and gives it its name when all is written; a failure leaves nothing.

    Args:
        path: The file, whose folder is made if necessary. What bore its name is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a file, text in UTF-8; see ``new_file``."""
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
