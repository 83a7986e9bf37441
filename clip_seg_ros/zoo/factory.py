# SPDX-License-Identifier: Apache-2.0
"""Finds the weights of a model by its name or path, and builds it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from clip_seg_ros import resources
from clip_seg_ros.config import AUTO, FOR_PHRASES
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.zoo.build import StoredModel, read_whole
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS, embedded_folder, embedded_models, embedded_name
from clip_seg_ros.zoo.public_weights import MAX_NAME, PUBLIC_WEIGHTS, SUFFIX, file_name, how_to_get, is_name


def first_there(names: Sequence[str], weights_dir: Path | None = None) -> str:
    """Returns the first of some models whose weights are there; the last one is not looked for."""
    *better, last = names
    for name in better:
        with suppress(WeightsError):
            return full_name(name, weights_dir)
    return last


def _chosen(name: str, weights_dir: Path | None) -> str:
    return first_there(FOR_PHRASES, weights_dir) if name == AUTO else name


def read_stored(name: str, weights_dir: Path | None = None) -> StoredModel:
    """Reads the weights of a model without building it; the arguments and errors are ``build_segmenter``'s."""
    name = _chosen(name, weights_dir)
    if known := embedded_name(name):
        return EMBEDDED_MODELS[known].read(embedded_folder(known, weights_dir))
    return read_whole(weight_file(name, weights_dir))


def build_segmenter(name: str, weights_dir: Path | None = None) -> PromptableSegmenter:
    """Builds a model on the CPU, with its weights, in evaluation mode.

    Args:
        name: One of ``EMBEDDED_MODELS``, also in short ("cris" for "cris-pocket"); the name of weights that
            `clip-seg weights` downloaded or converted; the path of a weight file of this package,
            ``FILE.safetensors``; or "auto", the first of ``FOR_PHRASES`` that is there.
        weights_dir: Folder of the weight files; by default the package's folder for embedded models, and
            ``resources.cache_dir()`` for others. It is ignored if ``name`` is a path.

    Raises:
        ValueError: There is no such model.
        WeightsError: Its weights do not exist yet, or cannot be used.
    """
    name = _chosen(name, weights_dir)
    name = embedded_name(name) or name
    model = read_stored(name, weights_dir).build(Path(name).stem if name.endswith(SUFFIX) else name)
    if name in EMBEDDED_MODELS:
        model.for_real_pictures = EMBEDDED_MODELS[name].for_real_pictures
    return model


def full_name(name: str, weights_dir: Path | None = None, allow_paths: bool = True) -> str:
    """Returns the full name of a model: "cris-pocket" for "cris".

    It opens no file. It raises the errors of ``build_segmenter`` for names and files that do not exist.

    Args:
        name: The name or path, as in ``build_segmenter``.
        weights_dir: The folder of the weight files, as in ``build_segmenter``.
        allow_paths: Whether the name may be the path of any file. Otherwise the file must be in one of the folders of
            weights, and the returned path is absolute; nothing is revealed about files elsewhere.
    """
    name = _chosen(name, weights_dir)
    if known := embedded_name(name):
        embedded_folder(known, weights_dir)
        return known
    if name.endswith(SUFFIX) and not allow_paths:
        return str(file_in_folders(name, weights_dir))
    if not (path := weight_file(name, weights_dir)).is_file():
        raise WeightsError(f"there is no file {path}")
    return name


def weight_file(name: str, weights_dir: Path | None = None) -> Path:
    """Returns the weight file of a model that is not embedded; the arguments and errors are ``build_segmenter``'s."""
    if name.endswith(SUFFIX):
        try:
            return Path(name).expanduser()
        except RuntimeError as error:  # "~somebody", whom the system does not know
            raise ValueError(f'the path "{name}" of a weight file means no folder: {error}') from error
    if is_name(name):
        path = (weights_dir or resources.cache_dir()) / file_name(name)
        if path.is_file():
            return path
        advice = how_to_get(name)
        if advice is not None:
            raise WeightsError(f'the weights "{name}" are not in {path.parent} yet: {advice}')
    raise ValueError(f"{_no_model(name)}, or the path of a .safetensors file")


def file_in_folders(name: str, weights_dir: Path | None = None) -> Path:
    """Returns the absolute path of a weight file in one of the folders of weights.

    These are ``weights_dir``, the folder of the embedded weights and the cache. The file itself may be a link, because
    those who name it cannot change its folder; but its path must not lead out of the folder.

    Args:
        name: The path of the file, or only its name.
        weights_dir: The folder of the weight files, as in ``build_segmenter``.

    Raises:
        ValueError: There is no such file in these folders; nothing is revealed about other folders.
    """
    folders = [weights_dir, resources.cache_dir()]
    with suppress(FileNotFoundError):
        folders.append(resources.weights_dir())
    try:
        path = Path(name).expanduser()
        for folder in (folder.resolve() for folder in folders if folder is not None):
            # Only the folder's own list of files is read, so that nothing outside is accessed or revealed.
            found = next((item for item in folder.glob(f"*{SUFFIX}") if item.name == path.name), None)
            if found is not None and found.is_file() and (path.parent == Path() or _same_folder(path.parent, folder)):
                return found
    except (OSError, RuntimeError, ValueError):  # a path that is none
        pass
    raise ValueError(
        f"{_no_model(name)}, or a .safetensors file in the folders of weights; files elsewhere need "
        "allow_model_paths:=true when the node starts"
    )


def _same_folder(named: Path, folder: Path) -> bool:
    return ".." not in named.parts and named.is_absolute() and named.resolve() == folder


def _no_model(name: str) -> str:
    shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    known = ", ".join((*embedded_models(), *PUBLIC_WEIGHTS))
    return f'there is no model "{shown}": use {known}, the name of weights that you converted (`clip-seg weights list`)'
