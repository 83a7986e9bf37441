# SPDX-License-Identifier: Apache-2.0
"""Writes what a hub holds, but small."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from clip_seg_ros.models.clipseg.convert import as_hugging_face
from clip_seg_ros.tools.published_sizes import configuration
from clip_seg_ros.zoo.build import MODEL_KINDS


def write_narrow_clipseg(file: Path, name: str) -> Path:
    """Writes a narrow model, untrained, in the layout of the published CLIPSeg ``name``."""
    config = configuration(name)
    config["clip"]["vision"] = {**config["clip"]["vision"], "width": 64, "layers": 10}
    config["clip"]["text"] = {**config["clip"]["text"], "width": 64, "heads": 1, "layers": 1}
    config["clip"]["embed_dim"] = 64
    config["clipseg"] = {**config["clipseg"], "embed_dim": 64, "tap_widths": [64, 64, 64]}
    torch.manual_seed(0)
    save_file(as_hugging_face(MODEL_KINDS["clipseg"](name, config).state_dict()), file)
    return file
