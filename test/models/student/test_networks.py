# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from clip_seg_ros.models.student.networks import build_network
from nearness import assert_near

SMALL = "timm:mobilenetv3_small_050"


@pytest.mark.parametrize("network", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", SMALL])
def test_logits_of_all_classes_at_any_size(network):
    model = build_network(network, 3).eval()
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape[:2] == (2, 3)
    assert logits.shape[3] * 2 == logits.shape[2] * 3
    assert logits.isfinite().all()


def test_torchvisions_network_is_torchvisions_before_its_last_resize():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    ours = build_network("lraspp_mobilenet_v3_large", 3).eval()
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs(pixels)["out"]
        resized = torch.nn.functional.interpolate(ours(pixels), size=(64, 96), mode="bilinear", align_corners=False)
    assert_near(resized, expected)


@pytest.mark.parametrize("name", ["unet", "timm:unet", "timm:swin_tiny_patch4_window7_224"])
def test_a_network_that_there_is_not(name):
    with pytest.raises(ValueError, match=r"use lraspp_mobilenet_v3_large, deeplab|needed are maps"):
        build_network(name, 3)


def test_deeplabv2_sums_dilated_convolutions_of_a_dilated_backbone():
    from torchvision.models import resnet50

    model = build_network("deeplabv2_resnet50", 16, for_features=True).eval()
    # Beside the head, the names are those of an ImageNet checkpoint.
    imagenet = {name for name in resnet50(weights=None).state_dict() if not name.startswith("fc.")}
    assert {name.removeprefix("backbone.") for name in model.state_dict() if name.startswith("backbone.")} == imagenet
    pixels = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        features = model(pixels)
        whole = model.backbone
        x = whole.layer4(whole.layer3(whole.layer2(whole.layer1(whole.maxpool(whole.bn1(whole.conv1(pixels)).relu())))))
        expected = torch.zeros(1, 16, 8, 12)
        for (convolution, norm, _), dilation in zip(model.aspp, (6, 12, 18, 24), strict=True):
            wide = nn.functional.conv2d(x, convolution.weight, padding=dilation, dilation=dilation)
            expected += norm(wide).relu()
    assert x.shape[2:] == (8, 12)
    assert_near(features, expected)


def test_deeplabv2_may_classify_by_itself():
    model = build_network("deeplabv2_resnet50", 3).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3, 4, 4)
    assert model.conv_seg.out_channels == 3
