# SPDX-License-Identifier: Apache-2.0
"""Small models with weights that make every part of them visible in the output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from clip_seg_ros.models.clip.backbone import CLIP, ClipConfig, TextConfig, VisionConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.spec import InputSpec
from nearness import assert_near

INPUT_SPEC = InputSpec(size=64, resize="short_side", multiple=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
KNOWN_WORDS = ("red", "blue", "cup", "bowl", "a", "photo", "of", "the", ".")
CONTEXT_LENGTH = 12


def randomize(module: nn.Module, seed: int) -> None:
    """Fills norms and biases too: fresh ones are zeros and ones, which hide mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        with torch.no_grad():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d | nn.LayerNorm):
            uniform(child.weight, 0.5, 1.5)
            uniform(child.bias, -0.3, 0.3)
        if isinstance(child, nn.BatchNorm2d):
            uniform(child.running_mean, -0.5, 0.5)
            uniform(child.running_var, 0.5, 2.0)
        if isinstance(child, nn.Linear) and child.bias is not None:
            uniform(child.bias, -0.3, 0.3)


def make_clip(vision: VisionConfig, vocab_size: int) -> CLIP:
    """Returns a tiny CLIP of embedding width 20 in evaluation mode."""
    text = TextConfig(context_length=CONTEXT_LENGTH, vocab_size=vocab_size, width=16, heads=2, layers=2)
    torch.manual_seed(3)
    clip = build_clip(ClipConfig(embed_dim=20, vision=vision, text=text))
    randomize(clip, seed=4)
    return clip.eval()


def make_vit(vocab_size: int = 30) -> CLIP:
    """Returns a CLIP with a ViT of 5 blocks, native input 32 x 32 and patches of 8."""
    vision = VisionConfig(layers=5, width=24, image_size=32, patch_size=8, head_width=12)
    return make_clip(vision, vocab_size)


def make_resnet(output_stride: int = 32, vocab_size: int = 30) -> CLIP:
    """Returns a CLIP with a ModifiedResNet of one or two blocks a stage and native input 64 x 64."""
    vision = VisionConfig(layers=(1, 2, 1, 1), width=8, image_size=64, head_width=32, output_stride=output_stride)
    return make_clip(vision, vocab_size)


def make_clipseg(tower: str) -> CLIPSeg:
    """Returns a CLIPSeg on a tiny "vit" or "resnet" tower, in evaluation mode."""
    tokenizer = CompactTokenizer(KNOWN_WORDS, CONTEXT_LENGTH)
    if tower == "vit":
        clip = make_vit(vocab_size=tokenizer.vocab_size)
        layers, widths, prefix_tokens = (0, 2, 3), (24, 24, 24), 1
    else:
        clip = make_resnet(output_stride=16, vocab_size=tokenizer.vocab_size)
        layers, widths, prefix_tokens = (2, 3, 4), (64, 128, 256), 0
    config = CLIPSegConfig(
        embed_dim=20,
        extract_layers=layers,
        tap_widths=widths,
        stride=8,
        prefix_tokens=prefix_tokens,
        input_spec=INPUT_SPEC,
        reduce_dim=8,
        n_heads=2,
        feed_forward=32,
    )
    torch.manual_seed(5)
    model = CLIPSeg(f"tiny-{tower}", clip, config, tokenizer)
    randomize(model.decoder, seed=6)
    return model.eval()


@pytest.fixture
def vit_clip() -> CLIP:
    return make_vit()


@pytest.fixture(params=[16, 32])
def resnet_clip(request: pytest.FixtureRequest) -> CLIP:
    """A ModifiedResNet CLIP of either output stride."""
    return make_resnet(request.param)


@pytest.fixture(params=["vit", "resnet"])
def clipseg(request: pytest.FixtureRequest) -> CLIPSeg:
    """A tiny CLIPSeg on either tower."""
    return make_clipseg(request.param)


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two random images, not square: (2, 3, 64, 96)."""
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(7))


class Golden:
    """What was recorded of one original implementation: inputs, weights and outputs (see test/data/golden)."""

    def __init__(self, folder: Path, name: str, relative: float) -> None:
        self.folder, self.name, self.relative = folder, name, relative
        self.config = json.loads((folder / "configs.json").read_text())
        # The folder that comes with the tests leaves some recordings out, by name.
        listing = folder / "left_out.json"
        self._listing = json.loads(listing.read_text()) if listing.is_file() else {}
        self.left_out = set(self._listing.get(name, ()))
        self._require_file(name)
        with np.load(folder / f"{name}.npz") as arrays:
            self.tensors = {key: torch.from_numpy(arrays[key]) for key in arrays}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def weights(self, name: str | None = None) -> dict[str, torch.Tensor]:
        """The recorded weights, under the original's names."""
        self._require_file(name or self.name)
        return load_file(self.folder / f"{name or self.name}.safetensors")

    def _require_file(self, name: str) -> None:
        if name in self._listing.get("files", ()):
            pytest.skip(f"{name} is left out of the recordings that come with the tests; --golden names a whole set")

    def check(self, actual: torch.Tensor, key: str, relative: float | None = None, scale: float | None = None) -> None:
        """Compares with a recorded tensor; one called LND holds tokens ahead of the batch, ``actual`` behind it.

        The limit is ``relative`` times the recorded tensor's largest value, or times ``scale``.
        """
        if key in self.left_out:
            return
        expected = self[key].transpose(0, 1) if key.endswith("_LND") else self[key]
        assert_near(actual, expected, relative or self.relative, scale, f"{self.name} {key}")

    def check_norms(self, norms: Mapping[str, torch.Tensor], prefix: str, relative: float) -> None:
        """Compares norms of gradients, by their names behind ``prefix``, each by its own size.

        Where a gradient is zero but for rounding, as of a bias ahead of a softmax, its size is a thousandth of the
        largest.
        """
        recorded = {key.removeprefix(prefix): self[key] for key in self.tensors if key.startswith(prefix)}
        assert recorded
        assert recorded.keys() <= norms.keys()
        least = 1e-3 * float(max(recorded.values()))
        for name, expected in recorded.items():
            self.check(norms[name], prefix + name, relative, max(float(expected), least))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[..., Golden]:
    """Opens a recording by name: ``golden("cris_rn", relative=3e-5)``."""
    folder = request.config.getoption("--golden")

    def open_recording(name: str, relative: float) -> Golden:
        return Golden(folder, name, relative)

    return open_recording
