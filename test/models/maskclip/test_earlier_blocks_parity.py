# SPDX-License-Identifier: Apache-2.0
"""SC-CLIP and ResCLIP against tensors recorded from their authors' implementations (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clip_seg_ros.models.maskclip import earlier_blocks
from clip_seg_ros.models.maskclip.model import MaskCLIP
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert


def deepened(tensors: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Returns the tensors of a CLIP of ``depth`` blocks that repeats the four of another one."""
    name, blocks = "visual.transformer.resblocks.", {}
    for key, value in tensors.items():
        index, _, rest = key.removeprefix(name).partition(".")
        if key.startswith(name):
            blocks |= {f"{name}{copy}.{rest}": value for copy in range(int(index), depth, 4)}
        else:
            blocks[key] = value
    return blocks


@pytest.fixture
def recording(golden: Callable):
    return golden("maskclip_successors", relative=1e-5)


@pytest.fixture
def model(recording) -> MaskCLIP:
    """The tower of the recording: as deep as that of the authors."""
    tensors = deepened(recording.weights("maskclip_vit"), 12)
    converted = convert(tensors, "deep", {"vision_head_width": 12, "text_head_width": 8})
    return build_from_config("deep", converted.config, converted.tensors, "deep").eval()


def dense_tokens_of(model: MaskCLIP, variant: str, pixels: torch.Tensor) -> torch.Tensor:
    """The embeddings (B, h * w, D) ahead of their division by their length."""
    model.config = replace(model.config, variant=variant)
    seen = []
    hook = model.visual.ln_post.register_forward_hook(lambda _m, _i, output: seen.append(output @ model.visual.proj))
    model.encode_image(pixels)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("variant", "key"), [("scclip", "out.scclip.dense"), ("resclip", "out.resclip.dense_without_feedback")]
)
@torch.no_grad()
def test_equals_the_authors_program(recording, model: MaskCLIP, variant: str, key: str) -> None:
    recording.check(dense_tokens_of(model, variant, recording["in.image112"]), key)


@torch.no_grad()
def test_steps_equal_the_authors_program(recording, model: MaskCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {"outliers": [], "averaged": []}
    for name, made in seen.items():
        step = getattr(earlier_blocks, name)
        monkeypatch.setattr(earlier_blocks, name, lambda *x, step=step, made=made: made.append(step(*x)) or made[-1])
    dense_tokens_of(model, "scclip", recording["in.image112"])
    assert torch.equal(seen["outliers"][0], recording["out.scclip.outliers"])
    recording.check(seen["averaged"][0], "out.scclip.adjusted")
