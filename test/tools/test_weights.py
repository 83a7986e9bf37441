# SPDX-License-Identifier: Apache-2.0
"""`clip-seg weights` on small models in the published layouts, through real files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clip_seg_ros import resources
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS
from nearness import assert_near

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CLIPSEG = ("extract_layers=[1,2,4]", "vision_head_width=12", "text_head_width=8")
CRIS = ("n_heads=4", "text_head_width=8")
DENSECLIP = ("text_head_width=8", "vision_head_width=8", "context_heads=4", "blocks=[1,2,3,5]")
MASKCLIP = ("vision_head_width=12", "text_head_width=8")


def options(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--option", pair)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    """Runs `clip-seg weights`: (exit code, what was printed)."""

    def call(*arguments: object) -> tuple[int, str]:
        code = main(["weights", *map(str, arguments)])
        captured = capsys.readouterr()
        assert (code == 0) == (captured.err == "")
        return code, captured.out + captured.err

    return call


@pytest.fixture
def cris(tmp_path: Path) -> Path:
    """As the authors' training writes it."""
    weights = {f"module.{key}": value for key, value in load_file(GOLDEN / "cris_rn.safetensors").items()}
    content = {"epoch": 50, "best_iou": np.float64(0.7), "prec": {"Pr@50": 0.8}, "state_dict": weights}
    torch.save(content, tmp_path / "best_model.pth")
    return tmp_path / "best_model.pth"


@torch.inference_mode()
def answer(name: str, prompts: list[str]) -> torch.Tensor:
    model = build_segmenter(name)
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    return model.decode(model.encode_image(pixels), model.encode_text(prompts))


def test_convert_and_use_by_name(run, cache: Path, cris: Path) -> None:
    code, said = run("convert", cris, "--name", "my-cris", "--word-length", 10, *options(*CRIS))
    assert code == 0
    assert "CRIS" in said
    assert "any phrase" in said
    assert 'from_name("my-cris")' in said
    assert "model:=my-cris" in said
    assert {path.name for path in cache.iterdir()} == {"my-cris.safetensors", "SHA256SUMS"}
    assert answer("my-cris", ["126 5 127", "126 9 127"]).shape[:2] == (1, 2)
    assert build_segmenter("my-cris").tokenizer.context_length == 10
    assert "converted by you" in run("list")[1]


def test_several_files_in_one_folder_do_not_disturb_each_other(run, cache: Path, cris: Path) -> None:
    assert run("convert", cris, "--name", "first", *options(*CRIS))[0] == 0
    first = cache / "first.safetensors"
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    assert run("convert", cris, "--name", "second", "--half", *options(*CRIS))[0] == 0
    code, said = run("verify", "first")
    assert code == 1
    assert "was cut short or changed" in said
    assert run("verify", "second")[0] == 0
    assert (cache / "second.safetensors").stat().st_size < 0.6 * first.stat().st_size


def test_a_decoder_with_its_clip(run, tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "clipseg_simple.safetensors")
    clip = {key.removeprefix("clip_model."): value for key, value in tensors.items() if key.startswith("clip_model.")}
    torch.save({key: value for key, value in tensors.items() if not key.startswith("clip_model.")}, tmp_path / "rd.pth")
    torch.save({**clip, "input_resolution": torch.tensor(64)}, tmp_path / "clip.pt")
    out = tmp_path / "out.safetensors"

    code, said = run("convert", tmp_path / "rd.pth", "--out", out, *options(*CLIPSEG))
    assert code == 1
    assert "--clip FILE" in said
    assert not out.exists()
    code, said = run("convert", tmp_path / "rd.pth", "--clip", tmp_path / "clip.pt", "--out", out, *options(*CLIPSEG))
    assert code == 0
    assert str(out) in said
    whole = tmp_path / "whole.safetensors"
    assert run("convert", GOLDEN / "clipseg_simple.safetensors", "--out", whole, *options(*CLIPSEG))[0] == 0
    assert_near(answer(str(out), ["126 5 127"]), answer(str(whole), ["126 5 127"]))


def test_classes_from_a_file(run, tmp_path: Path) -> None:
    file, names = GOLDEN / "denseclip_rn_fpn.safetensors", tmp_path / "names.txt"
    # Prompts of these small models are ids.
    names.write_text("".join(f"126 {index} 127\n" for index in range(2, 8)))
    arguments = ("convert", file, "--out", tmp_path / "dense.safetensors", *options(*DENSECLIP))

    code, said = run(*arguments)
    assert code == 1
    assert "was trained on 6 classes" in said
    assert "--classes" in said
    code, said = run(*arguments, "--classes", "voc20")
    assert code == 1
    assert "20 names" in said
    code, said = run(*arguments, "--classes", tmp_path / "missing.txt")
    assert code == 2
    assert "none of ade20k" in said
    assert "no text file" in said
    code, said = run(*arguments, "--classes", names)
    assert code == 0
    assert "DenseCLIP" in said
    assert "6 classes" in said
    assert build_segmenter(str(tmp_path / "dense.safetensors")).class_names[0] == "126 2 127"


def test_a_clip_with_options(run) -> None:
    file = GOLDEN / "maskclip_vit.safetensors"
    assert run("convert", file, "--name", "plain", *options(*MASKCLIP))[0] == 0
    assert run("convert", file, "--name", "naclip", *options(*MASKCLIP, "variant=naclip"))[0] == 0
    assert build_segmenter("naclip").config.variant == "naclip"
    assert run("convert", file, "--name", "scclip", *options(*MASKCLIP, "variant=scclip"))[0] == 0
    assert build_segmenter("scclip").config.variant == "scclip"
    resnet = GOLDEN / "maskclip_rn.safetensors"
    code, said = run("convert", resnet, "--name", "pool", *options("text_head_width=8", "variant=scclip"))
    assert code == 2
    assert "this image tower is a ResNet: use maskclip, sclip, clearclip, naclip" in said
    code, said = run("convert", file, "--name", "other", *options("colour=red"))
    assert code == 2
    assert "takes no colour" in said
    assert "variant" in said


def test_embeddings_of_classes_where_they_do_not_belong(run, tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "maskclip_vit.safetensors")
    torch.save(torch.nn.functional.normalize(torch.randn(20, 40), dim=1), tmp_path / "text.pth")
    torch.save(tensors, tmp_path / "two.pth")
    arguments = ("verify", GOLDEN / "maskclip_vit.safetensors")
    code, said = run(*arguments, "--text-embeddings", tmp_path / "two.pth", *options(*MASKCLIP))
    assert code == 2
    assert "wants a file of one tensor" in said
    code, said = run(*arguments, "--text-embeddings", tmp_path / "text.pth", "--classes", "voc20", *options(*MASKCLIP))
    assert code == 2
    assert "CLIP of OpenAI or open_clip, which takes no class_names, text_embeddings" in said


def test_verify_a_published_file(run, tmp_path: Path, cris: Path) -> None:
    code, said = run("verify", cris, *options(*CRIS))
    assert code == 0
    assert "is a whole CRIS" in said
    assert "weights convert" in said
    content = torch.load(cris, weights_only=False)
    del content["state_dict"]["module.proj.txt.bias"]
    content["state_dict"]["module.extra"] = torch.ones(1)
    torch.save(content, cris)
    code, said = run("verify", cris, *options(*CRIS))
    assert code == 1
    assert "proj.txt.bias is missing" in said
    assert "extra is unexpected" in said
    assert run("convert", cris, "--name", "broken", *options(*CRIS)) == (code, said)


@pytest.mark.parametrize("name", ["clipseg-pocket", "cris", "x" * 300, "a/b", "", ".hidden", "open_clip:a/b", "../up"])
def test_names_that_are_refused(run, cache: Path, cris: Path, name: str) -> None:
    code, said = run("convert", cris, "--name", name, *options(*CRIS))
    assert code == 2
    assert "clip-seg weights: " in said
    assert not cache.exists()


def test_outputs_that_are_refused(run, tmp_path: Path) -> None:
    file = GOLDEN / "cris_rn.safetensors"
    code, said = run("convert", file, "--out", tmp_path / "model.pth")
    assert code == 2
    assert "must end with .safetensors" in said
    own = tmp_path / "own.safetensors"
    own.write_bytes(file.read_bytes())
    code, said = run("convert", own, "--out", own)
    assert code == 2
    assert "overwrite" in said
    assert own.read_bytes() == file.read_bytes()
    (tmp_path / "file").touch()
    code, said = run("convert", file, "--out", tmp_path / "file" / "model.safetensors", *options(*CRIS))
    assert code == 1
    assert "cannot be written" in said
    assert "--out" in said


def test_a_converted_file_is_not_converted_again(run, cache: Path, cris: Path) -> None:
    assert run("convert", cris, "--name", "one", *options(*CRIS))[0] == 0
    code, said = run("convert", cache / "one.safetensors", "--name", "two")
    assert code == 2
    assert "is converted already" in said


def test_a_full_disk(run, cris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    code, said = run("convert", cris, "--name", "one", *options(*CRIS))
    assert code == 1
    assert "No space left" in said
    assert "make room" in said


def test_interrupted(run, cris: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    code, said = run("convert", cris, "--name", "one", *options(*CRIS))
    assert code == 130
    assert "nothing was written" in said
    assert not list(cache.glob("*"))


def test_verify_names(run) -> None:
    code, said = run("verify", "clipseg-rd64")
    assert code == 1
    assert "`clip-seg weights download clipseg-rd64`" in said
    code, said = run("verify", "nothing")
    assert code == 1
    assert "weights list" in said


def test_list_names_all_on_one_screen(run) -> None:
    code, said = run("list")
    assert code == 0
    assert "come with the package. They know one simulated table" in said
    assert "clipseg-pocket" in said
    assert all(name in said for name in PUBLIC_WEIGHTS)
    assert "--licences" in said
    assert all(len(line) <= 100 for line in said.splitlines() if "here   " not in line)
    assert not any(entry.page in said for entry in PUBLIC_WEIGHTS.values())


def test_list_tells_their_terms(run) -> None:
    code, said = run("list", "--licences")
    assert code == 0
    words = " ".join(said.split())
    for name, entry in PUBLIC_WEIGHTS.items():
        assert name in words
        assert entry.page in words
        assert entry.licence in words
    assert "clip-seg weights convert FILE --name denseclip-vit-b" in words
    assert all(len(line) <= 110 for line in said.splitlines())


@pytest.mark.parametrize("name", ["cris-pocket", "cris"])
def test_verify_weights_that_come_with_the_package(run, name: str) -> None:
    code, said = run("verify", name)
    assert code == 0
    assert "cris-pocket comes with the package" in said
    assert "cris_pocket.safetensors" in said
    assert "simulated table alone" in said
    assert "`clip-seg weights download clipseg-rd64-refined`" in said


def test_verify_damaged_weights_of_the_package(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shipped"
    folder.mkdir()
    for file in ("cris_pocket.safetensors", "SHA256SUMS"):
        (folder / file).write_bytes((resources.weights_dir() / file).read_bytes())
    content = bytearray((folder / "cris_pocket.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "cris_pocket.safetensors").write_bytes(content)
    monkeypatch.setenv("CLIP_SEG_WEIGHTS_DIR", str(folder))
    code, said = run("verify", "cris")
    assert code == 1
    assert "was cut short or changed" in said


def test_verify_weights_that_are_fetched_by_hand(run) -> None:
    code, said = run("verify", "cris-r50")
    assert code == 1
    assert "has to be fetched by hand" in said
    assert "weights convert FILE --name cris-r50" in said


def test_what_comes_with_the_package_is_not_downloaded(run) -> None:
    code, said = run("download", "cris")
    assert code == 2
    assert "comes with the package" in said


@pytest.mark.parametrize("name", ["cris-r50", "denseclip-rn101", "maskclip-authors-rn50"])
def test_what_has_to_be_fetched_by_hand(run, name: str) -> None:
    code, said = run("download", name)
    assert code == 1
    assert PUBLIC_WEIGHTS[name].page in said
    assert "clip-seg weights convert FILE" in said
    assert f"--name {name}" in said
    assert "MIT" in said


def test_no_such_weights(run) -> None:
    code, said = run("download", "clipseg-rd65")
    assert code == 2
    assert "clipseg-rd64-refined" in said
    assert "open_clip:ARCHITECTURE/TAG" in said


def test_wrong_option(run, cris: Path) -> None:
    assert "wants KEY=VALUE" in run("convert", cris, "--name", "a", "--option", "n_heads")[1]
    assert "at least 3" in run("convert", cris, "--name", "a", "--word-length", 2)[1]
