# SPDX-License-Identifier: Apache-2.0
"""A teacher so small that it labels images at once, and images for it."""

from pathlib import Path

import cv2
import numpy as np
import torch

from clip_seg_ros.models.checkpoints import save_safetensors, update_sum
from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input

CLASSES = ("cup", "book", "background")
SMALL = "timm:mobilenetv3_small_050"


def save_teacher(path, never=None, sureness=5):
    """Writes a model that says something, if nothing sensible, and returns the path."""
    torch.manual_seed(0)
    model = Student(path.stem, StudentConfig(SMALL, CLASSES, imagenet_input(64))).eval()
    last = model.network.head.conv_seg
    with torch.inference_mode():
        logits = model.encode_image(torch.randn(1, 3, 64, 64)).logits
        last.weight.mul_(sureness / logits.std())
        last.bias.sub_(logits.mean(dim=(0, 2, 3)) * sureness / logits.std())
        if never is not None:
            last.bias[never] = -1e4
    save_safetensors(path, model.state_dict(), model.file_config(), half=False)
    update_sum(path)
    return path


def write_pictures(folder: Path, count: int) -> Path:
    """Writes smooth coloured images of 88x64, "0.png" and so on, and returns the folder."""
    folder.mkdir()
    for index in range(count):
        small = np.random.default_rng(index).integers(0, 255, (3, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (88, 64), interpolation=cv2.INTER_CUBIC))
    return folder
