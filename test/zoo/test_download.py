# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server on this machine that speaks as much of the hub's protocol as huggingface_hub needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

from clip_seg_ros.models.clipseg.convert import as_hugging_face
from clip_seg_ros.tools import local_hub
from clip_seg_ros.tools.cli import main
from clip_seg_ros.tools.local_hub import HubHandler, served
from clip_seg_ros.zoo.download import check_options, find
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.formats import convert

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
REPOSITORY = "CIDAS/clipseg-rd64"
NAME = "clipseg-rd64"
# The recorded model is a small one; what its weights do not tell has to be told.
OPTIONS = {"extract_layers": [1, 2, 4], "vision_head_width": 12, "text_head_width": 8}
COMMAND = ["weights", "download", NAME, *(f"--option={key}={value}" for key, value in OPTIONS.items())]


@dataclass
class Hub:
    """What the server holds and does wrong, and what it was asked."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, where it is not that of the content."""
    cut_after: int | None = None
    """Bytes of the next file after which the connection is cut, once."""
    missing: str = "EntryNotFound"
    """The error code for what is not in ``files``."""
    status: int = 404
    """The status of the answer for what is not in ``files``."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, range)"""
    url: str = ""

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = self.folder / str(len(self.files))
        self.files[path].write_bytes(content)


class Handler(HubHandler):
    hub: Hub

    def parse_request(self) -> bool:
        good = super().parse_request()
        self.files, self.missing, self.status = self.hub.files, self.hub.missing, self.hub.status
        if good:
            self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        return good

    def digest(self, file: Path) -> str:
        return self.hub.sums.get(self.path) or super().digest(file)

    def send(self, source: IO[bytes]) -> None:
        if self.hub.cut_after is None:
            super().send(source)
            return
        self.wfile.write(source.read(self.hub.cut_after))
        self.hub.cut_after = None
        self.close_connection = True
        self.connection.shutdown(2)


def address(file: str, repository: str = REPOSITORY) -> str:
    return local_hub.address(repository, file)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """A small model in the layout that the hub holds."""
    ours = convert(load_file(GOLDEN / "clipseg_simple.safetensors"), "recording", OPTIONS).tensors
    return as_hugging_face(ours)


@pytest.fixture(scope="module")
def published(tensors: dict[str, torch.Tensor]) -> bytes:
    """The same as a file."""
    return save(tensors)


@pytest.fixture
def hub(published: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub"))
    hub.put(address("model.safetensors"), published)
    with served(type("BoundHandler", (Handler,), {"hub": hub})) as hub.url:
        yield hub


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds both caches: ``hub`` and ``weights``."""
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries
    return tmp_path


@pytest.fixture
def download(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable[..., Result]:
    """Runs the command as if its process had been started with the variables that name ``hub`` and ``home``."""

    def run(*more: str, offline: bool = False, command: list[str] = COMMAND) -> Result:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        code = main([*command, *more])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


def test_the_command_in_a_process_of_its_own(hub: Hub, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hub"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("CLIP_SEG_CACHE_DIR", None)
    program = f"import sys; from clip_seg_ros.tools.cli import main; sys.exit(main({COMMAND!r}))"

    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "cache/clip_seg_ros/weights" / f"{NAME}.safetensors").is_file()
    assert list((tmp_path / "hub").rglob("model.safetensors"))


@torch.inference_mode()
def test_download_converts_keeps_and_serves_offline(
    hub: Hub, home: Path, download: Callable[..., Result], tensors: dict[str, torch.Tensor]
) -> None:
    result = download()

    assert result.code == 0, result.err
    assert "hub page says Apache-2.0" in result.out
    assert "grant no licence" in result.out
    assert "CLIPSeg" in result.out
    assert "any phrase" in result.out
    assert sorted(path.name for path in (home / "weights").iterdir()) == ["SHA256SUMS", f"{NAME}.safetensors"]
    model = build_segmenter(NAME)
    assert (
        model.decode(model.encode_image(torch.randn(1, 3, 64, 64)), model.encode_text(["126 5 127"])).isfinite().all()
    )
    assert model.decoder.film_mul.weight.equal(tensors["decoder.film_mul.weight"])

    asked = len(hub.requests)
    here = download()
    assert here.code == 0
    assert "is here already" in here.out
    assert len(hub.requests) == asked
    again = download("--again", "--half", offline=True)
    assert again.code == 0, again.err
    assert len(hub.requests) == asked, again.err
    assert build_segmenter(NAME).decoder.film_mul.weight.equal(tensors["decoder.film_mul.weight"].half().float())


def test_what_is_here_but_damaged_is_fetched_again(hub: Hub, home: Path, download: Callable[..., Result]) -> None:
    assert download().code == 0
    (home / "weights" / f"{NAME}.safetensors").write_bytes(b"damaged")

    result = download()

    assert result.code == 0
    assert "cannot be used and is fetched again" in result.out
    assert build_segmenter(NAME)


def test_a_cut_connection_is_taken_up_where_it_broke(
    hub: Hub, download: Callable[..., Result], tensors: dict[str, torch.Tensor]
) -> None:
    # More than one of the pieces that huggingface_hub reads; old files hold such a table, which is not needed.
    long = {
        **tensors,
        "clip.text_model.embeddings.position_ids": torch.zeros(2 * constants.DOWNLOAD_CHUNK_SIZE // 8).long(),
    }
    hub.put(address("model.safetensors"), save(long))
    hub.cut_after = constants.DOWNLOAD_CHUNK_SIZE + 1000

    result = download()

    assert result.code == 0, result.err
    ranges = [wanted for method, _, wanted in hub.requests if method == "GET"]
    assert ranges == [None, f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-"]


def test_damaged_content_is_refused_and_removed(hub: Hub, home: Path, download: Callable[..., Result]) -> None:
    hub.sums[address("model.safetensors")] = "0" * 64

    result = download()

    assert result.code == 1
    assert "damaged or changed on its way" in result.err
    assert "type the command again" in result.err
    assert not (home / "weights").exists()
    assert not list((home / "hub").rglob("*.safetensors"))
    assert not list((home / "hub").rglob("0" * 64))
    hub.sums.clear()
    assert download().code == 0


def test_a_file_without_a_checksum_is_refused(hub: Hub, home: Path, download: Callable[..., Result]) -> None:
    hub.sums[address("model.safetensors")] = local_hub.COMMIT  # as for files outside of large file storage

    result = download()

    assert result.code == 1
    assert "states no SHA-256" in result.err


def test_the_older_file_is_taken_where_the_newer_is_missing(
    hub: Hub, download: Callable[..., Result], tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    older = tmp_path / "pytorch_model.bin"
    torch.save(tensors, older)
    hub.files = {address("pytorch_model.bin"): older}

    assert download().code == 0
    result = download("--again", offline=True)

    assert result.code == 0, result.err


@pytest.mark.parametrize("code", ["EntryNotFound", "RepoNotFound"])
def test_a_page_that_moved(hub: Hub, download: Callable[..., Result], code: str) -> None:
    hub.files, hub.missing = {}, code

    result = download()

    assert result.code == 1
    assert "https://huggingface.co/CIDAS/clipseg-rd64 is gone, has moved" in result.err
    assert "clip-seg weights convert FILE" in result.err


def test_offline_with_nothing_cached(hub: Hub, home: Path, download: Callable[..., Result]) -> None:
    result = download(offline=True)

    assert result.code == 1
    assert "HF_HUB_OFFLINE is set" in result.err
    assert not hub.requests


def test_no_network(hub: Hub, home: Path, download: Callable[..., Result]) -> None:
    hub.url = "http://127.0.0.1:9"  # nobody listens there

    result = download()

    assert result.code == 1
    assert "http://127.0.0.1:9 gives no answer" in result.err
    assert "check the network" in result.err


def test_no_network_is_told_at_once(
    hub: Hub, home: Path, download: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError("nothing is to be waited for")

    monkeypatch.setattr(time, "sleep", wait)
    hub.url = "http://127.0.0.1:9"

    result = download()

    assert result.code == 1
    assert result.err.startswith("clip-seg weights: http://127.0.0.1:9 gives no answer")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("option", ["colour=red", "extract_layers"])
def test_options_are_checked_before_the_network(hub: Hub, download: Callable[..., Result], option: str) -> None:
    result = download("--option", option)

    assert result.code == 2
    assert option.partition("=")[0] in result.err
    assert not hub.requests
    assert not result.out


def test_the_value_of_an_option_is_checked_before_the_network() -> None:
    found = find("maskclip-vit-b16")
    check_options("maskclip-vit-b16", found, {"variant": "naclip"})
    with pytest.raises(ValueError, match='unknown variant "other"'):
        check_options("maskclip-vit-b16", found, {"variant": "other"})
    check_options("maskclip-vit-b16", found, {"variant": "scclip"})
    with pytest.raises(ValueError, match='"scclip" reads the earlier blocks of a ViT, and this image'):
        check_options("maskclip-rn50", find("maskclip-rn50"), {"variant": "scclip"})
    found = find("talk2dino-vit-b")
    check_options("talk2dino-vit-b", found, {"background_cleaning": True})
    with pytest.raises(ValueError, match="background_cleaning must be true, false or a positive weight, got 'much'"):
        check_options("talk2dino-vit-b", found, {"background_cleaning": "much"})


@pytest.mark.parametrize("templates", ["a {}", ["a"], [3]])
def test_templates_are_checked_before_the_network(templates: object) -> None:
    found = find("clipseg-rd64-refined")
    check_options("clipseg-rd64-refined", found, {"templates": ["a {}"]})
    with pytest.raises(ValueError, match="templates must"):
        check_options("clipseg-rd64-refined", found, {"templates": templates})


def test_the_wrong_model_is_refused(
    hub: Hub, home: Path, download: Callable[..., Result], tensors: dict[str, torch.Tensor]
) -> None:
    part = {key: value for key, value in tensors.items() if key != "decoder.film_mul.bias"}
    hub.put(address("model.safetensors"), save(part))

    result = download()

    assert result.code == 1
    assert "model.safetensors (Hugging Face CLIPSeg) is not whole: decoder.film_mul.bias is missing" in result.err
    assert not (home / "weights").exists()


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
def test_weights_behind_a_licence_say_how_to_get_them(
    hub: Hub, home: Path, download: Callable[..., Result], status: int, code: str
) -> None:
    hub.status, hub.missing = status, code

    result = download(command=["weights", "download", "sam3"])

    assert result.code == 1
    assert "licence: SAM License" in result.out
    assert result.err == (
        "clip-seg weights: facebook/sam3 is given only to those who accepted its licence: accept it on "
        "https://huggingface.co/facebook/sam3, log in on this machine with `hf auth login`, and type `clip-seg weights "
        "download sam3` again\n"
    )
    assert not (home / "weights").exists()


def test_open_clip_weights_are_looked_up() -> None:
    named, spelt = find("maskclip-vit-b16"), find("open_clip:ViT-B-16-quickgelu/openai")
    assert named.hub == spelt.hub
    assert named.hub.repository == "timm/vit_base_patch16_clip_224.openai"
    assert named.hub.files == ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert named.options == {"quick_gelu": True, "vision_head_width": 64, "text_head_width": 64}
    assert named.licence.startswith("MIT")
    assert "see https://huggingface.co/timm/" in spelt.licence
    other = find("open_clip:ViT-H-14/laion2b_s32b_b79k")
    assert other.options == {"quick_gelu": False, "vision_head_width": 80, "text_head_width": 64}
    assert find("open_clip:ViT-L-14/laion2b_s32b_b82k").normalisation == {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-99/openai", 'no architecture "ViT-B-99"'),
        ("open_clip:ViT-B-16/nobody", 'no weights "nobody" of ViT-B-16.*openai, '),
        ("open_clip:ViT-B-16-SigLIP/webli", "no plain CLIP.*timm_model_name"),
        ("clipseg-rd65", 'no published weights "clipseg-rd65": use clipseg-rd64-refined'),
    ],
)
def test_weights_that_nobody_lists(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(name)
