# SPDX-License-Identifier: Apache-2.0
"""ViTs of ImageNet against the libraries whose files they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import build_vision_tower
from clip_seg_ros.models.clip.imagenet_vit import read_imagenet_vit
from clip_seg_ros.models.clip.vision_taps import ViTTaps
from nearness import assert_near

# They come after CLIP, which makes a torchvision that does not fit torch importable.
from timm.models import VisionTransformer as TimmViT  # isort: skip
from torchvision.models import VisionTransformer  # isort: skip


def shake(model: nn.Module) -> nn.Module:
    """Fills every tensor: fresh norms and biases would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def of_timm() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = TimmViT(32, 8, num_classes=5, embed_dim=64, depth=3, num_heads=2)
    return shake(model), model.state_dict()


def of_torchvision() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=64, mlp_dim=256, num_classes=5)
    return shake(model), model.state_dict()


def tokens_of(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The tokens after the last norm, as the library computes them."""
    if isinstance(model, VisionTransformer):
        x = model._process_input(pixels)
        return model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1))
    return model.forward_features(pixels)


@pytest.mark.parametrize("library", [of_timm, of_torchvision])
@torch.no_grad()
def test_its_tokens_are_the_librarys(library) -> None:
    model, tensors = library()
    config, tower = read_imagenet_vit(tensors, "vit.pth", head_width=32)
    assert (config.layers, config.width, config.image_size, config.patch_size) == (3, 64, 32, 8)
    visual = build_vision_tower(config, 12, quick_gelu=False).eval()
    visual.load_state_dict({**tower, "proj": torch.zeros(64, 12)})
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (found,) = ViTTaps(visual, (2,))(pixels).taps
    assert_near(visual.ln_post(found), tokens_of(model, pixels))


def test_old_names_of_torchvision_are_read() -> None:
    _, tensors = of_torchvision()
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensors[key] for key in tensors}
    tower = read_imagenet_vit(old, "vit.pth", head_width=32)[1]
    key = "transformer.resblocks.1.mlp.c_proj.weight"
    assert torch.equal(tower[key], tensors["encoder.layers.encoder_layer_1.mlp.3.weight"])


def test_other_files_are_refused() -> None:
    _, tensors = of_timm()
    with pytest.raises(WeightsError, match=r"x.pth is no ViT as timm or torchvision publish it"):
        read_imagenet_vit({"layer1.0.conv1.weight": torch.zeros(1)}, "x.pth")
    with pytest.raises(WeightsError, match=r"x.pth is not whole: dist_token is unexpected"):
        read_imagenet_vit({**tensors, "dist_token": torch.zeros(1)}, "x.pth")
    del tensors["blocks.1.mlp.fc1.bias"]
    with pytest.raises(WeightsError, match=r"x.pth is not whole: blocks.1.mlp.fc1.bias is missing"):
        read_imagenet_vit(tensors, "x.pth")
