"""CLIPSeg against tensors recorded from the authors' implementation (see test/data/golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from clip_seg_ros.models.backbone import ClipConfig, TextConfig, VisionConfig, build_clip
from clip_seg_ros.models.base import InputSpec, TextFeatures
from clip_seg_ros.models.checkpoints import load_strict
from clip_seg_ros.models.clipseg import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.tokenizer import Tokenizer
from clip_seg_ros.models.vision_taps import ViTTaps, resize_position_table

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


class RecordedTokens(Tokenizer):
    """The token ids of the recording: prompts are row numbers."""

    def __init__(self, ids: torch.Tensor, vocab_size: int) -> None:
        self.ids = ids
        self.context_length = ids.shape[1]
        self.vocab_size = vocab_size

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        return self.ids[[int(prompt) for prompt in prompts]]


class Recording:
    """A model with the recorded weights, and what was recorded of it."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            self.tensors = {key: torch.from_numpy(arrays[key]) for key in arrays}
        config = json.loads((GOLDEN / "configs.json").read_text())["clipseg"]
        tokenizer = RecordedTokens(self.tensors["in.tokens"], config["clip"]["vocab_size"])
        self.model = CLIPSeg(
            name, build_clip(_clip_config(config["clip"])), _decoder_config(config, name), tokenizer
        ).eval()
        weights = load_file(GOLDEN / f"{name}.safetensors")
        prefix = "clip_model."
        clip = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        # "reduce" is in the authors' files but no part of the computation.
        decoder = {key: value for key, value in weights.items() if not key.startswith((prefix, "reduce."))}
        load_strict(self.model.clip, clip, name)
        load_strict(self.model.decoder, decoder, name)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def check(self, actual: torch.Tensor, key: str) -> None:
        """Compares with a recorded tensor; those called LND hold tokens before the batch."""
        expected = self[key].transpose(0, 1) if key.endswith("_LND") else self[key]
        torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-5, msg=lambda text: f"{key}: {text}")


def _clip_config(values: dict) -> ClipConfig:
    vision = VisionConfig(
        layers=values["vision_layers"],
        width=values["vision_width"],
        image_size=values["image_resolution"],
        patch_size=values["vision_patch_size"],
        head_width=values["vision_width"] // values["vision_heads"],
    )
    text = TextConfig(
        context_length=values["context_length"],
        vocab_size=values["vocab_size"],
        width=values["transformer_width"],
        heads=values["transformer_heads"],
        layers=values["transformer_layers"],
    )
    return ClipConfig(values["embed_dim"], vision, text, quick_gelu=True)


def _decoder_config(config: dict, name: str) -> CLIPSegConfig:
    clip, decoder = config["clip"], config["decoder"]
    layers = tuple(decoder["extract_layers"])
    return CLIPSegConfig(
        embed_dim=clip["embed_dim"],
        extract_layers=layers,
        tap_widths=(clip["vision_width"],) * len(layers),
        stride=clip["vision_patch_size"],
        prefix_tokens=1,
        input_spec=InputSpec(clip["image_resolution"], "squash", 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        reduce_dim=decoder["reduce_dim"],
        n_heads=decoder["n_heads"],
        feed_forward=decoder["feed_forward"],
        cond_layer=decoder["cond_layer"],
        complex_trans_conv=decoder["complex_trans_conv"][name],
    )


@pytest.fixture(scope="module", params=["clipseg_simple", "clipseg_refined"])
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording(request.param)


@torch.no_grad()
def test_conditionals(recording: Recording) -> None:
    text = recording.model.encode_text(["0", "1"]).pooled
    image64 = recording.model.encode_image_prompt(recording["in.cond_image64"])
    recording.check(text, "out.cond.text")
    recording.check(image64, "out.cond.image64")
    recording.check(recording.model.encode_image_prompt(recording["in.cond_image96"]), "out.cond.image96")
    recording.check(recording.model.mix_prompts(text, image64, 0.5), "out.cond.mixed_text0.5_image64_0.5")


@torch.no_grad()
def test_position_table(recording: Recording) -> None:
    table = recording.model.clip.visual.positional_embedding
    recording.check(resize_position_table(table, (4, 4), (6, 6)), "out.pos_embed.rescaled_6x6")


@pytest.mark.parametrize("size", [64, 96])
@torch.no_grad()
def test_every_stage(recording: Recording, size: int) -> None:
    model, case = recording.model, f"out.text{size}"
    pixels = recording[f"in.image{size}"]
    recorded = {}

    def record(key: str):
        return lambda _module, _inputs, output: recorded.__setitem__(key, output)

    decoder = model.decoder
    hooks = [reduce.register_forward_hook(record(f"reduce{i}_LND")) for i, reduce in enumerate(decoder.reduces)]
    hooks += [block.register_forward_hook(record(f"block{i}_LND")) for i, block in enumerate(decoder.blocks)]
    hooks += [getattr(decoder, film).register_forward_hook(record(film)) for film in ("film_mul", "film_add")]
    try:
        features = model.encode_image(pixels)
        logits = decoder(features.taps, features.grid_size, recording["out.cond.text"])
    finally:
        for hook in hooks:
            hook.remove()

    for layer, tap in zip((1, 2, 4), features.taps, strict=True):
        recording.check(tap, f"{case}.activation.layer{layer}_LND")
    for key, value in recorded.items():
        recording.check(value.squeeze(1) if key.startswith("film") else value, f"{case}.decoder.{key}")
    recording.check(logits[:, None], f"{case}.logits")
    recording.check(model.encode_image_prompt(pixels), f"{case}.visual_q")
    first_block = ViTTaps(model.clip.visual, [0])(pixels).taps[0]
    recording.check(first_block, f"{case}.activation.first_layer0_LND")


@pytest.mark.parametrize(
    ("case", "size", "conditional"),
    [("image64", 64, "image64"), ("image96", 96, "image96"), ("mixed64", 64, "mixed_text0.5_image64_0.5")],
)
@torch.no_grad()
def test_image_and_mixed_prompts(recording: Recording, case: str, size: int, conditional: str) -> None:
    model = recording.model
    prompts = TextFeatures(pooled=recording[f"out.cond.{conditional}"])
    logits = model.decode(model.encode_image(recording[f"in.image{size}"]), prompts)
    # Every prompt was asked about every image; the recording pairs them.
    recording.check(logits[[0, 1], [0, 1]][:, None], f"out.{case}.logits")


def test_loss_and_gradients(recording: Recording) -> None:
    model = recording.model
    with torch.no_grad():
        features = model.encode_image(recording["in.image64"])
    model.decoder.zero_grad()
    logits = model.decoder(features.taps, features.grid_size, recording["out.cond.mixed_text0.5_image64_0.5"])
    loss = F.binary_cross_entropy_with_logits(logits[:, None], recording["in.train_mask"])
    loss.backward()
    recording.check(loss, "out.train.bce_loss")
    for name, parameter in model.decoder.named_parameters():
        recording.check(parameter.grad.norm(), f"out.train.grad_norm.{name}")
