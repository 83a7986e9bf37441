# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clip_seg_ros import resources
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors
from clip_seg_ros.models.clip.backbone import ClipConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer, CompactTokenizer, build_tokenizer
from clip_seg_ros.models.spec import CLIP_MEAN, IMAGENET_MEAN
from clip_seg_ros.zoo import download
from clip_seg_ros.zoo.build import StoredModel
from clip_seg_ros.zoo.formats import convert
from clip_seg_ros.zoo.plain_clip import ClipOptions, PlainClip, read_start
from clip_seg_ros.zoo.public_weights import HubFile, file_name
from clip_seg_ros.zoo.writing import store
from plain_clips import RESNET, VIT, plain_tensors, write_archive, write_state

HUB_NAME = "open_clip:RN50-quickgelu/openai"


def loaded(clip: PlainClip) -> dict[str, torch.Tensor]:
    """The weights as the CLIP of ``clip.config`` takes them, all of them."""
    model = build_clip(clip.config)
    model.load_state_dict(dict(clip.tensors))
    return model.state_dict()


def assert_same(found: dict[str, torch.Tensor], config: ClipConfig, half: bool = False) -> None:
    for name, value in plain_tensors(config).items():
        tolerance = 1e-3 * float(value.abs().max()) if half else 0.0
        torch.testing.assert_close(found[name].float(), value.float(), atol=tolerance, rtol=0, msg=name)


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_file_of_openai_is_a_plain_clip(tmp_path: Path, config: ClipConfig) -> None:
    archive = read_start(str(write_archive(tmp_path / "CLIP.pt", config)))
    state = read_start(str(write_state(tmp_path / "clip.pth", config)))
    for clip in (archive, state):
        assert clip.config == config
        assert isinstance(build_tokenizer(clip.tokenizer), ClipTokenizer)
        assert clip.mean == CLIP_MEAN
    assert_same(loaded(archive), config, half=True)
    assert_same(loaded(state), config)
    assert all(value.dtype != torch.float16 for value in archive.tensors.values())


def test_what_a_file_does_not_hold_can_be_said(tmp_path: Path) -> None:
    path = write_state(tmp_path / "open_clip_pytorch_model.bin", VIT)
    clip = read_start(str(path), ClipOptions(quick_gelu=False, vision_head_width=32, text_head_width=16))
    assert (clip.config.quick_gelu, clip.config.vision.head_width, clip.config.text.heads) == (False, 32, 4)


@pytest.mark.parametrize("name", ["clip-pocket", "clip_pocket.safetensors"])
def test_an_embedded_clip_is_a_plain_one(name: str) -> None:
    start = name if "." not in name else str(resources.weights_dir() / name)
    clip = read_start(start)
    assert isinstance(build_tokenizer(clip.tokenizer), CompactTokenizer)
    assert clip.mean == IMAGENET_MEAN
    tensors, _ = load_safetensors(resources.weights_dir() / "clip_pocket.safetensors")
    found = loaded(clip)
    for key in ("visual.attnpool.positional_embedding", "text_projection"):
        torch.testing.assert_close(found[key], tensors[key])


def test_a_converted_clip_is_a_plain_one_if_it_is_whole(tmp_path: Path) -> None:
    store(convert(plain_tensors(VIT), "a ViT"), tmp_path / "vit.safetensors")
    clip = read_start(str(tmp_path / "vit.safetensors"))
    assert clip.config == VIT
    found = loaded(clip)
    assert_same({**found, "logit_scale": plain_tensors(VIT)["logit_scale"]}, VIT)
    store(convert(plain_tensors(RESNET), "a ResNet"), tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError, match="leaves out the positions of CLIP's attention pool: begin with"):
        read_start(str(tmp_path / "resnet.safetensors"))


def test_the_hub_is_asked_for_what_the_converted_file_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[HubFile] = []
    path = write_archive(tmp_path / "RN50.pt", RESNET)

    def fetch(hub: HubFile) -> Path:
        fetched.append(hub)
        return path

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setattr(resources, "cache_dir", lambda: tmp_path)
    clip = read_start(HUB_NAME)
    assert clip.config == RESNET
    assert clip.mean == CLIP_MEAN
    assert clip.origin.endswith("/RN50.pt")
    assert len(fetched) == 1
    store(convert(plain_tensors(RESNET), "a ResNet"), tmp_path / file_name(HUB_NAME))
    assert read_start(HUB_NAME).config == RESNET
    assert len(fetched) == 2, "the converted ResNet is not whole"
    vit = "open_clip:ViT-B-16-quickgelu/openai"
    store(convert(plain_tensors(VIT), "a ViT"), tmp_path / file_name(vit))
    assert read_start(vit).config == VIT
    assert len(fetched) == 2, "the converted ViT is"


def test_weights_of_a_method_are_returned_as_they_are() -> None:
    assert isinstance(read_start("clipseg-pocket"), StoredModel)


def test_what_is_no_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no file"):
        read_start(str(tmp_path / "none.pt"))
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="has a layout that is not known"):
        read_start(str(tmp_path / "a.pt"))
    tensors = plain_tensors(RESNET)
    del tensors["visual.layer2.0.conv1.weight"]
    torch.save(tensors, tmp_path / "half.pt")
    with pytest.raises(WeightsError, match=r"visual\.layer2\.0\.conv1\.weight is missing"):
        read_start(str(tmp_path / "half.pt"))
    with pytest.raises(ValueError, match="there is no model"):
        read_start("no-such-model")
    with pytest.raises(ValueError, match="knows no architecture"):
        read_start("open_clip:RN5/openai")
