# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.student.model import Student, StudentConfig, TextClassifier, imagenet_input
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.writing import store


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    names = ("cup", "table", "background")
    config = StudentConfig(
        "timm:mobilenetv3_small_050", names, imagenet_input(64), classifier=TextClassifier("maskclip-pocket", 128)
    )
    student = Student("mine", config)
    with torch.inference_mode():
        student.set_text_embeddings(build_segmenter("maskclip-pocket").encode_text(names).pooled)
    store(Converted(student.file_config(), student.state_dict()), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_classes_are_added_renamed_and_removed(network, tmp_path, capsys):
    out = tmp_path / "new.safetensors"
    changes = ["--add", "red ball", "plate", "--rename", "cup=mug", "--remove", "table"]
    assert main(["weights", "classes", str(network), *changes, "--out", str(out), "--half"]) == 0
    assert "has the classes mug, background, red ball, plate" in capsys.readouterr().out
    assert build_segmenter(str(out)).class_names == ("mug", "background", "red ball", "plate")
    assert build_segmenter(str(network)).class_names == ("cup", "table", "background")


@pytest.mark.parametrize(
    ("changes", "fault", "code"),
    [
        ([], "nothing is to change", 2),
        (["--rename", "cup"], "--rename wants OLD=WORDS, got cup", 2),
        (["--rename", "jug=mug"], "there is no class jug; the classes are cup, table, background", 2),
        (["--remove", "jug"], "there is no class jug", 2),
        (["--add", "cup"], "class names must be there and differ", 2),
        (["--add", "ball", "--text-tower", "/nowhere.safetensors"], "/nowhere.safetensors does not exist", 1),
        (["--add", "ball", "--out", "model.pt"], "--out must end with .safetensors", 2),
    ],
)
def test_what_is_wrong_is_said(network, tmp_path, changes, fault, code, capsys):
    call = ["weights", "classes", str(network), "--out", str(tmp_path / "new.safetensors"), *changes]
    assert main(call) == code
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "new.safetensors").exists()
