# SPDX-License-Identifier: Apache-2.0
"""Small CLIPs of random weights in the files in which OpenAI and open_clip publish theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

# This import comes before timm, because it makes a torchvision that does not fit torch importable.
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig, build_clip

from timm.models import VisionTransformer  # isort: skip

# CLIP's own vocabulary, so that any phrase can be asked for; heads are as wide as OpenAI's.
TEXT = TextConfig(77, 49408, 64, 1, 1)
RESNET = ClipConfig(24, VisionConfig((1, 1, 1, 1), 8, 64), TEXT, quick_gelu=True)
VIT = ClipConfig(24, VisionConfig(4, 64, 64, 16), TEXT, quick_gelu=True)
BOOKKEEPING = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}


def plain_tensors(config: ClipConfig) -> dict[str, torch.Tensor]:
    """Returns the tensors under OpenAI's names, which are open_clip's."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        clip = build_clip(config)
    for name, parameter in clip.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip starts residual branches at zero
            nn.init.constant_(parameter, 0.5)
    return {name: value.detach() for name, value in clip.state_dict().items()}


def write_state(path: Path, config: ClipConfig) -> Path:
    """Writes a pickle of tensors."""
    torch.save(plain_tensors(config), path)
    return path


def write_archive(path: Path, config: ClipConfig) -> Path:
    """Writes OpenAI's kind of file: a TorchScript archive in half precision, with three numbers beside the weights."""
    root = nn.Module()
    for name, value in plain_tensors(config).items():
        *parents, last = name.split(".")
        owner = root
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = getattr(owner, parent)
        half = value.half() if value.is_floating_point() and value.ndim > 1 else value
        owner.register_buffer(last, half)
    for name, number in BOOKKEEPING.items():
        root.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(root), str(path))
    return path


def write_imagenet_vit(path: Path, image_px: int, blocks: int) -> Path:
    """Writes a small ViT with classes, as timm publishes them."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = VisionTransformer(image_px, 16, num_classes=3, embed_dim=64, depth=blocks, num_heads=1)
    torch.save(model.state_dict(), path)
    return path
