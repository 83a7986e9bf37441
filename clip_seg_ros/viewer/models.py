# SPDX-License-Identifier: Apache-2.0
"""Lists the models that the command "use NAME" takes, without PyTorch: what `clip-seg weights list` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clip_seg_ros import resources
from clip_seg_ros.viewer.views import ModelChoice
from clip_seg_ros.zoo.embedded_files import EMBEDDED_FILES, missing_files
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS, SUFFIX, file_name

_EMBEDDED_LICENCE = "Apache-2.0; it knows one simulated table, and no real pictures"
_OWN_LICENCE = "as whoever published it says"


def model_choices(weights_dir: Path | None = None) -> tuple[ModelChoice, ...]:
    """Returns the embedded models that came with the package, all published ones, and those that were converted here.

    Args:
        weights_dir: Folder of all weight files; by default the package's own and ``resources.cache_dir()``.

    Raises:
        FileNotFoundError: There is no folder of embedded weights.
    """
    embedded = weights_dir or resources.weights_dir()
    return (*_embedded(embedded), *_published(weights_dir or resources.cache_dir(), embedded))


def _embedded(folder: Path) -> Iterator[ModelChoice]:
    for name, files in EMBEDDED_FILES.items():
        if not missing_files(files, folder):
            yield ModelChoice(name, _EMBEDDED_LICENCE, sum(_megabytes(folder / file) for file in files), True)


def _published(folder: Path, embedded: Path) -> Iterator[ModelChoice]:
    for name, entry in PUBLIC_WEIGHTS.items():
        is_here = (folder / file_name(name)).is_file()
        yield ModelChoice(name, entry.licence, entry.megabytes, is_here, entry.page)
    known = {file_name(name) for name in PUBLIC_WEIGHTS}
    if folder != embedded:  # beside the embedded ones lie files that are only parts of models
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.name not in known:
                yield ModelChoice(path.stem, _OWN_LICENCE, _megabytes(path), True)


def _megabytes(path: Path) -> int:
    return max(1, round(path.stat().st_size / 10**6))
