# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from clip_seg_ros import resources
from clip_seg_ros.viewer.models import model_choices
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS, embedded_models
from clip_seg_ros.zoo.embedded_files import EMBEDDED_FILES
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS, file_name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(resources.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def test_all_that_can_be_used_is_listed_once(cache: Path) -> None:
    names = [model.name for model in model_choices()]

    assert names == [*embedded_models(), *PUBLIC_WEIGHTS]


def test_the_embedded_models_have_the_size_of_their_files(cache: Path) -> None:
    model = next(each for each in model_choices() if each.name == "clipseg-pocket")
    size = sum((resources.weights_dir() / file).stat().st_size for file in EMBEDDED_FILES[model.name])

    assert model.is_here
    assert abs(model.megabytes - size / 1e6) <= 1.0
    assert model.licence.startswith("Apache-2.0")


def test_what_was_downloaded_or_converted_is_here(cache: Path) -> None:
    (cache / file_name("maskclip-vit-b16")).write_bytes(b"x" * 10)
    (cache / "mine.safetensors").write_bytes(b"x" * 3_000_000)
    models = {model.name: model for model in model_choices()}

    assert models["maskclip-vit-b16"].is_here
    assert not models["clipseg-rd64-refined"].is_here
    assert models["clipseg-rd64-refined"].page == PUBLIC_WEIGHTS["clipseg-rd64-refined"].page
    assert (models["mine"].is_here, models["mine"].megabytes) == (True, 3)


def test_a_folder_of_ones_own_holds_all(tmp_path: Path) -> None:
    (tmp_path / "cris_pocket.safetensors").write_bytes(b"x")
    (tmp_path / file_name("sam3")).write_bytes(b"x")

    assert [model.name for model in model_choices(tmp_path) if model.is_here] == ["cris-pocket", "sam3"]


def test_the_files_are_those_that_are_read() -> None:
    assert {name: model.files for name, model in EMBEDDED_MODELS.items()} == EMBEDDED_FILES
