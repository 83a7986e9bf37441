# SPDX-License-Identifier: Apache-2.0
"""The names and the files of the embedded models, for programs that list models and import no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

EMBEDDED_FILES: dict[str, tuple[str, ...]] = {
    "clipseg-pocket": ("clip_pocket.safetensors", "clipseg_pocket.safetensors"),
    "maskclip-pocket": ("clip_pocket.safetensors",),
    "denseclip-pocket": ("denseclip_pocket.safetensors",),
    "denseclip-instances-pocket": ("denseclip_instances_pocket.safetensors",),
    "cris-pocket": ("cris_pocket.safetensors",),
    "maskclip-vit-pocket": ("clip_vit_pocket.safetensors",),
    "maskclip-plus-pocket": ("maskclip_plus_pocket.safetensors",),
    "maskclip-plus-zero-shot-pocket": ("maskclip_plus_zero_shot_pocket.safetensors",),
}
"""All models of the simulated world, with their files in the folder of weights; not all come with the package."""


def missing_files(files: Iterable[str], folder: Path) -> list[str]:
    """Returns those files that are missing in a folder."""
    return [file for file in files if not (folder / file).is_file()]
