# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import save_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.student.model import Student, StudentConfig, TextClassifier, imagenet_input
from clip_seg_ros.training.distillation.start import begin_with


def make_student(network="deeplabv3_mobilenet_v3_large", classes=("a", "b"), classifier=None):
    return Student("s", StudentConfig(network, classes, imagenet_input(64), classifier=classifier))


def filled(tensors, value=0.5):
    return {key: torch.full_like(tensor, value) for key, tensor in tensors.items() if tensor.is_floating_point()}


def test_a_backbone_of_imagenet(tmp_path):
    from torchvision.models import resnet50

    torch.save(filled(resnet50(weights=None).state_dict()), tmp_path / "resnet50.pth")
    student = make_student("deeplabv2_resnet50")
    before = student.network.conv_seg.weight.clone()
    said = begin_with(student, tmp_path / "resnet50.pth")
    assert "taken: backbone (265 tensors)" in said
    assert "new:   aspp (20 tensors), conv_seg (2 tensors)" in said
    backbone = [v for k, v in student.state_dict().items() if "backbone" in k and v.is_floating_point()]
    assert all((value == 0.5).all() for value in backbone)
    assert student.network.conv_seg.weight.equal(before)


def test_a_whole_network_with_other_classes_lends_all_but_its_last_layer(tmp_path):
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    whole = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    torch.save({"model": filled(whole.state_dict())}, tmp_path / "whole.pth")
    student = make_student()
    said = begin_with(student, tmp_path / "whole.pth")
    there = [key for key in whole.classifier.state_dict() if not key.endswith("num_batches_tracked")]
    assert said.splitlines()[1].endswith(f"classifier ({len(there) - 2} tensors)")
    assert said.splitlines()[2] == "  new:   classifier (2 tensors)"
    assert (student.network.classifier[0].project[0].weight == 0.5).all()
    assert not (student.network.classifier[4].weight == 0.5).any()


def test_a_student_lends_all_but_its_classes(tmp_path):
    classifier = TextClassifier("t", 4)
    network = "timm:mobilenetv3_small_050"
    old = make_student(network, classes=("a", "b", "c"), classifier=classifier)
    save_file(filled(old.state_dict()), tmp_path / "old.safetensors")
    student = make_student(network, classes=("a", "d"), classifier=classifier)
    rows = torch.eye(4)[:2]
    student.set_text_embeddings(rows)
    assert "new:   nothing" in begin_with(student, tmp_path / "old.safetensors")
    assert student.text_embeddings.equal(rows)
    assert (student.network.head.conv_seg.weight == 0.5).all()


def test_another_backbone_is_refused(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        WeightsError, match=r"does not hold the backbone of the network deeplabv2_resnet50: .* such as "
    ):
        begin_with(make_student("deeplabv2_resnet50"), tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match="there is no weight file"):
        begin_with(make_student(), tmp_path / "nowhere.pth")
