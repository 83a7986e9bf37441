# SPDX-License-Identifier: Apache-2.0
"""A small SAM 3 of transformers with random weights, saved as the hub holds such models."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.sam3.model import SAM3
from clip_seg_ros.models.sam3.network import require_transformers
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

try:
    transformers = require_transformers()
except WeightsError as error:
    pytest.skip(str(error), allow_module_level=True)

_TRANSFORMER = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.0}
_TOWER = {
    "model_type": "sam3_vit_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "window_size": 4,
    "global_attn_indexes": [1],
    "pretrain_image_size": 56,
}
_TEXT = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "hidden_act": "gelu",
}


def _network() -> Any:
    """The network with weights that make every part of it visible in its answers."""
    config = transformers.Sam3Config(
        vision_config={"backbone_config": _TOWER, "fpn_hidden_size": 32},
        text_config=_TEXT,
        geometry_encoder_config=_TRANSFORMER,
        detr_encoder_config=_TRANSFORMER,
        detr_decoder_config={**_TRANSFORMER, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    torch.manual_seed(0)
    network = transformers.Sam3Model(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.6 * torch.rand_like(parameter) - 0.3)
            elif "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.3 / parameter[0].numel() ** 0.5)
            else:
                parameter.mul_(20.0)
    return network


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``save_pretrained`` writes of the network."""
    path = tmp_path_factory.mktemp("sam3") / "tiny-sam3"
    _network().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def network(folder: Path) -> Any:
    """The network as transformers reads it."""
    return transformers.Sam3Model.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def processor() -> Any:
    """transformers' own processor, with CLIP's vocabulary from open_clip."""
    import open_clip

    lines = gzip.decompress((Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    merges = [tuple(line.split()) for line in lines.split("\n")[1 : 49152 - 256 - 2 + 1]]
    characters = list(_byte_characters())
    pieces = [*characters, *(f"{each}</w>" for each in characters), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer({piece: index for index, piece in enumerate(pieces)}, merges)
    images = transformers.Sam3ImageProcessor(size={"height": 112, "width": 112})
    return transformers.Sam3Processor(images, tokenizer)


def _byte_characters() -> list[str]:
    """The characters that stand for bytes in CLIP's vocabulary, in its order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in shown] + [chr(256 + place) for place in range(256 - len(shown))]


@pytest.fixture(scope="session")
def config(folder: Path) -> dict[str, Any]:
    """The values of the folder's ``config.json``."""
    return transformers.Sam3Config.from_pretrained(folder).to_dict()


@pytest.fixture(scope="session")
def make(folder: Path, config: dict[str, Any]) -> Any:
    """Builds our model from the folder, with options of the converter."""

    def build(**options: Any) -> SAM3:
        converted = convert(read_tensors(folder), "tiny", {"config": config, **options})
        model = build_from_config("tiny", converted.config, converted.tensors, "tiny")
        assert isinstance(model, SAM3)
        return model.eval()

    return build
