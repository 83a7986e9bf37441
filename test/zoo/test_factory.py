# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clip_seg_ros.config import AUTO, FOR_PHRASES
from clip_seg_ros.models.checkpoints import WeightsError, save_safetensors, update_sums
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.zoo.build import MODEL_KINDS, build_from_config
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS
from clip_seg_ros.zoo.factory import build_segmenter, first_there, full_name, read_stored, weight_file
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS
from nearness import assert_near

WORDS = ("red", "cup")


def make_model() -> tuple[CLIPSeg, ClipConfig]:
    tokenizer = CompactTokenizer(WORDS, context_length=6)
    config = ClipConfig(
        embed_dim=12,
        vision=VisionConfig(layers=(1, 1, 1, 1), width=4, image_size=64, head_width=32, output_stride=16),
        text=TextConfig(context_length=6, vocab_size=tokenizer.vocab_size, width=8, heads=2, layers=1),
    )
    decoder_config = CLIPSegConfig(
        embed_dim=12,
        extract_layers=(2, 3),
        tap_widths=(32, 64),
        stride=8,
        prefix_tokens=0,
        input_spec=InputSpec(64, "short_side", 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        reduce_dim=8,
        feed_forward=16,
    )
    torch.manual_seed(0)
    return CLIPSeg("clipseg-pocket", build_clip(config), decoder_config, tokenizer).eval(), config


@pytest.fixture
def weights_dir(tmp_path: Path) -> Path:
    model, config = make_model()
    write(tmp_path, model, {"clip": config.to_dict(), "known_words": WORDS})
    return tmp_path


def write(folder: Path, model: CLIPSeg, clip_config: dict) -> None:
    save_safetensors(folder / "clip_pocket.safetensors", model.clip.state_dict(), clip_config, half=False)
    decoder = model.decoder
    save_safetensors(folder / "clipseg_pocket.safetensors", decoder.state_dict(), decoder.config.to_dict(), half=False)
    update_sums(folder)


@torch.no_grad()
def test_built_model_is_the_saved_one(weights_dir: Path) -> None:
    saved, _ = make_model()
    built = build_segmenter("clipseg-pocket", weights_dir)
    assert built.name == "clipseg-pocket"
    assert built.input_spec == saved.input_spec
    assert not built.training
    pixels = torch.randn(1, 3, 64, 80)
    expected = saved.decode(saved.encode_image(pixels), saved.encode_text(["red cup"]))
    assert_near(built.decode(built.encode_image(pixels), built.encode_text(["red cup"])), expected)


def test_unknown_name(weights_dir: Path) -> None:
    with pytest.raises(ValueError, match='no model "clipseg-huge": use clipseg-pocket'):
        build_segmenter("clipseg-huge", weights_dir)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"clip_pocket\.safetensors, clipseg_pocket\.safetensors of clipseg-pocket does not exist in"
    ):
        build_segmenter("clipseg-pocket", tmp_path)


def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_SEG_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere: CLIP_SEG_WEIGHTS_DIR names it"):
        build_segmenter("clipseg-pocket")


@pytest.mark.parametrize("clip_values", [{}, {"clip": {"embed_dim": 12}, "known_words": WORDS}])
def test_configuration_that_describes_nothing(weights_dir: Path, clip_values: dict) -> None:
    write(weights_dir, make_model()[0], clip_values)
    with pytest.raises(WeightsError, match="does not describe a model of this version"):
        build_segmenter("clipseg-pocket", weights_dir)


def test_a_kind_that_there_is_not_is_named_with_those_that_there_are() -> None:
    message = f'there is no kind "toy" among {", ".join(MODEL_KINDS)}'
    with pytest.raises(WeightsError, match=message):
        build_from_config("mine", {"kind": "toy"}, {}, "here")


def test_weights_of_another_shape(weights_dir: Path) -> None:
    model, config = make_model()
    values = config.to_dict()
    values["text"]["layers"] = 2
    write(weights_dir, model, {"clip": values, "known_words": WORDS})
    with pytest.raises(WeightsError, match=r"transformer\.resblocks\.1\.ln_1\.weight is missing"):
        build_segmenter("clipseg-pocket", weights_dir)


def own_config(model: CLIPSeg, clip: ClipConfig) -> dict:
    tokenizer = {"kind": "compact", "known_words": WORDS, "context_length": 6}
    return {
        "kind": "clipseg",
        "clip": clip.to_dict(),
        "clipseg": model.decoder.config.to_dict(),
        "tokenizer": tokenizer,
    }


def test_weights_that_are_loaded_are_not_drawn_first() -> None:
    model, clip = make_model()
    config, tensors = own_config(model, clip), model.state_dict()
    torch.manual_seed(0)
    MODEL_KINDS["clipseg"]("random", config)
    after_drawing = torch.get_rng_state()
    torch.manual_seed(0)
    built = build_from_config("loaded", config, tensors, "here")
    assert not torch.get_rng_state().equal(after_drawing)
    assert built.state_dict().keys() == tensors.keys()
    assert all(value.equal(tensors[key]) for key, value in built.state_dict().items())


def test_weights_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make_model()
    config = own_config(model, clip)
    save_safetensors(tmp_path / "mine.safetensors", model.state_dict(), config, half=False)
    update_sums(tmp_path)
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    for built in (build_segmenter("mine"), build_segmenter(str(tmp_path / "mine.safetensors"))):
        assert built.name == "mine"
        assert not built.training
        assert built.decoder.film_mul.weight.equal(model.decoder.film_mul.weight)
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert build_segmenter("mine", tmp_path).name == "mine"


def test_where_weights_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is itself, whether the file is there or not; a name is a file of the folder."""
    (tmp_path / "mine.safetensors").touch()
    assert weight_file("mine", tmp_path) == tmp_path / "mine.safetensors"
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    assert weight_file("mine") == tmp_path / "mine.safetensors"
    assert weight_file("other/file.safetensors") == Path("other/file.safetensors")
    assert weight_file("~/file.safetensors") == Path.home() / "file.safetensors"
    with pytest.raises(WeightsError, match="`clip-seg weights download cris-r50`"):
        weight_file("cris-r50")
    with pytest.raises(ValueError, match='no model "theirs": use clipseg-pocket'):
        weight_file("theirs")


def test_a_short_name_means_the_embedded_model(weights_dir: Path) -> None:
    assert full_name("clipseg", weights_dir) == "clipseg-pocket" == full_name("clipseg-pocket", weights_dir)


@torch.no_grad()
def test_a_short_name_builds_what_a_command_uses(weights_dir: Path) -> None:
    built = build_segmenter("clipseg", weights_dir)
    assert built.name == "clipseg-pocket"


def test_auto_is_the_published_model_where_it_is_there(
    weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, embedded = FOR_PHRASES
    assert full_name(AUTO, weights_dir) == build_segmenter(AUTO, weights_dir).name == embedded
    model, clip = make_model()
    save_safetensors(tmp_path / f"{published}.safetensors", model.state_dict(), own_config(model, clip), half=False)
    update_sums(tmp_path)
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    built = build_segmenter(AUTO)
    assert full_name(AUTO) == built.name == published
    assert built.decoder.film_mul.weight.equal(model.decoder.film_mul.weight)
    assert read_stored(AUTO).config["clipseg"]["tap_widths"] == list(model.decoder.config.tap_widths)
    assert first_there(["maskclip-vit-b16", "denseclip-pocket"]) == "denseclip-pocket"


def test_only_the_package_s_own_weights_name_others_for_real_pictures(weights_dir: Path, tmp_path: Path) -> None:
    assert build_segmenter("clipseg-pocket", weights_dir).for_real_pictures == "clipseg-rd64-refined"
    model, clip = make_model()
    (tmp_path / "own").mkdir()
    save_safetensors(tmp_path / "own" / "mine.safetensors", model.state_dict(), own_config(model, clip), half=False)
    update_sums(tmp_path / "own")
    assert build_segmenter(str(tmp_path / "own" / "mine.safetensors")).for_real_pictures is None
    for entry in EMBEDDED_MODELS.values():
        published = PUBLIC_WEIGHTS[entry.for_real_pictures]
        assert published.hub or published.open_clip, "one command must get it"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds two folders of weights, ``mine`` and ``cache``, and another, ``outside``; each has a file of its name."""
    for name in ("mine", "cache", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").touch()
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["mine.safetensors", "cache.safetensors", "{}/mine/mine.safetensors", "mine"])
def test_files_in_the_folders_of_weights(folders: Path, name: str) -> None:
    found = full_name(name.format(folders), folders / "mine", allow_paths=False)
    assert found == "mine" or (Path(found).is_absolute() and Path(found).is_file())


def test_a_link_in_a_folder_of_weights_is_its_owner_s(folders: Path) -> None:
    (folders / "cache" / "link.safetensors").symlink_to(folders / "outside" / "outside.safetensors")
    expected = str(folders / "cache" / "link.safetensors")
    assert full_name("link.safetensors", None, allow_paths=False) == expected


@pytest.mark.parametrize(
    "name",
    [
        "{}/outside/outside.safetensors",
        "outside/outside.safetensors",
        "{}/mine/../outside/outside.safetensors",
        "{}/mine/../mine/mine.safetensors",
        "{}/mine/way/outside.safetensors",
        "{}/mine/way/../mine/mine.safetensors",
        "mine/mine.safetensors",
        "../mine.safetensors",
        "~nobody/outside.safetensors",
        "{}/nowhere/outside.safetensors",
        "\0.safetensors",
        "\udcff.safetensors",
        "x" * 5000 + ".safetensors",
        "/dev/zero/.safetensors",
    ],
)
def test_files_elsewhere_are_refused_and_nothing_is_told_of_them(folders: Path, name: str) -> None:
    (folders / "mine" / "way").symlink_to(folders / "outside")
    name = name.format(folders)

    def refusal() -> str:
        with pytest.raises(ValueError, match="allow_model_paths:=true") as refused:
            full_name(name, folders / "mine", allow_paths=False)
        return str(refused.value)

    there = refusal()
    (folders / "outside" / "outside.safetensors").unlink()
    assert refusal() == there
    assert len(there) < 1200


def test_a_name_of_any_length_and_a_path_of_nobody_s_are_refused_plainly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='there is no model "xxx'):
        full_name("x" * 5000, tmp_path)
    with pytest.raises(ValueError, match="means no folder"):
        full_name("~nobody-at-all/file.safetensors", tmp_path)


def test_names_whose_files_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"cris_pocket.safetensors of cris-pocket does not exist"):
        full_name("cris", tmp_path)
    with pytest.raises(WeightsError, match="clip-seg distill --rendered"):
        full_name("maskclip-plus", tmp_path)
    with pytest.raises(WeightsError, match=r"there is no file .*mine.safetensors"):
        full_name(str(tmp_path / "mine.safetensors"))
    with pytest.raises(WeightsError, match="clip-seg weights download clipseg-rd64-refined"):
        full_name("clipseg-rd64-refined", tmp_path)
    with pytest.raises(ValueError, match='there is no model "nonsense"'):
        full_name("nonsense", tmp_path)
    (tmp_path / "mine.safetensors").touch()
    assert full_name(str(tmp_path / "mine.safetensors")) == str(tmp_path / "mine.safetensors")
