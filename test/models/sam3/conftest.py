# SPDX-License-Identifier: Apache-2.0
"""A small SAM 3 of transformers with random weights, saved as the hub holds such models."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.sam3.model import SAM3
from clip_seg_ros.models.sam3.network import require_transformers
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert
from small_sam3 import small_network


@pytest.fixture(scope="session")
def transformers() -> Any:
    """The package, which need not be installed and takes seconds to import."""
    try:
        return require_transformers()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def folder(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``save_pretrained`` writes of the network."""
    path = tmp_path_factory.mktemp("sam3") / "tiny-sam3"
    small_network().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def network(transformers: Any, folder: Path) -> Any:
    """The network as transformers reads it."""
    return transformers.Sam3Model.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def processor(transformers: Any) -> Any:
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
def config(transformers: Any, folder: Path) -> dict[str, Any]:
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
