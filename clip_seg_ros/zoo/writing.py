# SPDX-License-Identifier: Apache-2.0
"""Writes converted weights where ``zoo.factory`` finds them, and checks that they can be loaded."""

from __future__ import annotations

import errno
from pathlib import Path

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, save_safetensors, update_sum
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.zoo.build import build_from_file


def store(converted: Converted, path: Path, half: bool = False, name: str | None = None) -> PromptableSegmenter:
    """Writes a converted model with its checksum, and loads it back.

    Args:
        converted: The model.
        path: Path of the file; its folder is created if necessary.
        half: Whether to store matrices and kernels as float16, at half the size.
        name: Name of the model; by default that of the file.

    Returns:
        The model as it was loaded again, on the CPU.

    Raises:
        WeightsError: The file cannot be written, numbers cannot be stored, or the model does not load.
    """
    try:
        save_safetensors(path, converted.tensors, converted.config, half=half)
        update_sum(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written ({error.strerror or error}): {_remedy(error)}") from error
    except ValueError as error:
        raise WeightsError(f"{path} was not written: {error}") from error
    return build_from_file(path, name)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room, or name a folder on another disk with CLIP_SEG_CACHE_DIR or --out"
    return "name a folder that you may write to with CLIP_SEG_CACHE_DIR or --out"
