# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError, save_safetensors, update_sum
from clip_seg_ros.models.clip.positions import resize_position_table
from clip_seg_ros.training.recipes.architecture import (
    CLIPSegArchitecture,
    CRISArchitecture,
    DenseCLIPArchitecture,
    InstancesArchitecture,
)
from clip_seg_ros.training.start import assemble, clipseg_start, cris_start, denseclip_start, instances_start
from clip_seg_ros.zoo.build import StoredModel
from nearness import assert_near
from plain_clips import RESNET, VIT, plain_tensors, write_imagenet_vit, write_state
from recipes import shapes, write_start

NAMES = ("wall", "kitchen island", "chest of drawers and more")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> str:
    return str(write_state(tmp_path_factory.mktemp("clip") / "resnet.pt", RESNET))


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> str:
    return str(write_state(tmp_path_factory.mktemp("clip") / "vit.pt", VIT))


def test_new_parts_are_drawn_from_the_seed_alone(resnet: str) -> None:
    stored = cris_start(resnet, CRISArchitecture())
    torch.manual_seed(5)
    one = assemble("one", stored, 0).model.state_dict()
    expected = torch.rand(1)
    torch.manual_seed(5)
    two, other = assemble("two", stored, 0).model.state_dict(), assemble("three", stored, 1).model.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    differing = {name.split(".")[0] for name, value in one.items() if not torch.equal(value, other[name])}
    assert differing == {"connect", "neck", "decoder", "proj"}
    assert torch.equal(torch.rand(1), expected), "the process's own random numbers are left alone"


def test_weights_of_ones_own_kind_are_taken_whole(tmp_path: Path) -> None:
    path = write_start(tmp_path, "cris")
    beginning = assemble("mine", cris_start(str(path), CRISArchitecture()), 0)
    assert beginning.new == ()
    assert str(beginning) == (
        f"mine begins with {path}\n  taken: image tower, text tower, connect, neck, decoder, proj"
    )
    changed = assemble("mine", cris_start(str(path), CRISArchitecture(feed_forward=48, word_length=7)), 0)
    assert changed.new == ("decoder",)
    assert changed.model.tokenizer.context_length == 7
    assert str(changed).endswith("\n  new:   decoder")


def test_a_fresh_decoder_leaves_the_files_one_out(tmp_path: Path) -> None:
    path = str(write_start(tmp_path, "clipseg"))
    kept = assemble("mine", clipseg_start(path, CLIPSegArchitecture(), fresh_decoder=False), 0)
    fresh = assemble("mine", clipseg_start(path, CLIPSegArchitecture(reduce_dim=8), fresh_decoder=True), 0)
    assert (kept.new, fresh.new) == ((), ("decoder",))
    assert fresh.model.decoder.film_mul.weight.shape == (8, 24)


def test_denseclip_takes_towers_alone(tmp_path: Path) -> None:
    beginning = assemble(
        "mine", denseclip_start(str(write_start(tmp_path, "denseclip")), DenseCLIPArchitecture(), NAMES[:1]), 0
    )
    assert beginning.taken == ("image tower", "text tower")
    assert beginning.new == ("contexts", "gamma", "context_decoder", "neck", "decode_head")
    assert beginning.model.class_names == NAMES[:1]


@pytest.mark.parametrize(("tower", "cell"), [("resnet", 32), ("vit", 16)])
def test_denseclip_resizes_the_positions_of_clip(tower: str, cell: int, request: pytest.FixtureRequest) -> None:
    architecture = DenseCLIPArchitecture(input_px=128)
    stored = denseclip_start(request.getfixturevalue(tower), architecture, NAMES)
    plain = plain_tensors(RESNET if tower == "resnet" else VIT)
    key = "visual.attnpool.positional_embedding" if tower == "resnet" else "visual.positional_embedding"
    expected = resize_position_table(plain[key], (64 // cell,) * 2, (128 // cell,) * 2, "bilinear")
    assert torch.equal(stored.tensors[f"backbone.{key}"], expected)
    own = stored.config["denseclip"]
    assert (own["name_length"], own["n_contexts"]) == (7, 8), "the longest name has five tokens between start and end"
    assert torch.equal(stored.tensors["text_encoder.positional_embedding"], plain["positional_embedding"][:15])
    model = assemble("mine", stored, 0).model.eval()
    with torch.no_grad():
        logits = model.decode(model.encode_image(torch.rand(1, 3, 128, 128)), model.encode_text(NAMES))
    assert logits.shape == (1, 3, 32, 32)


def test_an_embedded_clip_gives_smaller_sizes_in_proportion() -> None:
    """Its images had 96 pixels, a text has 24 tokens, and its words and embeddings are 128 wide."""
    cris = cris_start("clip-pocket", CRISArchitecture()).config
    assert cris["cris"]["fpn_out"] == (64, 128, 256)
    assert (cris["cris"]["n_heads"], cris["cris"]["feed_forward"]) == (2, 512)
    assert cris["cris"]["input_spec"]["size"] == 192  # 416 * 96 / 224 to a multiple of 32
    assert cris["clip"]["vision"]["output_stride"] == 32
    denseclip = denseclip_start("clip-pocket", DenseCLIPArchitecture(), ("cup", "red box")).config["denseclip"]
    assert (denseclip["context_width"], denseclip["pyramid_channels"], denseclip["head_channels"]) == (64, 64, 64)
    assert (denseclip["name_length"], denseclip["n_contexts"]) == (5, 8)
    clipseg = clipseg_start("clip-pocket", CLIPSegArchitecture(), True).config["clipseg"]
    assert clipseg["extract_layers"] == (2, 3, 4)
    assert clipseg["tap_widths"] == (192, 384, 768)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_a_detector_on_clip_has_the_authors_sizes_in_proportion(tower: str, request: pytest.FixtureRequest) -> None:
    architecture = InstancesArchitecture(proposals=20, head="retinanet")
    stored = instances_start(request.getfixturevalue(tower), architecture, NAMES)
    own = stored.config["denseclip"]
    # CLIP's images have 64 instead of 224 pixels.
    assert (own["input_spec"]["size"], own["input_spec"]["long_side_limit"]) == (224, 373)
    assert own["anchor_px"] == pytest.approx(32 * 224 / 800)
    assert (own["head"], own["proposals"]) == ("retinanet", 20)
    assert stored.config["vision"]["image_size"] == 384
    beginning = assemble("mine", stored, 0)
    assert beginning.taken == ("image tower", "text tower")
    with torch.no_grad():
        model = beginning.model.eval()
        found = model.detect(model.encode_image(torch.rand(1, 3, 64, 96)), model.encode_text(NAMES))
    assert len(found) == 1


def test_a_detector_takes_the_towers_of_a_denseclip_or_of_other_classes(tmp_path: Path) -> None:
    sizes = InstancesArchitecture(pyramid_channels=8, box_channels=16, mask_channels=8, proposals=20)
    stored = instances_start(str(write_start(tmp_path, "denseclip")), sizes, NAMES[:2])
    beginning = assemble("mine", stored, 0)
    assert beginning.new == ("contexts", "gamma", "context_decoder", "detector")
    assert beginning.model.input_spec.size == 800
    path = tmp_path / "detector.safetensors"
    save_safetensors(path, beginning.model.state_dict(), stored.config, half=False)
    update_sum(path)
    assert assemble("same", instances_start(str(path), InstancesArchitecture(), NAMES[:2]), 0).new == ()
    other = assemble("other", instances_start(str(path), InstancesArchitecture(), NAMES[1:]), 0)
    assert other.taken == ("image tower", "text tower")


def test_what_cannot_begin_is_said(tmp_path: Path, vit: str) -> None:
    stored = cris_start(str(write_start(tmp_path, "cris")), CRISArchitecture())
    torn = {key: value for key, value in stored.tensors.items() if key != "clip.visual.conv1.weight"}
    with pytest.raises(WeightsError, match=r"the image tower in .* is not whole: clip\.visual\.conv1\.weight is"):
        assemble("mine", replace(stored, tensors=torn), 0)
    with pytest.raises(WeightsError, match="holds cris: clipseg cannot begin with it, but with its own weights"):
        clipseg_start(str(tmp_path / "start_cris.safetensors"), CLIPSegArchitecture(), True)
    config = {**shapes("cris"), "cris": {"fpn_out": [1, 2, 3]}}
    save_safetensors(tmp_path / "old.safetensors", {"a": torch.ones(1)}, config)
    update_sum(tmp_path / "old.safetensors")
    with pytest.raises(WeightsError, match="does not describe a model of this version"):
        cris_start(str(tmp_path / "old.safetensors"), CRISArchitecture())
    shallow = replace(VIT, vision=replace(VIT.vision, layers=3))
    with pytest.raises(ValueError, match="reads four blocks of a ViT, and this one has 3"):
        denseclip_start(str(write_state(tmp_path / "shallow.pt", shallow)), DenseCLIPArchitecture(), NAMES)
    assert isinstance(denseclip_start(vit, DenseCLIPArchitecture(), NAMES), StoredModel)


def test_a_vit_of_imagenet_takes_the_place_of_clips_tower(vit: str, tmp_path: Path) -> None:
    path = write_imagenet_vit(tmp_path / "imagenet.pth", 96, blocks=2)
    stored = clipseg_start(vit, CLIPSegArchitecture(image_tower=str(path), extract_layers=(0, 1)), True)
    beginning = assemble("vitseg", stored, 0)
    assert beginning.origin == f"{vit} and {path}"
    assert (beginning.taken, beginning.new) == (("image tower", "text tower"), ("decoder",))
    assert beginning.model.input_spec.size == 96, "that of its own positions"
    tensors = torch.load(path)
    assert_near(beginning.model.clip.visual.conv1.weight, tensors["patch_embed.proj.weight"])
    assert_near(beginning.model.clip.token_embedding.weight, plain_tensors(VIT)["token_embedding.weight"])
    with torch.no_grad():
        model = beginning.model
        assert model.decode(model.encode_image(torch.rand(1, 3, 96, 96)), model.encode_text(["cup"])).shape[-1] == 96


def test_a_vit_of_imagenet_needs_a_plain_clip_and_a_file(vit: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no file no.pth: image_tower is the file of a ViT"):
        clipseg_start(vit, CLIPSegArchitecture(image_tower="no.pth"), True)
    path = write_start(tmp_path, "clipseg")
    with pytest.raises(ValueError, match="begin with a plain CLIP, not with"):
        clipseg_start(
            str(path), CLIPSegArchitecture(image_tower=str(write_imagenet_vit(tmp_path / "i.pth", 96, blocks=1))), True
        )


def test_deconv_reads_one_layer(vit: str) -> None:
    own = clipseg_start(vit, CLIPSegArchitecture(block="linear"), True).config["clipseg"]
    assert (len(own["extract_layers"]), own["feed_forward"], own["block"]) == (1, 64, "linear")
    with pytest.raises(ValueError, match="extract_layers needs one number"):
        CLIPSegArchitecture(block="linear", extract_layers=(1, 2))


def test_fresh_towers_take_nothing_but_the_shape(vit: str) -> None:
    stored = clipseg_start(vit, CLIPSegArchitecture(), True)
    beginning = assemble("random", stored, 0, fresh_towers=True)
    assert (beginning.taken, beginning.new) == ((), ("image tower", "text tower", "decoder"))
    taken = assemble("taken", stored, 0).model.clip.visual.conv1.weight
    assert not torch.equal(beginning.model.clip.visual.conv1.weight, taken)
