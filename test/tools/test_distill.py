# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch

from clip_seg_ros.data.samples import read_rgb
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near
from small_teacher import CLASSES, SMALL, save_teacher, write_pictures


@pytest.fixture
def teacher(tmp_path):
    return save_teacher(tmp_path / "teacher.safetensors")


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures", 3)


@pytest.fixture
def call(teacher, pictures, tmp_path):
    """Calls the command with few steps; later arguments win over earlier ones."""
    usual = [
        "--images",
        pictures,
        "--classes",
        "cup, book,background",
        "--out",
        tmp_path / "mine.safetensors",
        "--teacher",
        teacher,
        "--network",
        SMALL,
        "--size",
        64,
        "--steps",
        4,
        "--batch",
        2,
        "--confidence",
        0.3,
        "--background-below",
        0,
        "--device",
        "cpu",
    ]

    def call(*more, leave_out=()):
        pairs = [(k, v) for k, v in zip(usual[::2], usual[1::2], strict=True) if k not in leave_out]
        arguments = [str(value) for pair in pairs for value in pair] + [str(value) for value in more]
        return main(["distill", *arguments])

    return call


def test_from_pictures_to_a_model_that_is_served(call, pictures, tmp_path, capsys):
    (pictures / "1x.png").write_bytes(b"broken")
    assert call() == 0
    said = capsys.readouterr().out
    assert "skipped: " in said
    assert "3 pictures labelled, 1 skipped because they cannot be read" in said
    assert "pixels: " in said
    assert "unsure and ignored" in said
    assert "self-training" not in said
    assert "agreement with the teacher where it is sure: " in said
    assert "  IoU: " in said
    assert "an image, on cpu: teacher " in said
    assert " ms, student " in said
    grid = cv2.imread(str(tmp_path / "mine.png"))
    assert grid.shape == (22 + 240 + 22, 960, 3)
    predictor = Predictor.from_name(str(tmp_path / "mine.safetensors"), "cpu", engine="eager")
    assert predictor.spec.class_names == CLASSES
    assert predictor.predict(np.zeros((48, 64, 3), np.uint8), ["book"]).values.shape == (1, 48, 64)


def test_the_same_command_again_trains_no_further(call, tmp_path, capsys):
    assert call("--work", tmp_path / "work") == 0
    first = (tmp_path / "mine.safetensors").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.png")}
    assert len(stamps) == 3 + 3  # pictures and the teacher's labels
    assert call("--work", tmp_path / "work") == 0
    assert (tmp_path / "mine.safetensors").read_bytes() == first
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert call("--work", tmp_path / "work", "--steps", 6) == 2
    assert "belongs to a run with another recipe: use another folder" in capsys.readouterr().err


def test_self_training_is_judged_on_pictures_of_its_own(call, tmp_path, capsys):
    assert call("--self-share", 0.25) == 0
    assert "before self-training, " in capsys.readouterr().out
    parts = {path.parent.name: [] for path in (tmp_path / "mine.work").rglob("*.png")}
    for path in sorted((tmp_path / "mine.work").rglob("*.png")):
        parts[path.parent.name].append(int(path.stem))
    # Of three pictures the first measures, the last chooses, and one trains.
    assert parts == {"pictures": [0, 1, 2], "labels": [0, 1, 2], "self_2": [1]}


def test_the_teacher_may_label_what_the_network_sees(call, tmp_path, capsys):
    assert call("--labels", "views", "--crop", 32, "--scales", 0.5, 2, "--optimizer", "sgd", "--half") == 0
    said = capsys.readouterr().out
    assert "1 pictures labelled, 0 skipped" in said
    assert [path.name for path in (tmp_path / "mine.work" / "labels").iterdir()] == ["000000.png"]
    assert (tmp_path / "mine.safetensors").stat().st_size < 2.5e6


def test_a_network_that_words_extend(call, tmp_path, capsys):
    asked = ["--teacher", "maskclip-pocket", "--classes", "cup,table", "--denoising", 0]
    assert call(*asked, "--no-background", "--confidence", 0) == 0
    assert "was added" not in capsys.readouterr().out
    path = tmp_path / "mine.safetensors"
    made = build_segmenter(str(path))
    assert made.class_names == ("cup", "table")
    assert made.config.classifier.tower == "maskclip-pocket"
    tower = build_segmenter("maskclip-pocket")
    with torch.inference_mode():
        assert_near(made.text_embeddings, tower.encode_text(["cup", "table"]).pooled)
    changed = Predictor.from_name(str(path), "cpu", engine="eager").with_classes(["mug", "table", "red ball"])
    assert changed.predict(np.zeros((48, 64, 3), np.uint8), ["mug", "red ball"]).values.shape == (2, 48, 64)
    assert call(*asked, "--classifier", "learnt", "--out", tmp_path / "learnt.safetensors") == 0
    assert build_segmenter(str(tmp_path / "learnt.safetensors")).config.classifier is None
    assert call("--classifier", "text") == 2
    assert "--classifier text needs a MaskCLIP as the teacher" in capsys.readouterr().err


def test_a_network_begins_with_a_file(call, tmp_path, capsys):
    assert call() == 0
    assert call("--out", tmp_path / "second.safetensors", "--start", tmp_path / "mine.safetensors", "--steps", 1) == 0
    said = capsys.readouterr().out
    assert f"the network begins with {tmp_path / 'mine.safetensors'}\n  taken: backbone (" in said
    assert call("--start", tmp_path / "mine.safetensors", "--network", "teacher") == 2
    assert "both say what to begin with" in capsys.readouterr().err
    assert call("--start", tmp_path / "nowhere.pth") == 1
    assert "there is no weight file" in capsys.readouterr().err


@pytest.fixture
def zero_shot(call, tmp_path):
    """Calls the command on a folder of six pictures with labels of four classes."""
    root = tmp_path / "labelled"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("cup\nbook\nball\ntable\n")
    for index in range(6):
        rng = np.random.default_rng(index)
        cv2.imwrite(str(root / "images" / f"{index}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
        cv2.imwrite(str(root / "labels" / f"{index}.png"), rng.integers(0, 4, (48, 64), np.uint8))

    def zero_shot(*more, leave_out=()):
        left_out = ("--images", "--classes", "--confidence", "--background-below", *leave_out)
        asked = ["--data", f"labelled_folder:{root}", "--teacher", "maskclip-pocket", "--steps", 10]
        return call(*asked, *more, leave_out=left_out)

    return zero_shot


def test_unseen_classes_learn_from_pseudo_labels(zero_shot, tmp_path, capsys):
    assert zero_shot("--unseen", "ball,book") == 0
    said = capsys.readouterr().out
    assert "2 seen classes; unseen: ball, book" in said
    assert f"clip-seg evaluate --model {tmp_path / 'mine.safetensors'} --data DATA --unseen ball,book" in said
    made = build_segmenter(str(tmp_path / "mine.safetensors"))
    assert made.class_names == ("cup", "book", "ball", "table")
    assert made.config.classifier is not None
    without = tmp_path / "without.safetensors"
    assert zero_shot("--unseen", "ball,book", "--without-pseudo-labels", "--out", without) == 0
    assert without.is_file()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--unseen", "fork"], "fork is no class of the data set"),
        (["--unseen", "ball", "--classes", "cup"], "--classes does not go with --unseen"),
        (["--unseen", "ball", "--labels", "views"], "--labels does not go with --unseen"),
        (["--unseen", "ball", "--guided-share", "2"], "share of guided steps must lie in 0..1"),
        (["--without-pseudo-labels"], "--without-pseudo-labels goes with --unseen"),
    ],
)
def test_wrong_arguments_of_the_zero_shot_setting(zero_shot, arguments, fault, capsys):
    assert zero_shot(*arguments) == 2
    assert fault in capsys.readouterr().err


def test_unseen_classes_need_true_labels_of_the_others(call, capsys):
    assert call("--unseen", "ball", leave_out=("--classes",)) == 2
    assert "--unseen needs true labels of the other classes: give --data or --rendered" in capsys.readouterr().err


def test_a_bag_of_images(call, pictures, tmp_path, capsys):
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    ros, kind = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/CompressedImage"
    stamp = ros.types["std_msgs/msg/Header"](ros.types["builtin_interfaces/msg/Time"](0, 0), "camera")
    with Writer(tmp_path / "bag", version=9) as writer:
        for topic in ("/left", "/right"):
            connection = writer.add_connection(topic, kind, typestore=ros)
            for index in range(4):
                data = np.frombuffer((pictures / f"{index % 3}.png").read_bytes(), np.uint8)
                writer.write(connection, index, ros.serialize_cdr(ros.types[kind](stamp, "png", data), kind))
    bag = ["--bag", tmp_path / "bag"]
    assert call(*bag, leave_out=("--images",)) == 2
    assert "name one of them: /left (4 pictures), /right (4 pictures)" in capsys.readouterr().err
    assert call(*bag, "--topic", "/left", "--every", 2, leave_out=("--images",)) == 0
    assert "2 pictures labelled, 0 skipped" in capsys.readouterr().out


def test_the_teachers_tower_is_a_network_too(call, tmp_path, capsys):
    # The teacher of these tests has no CLIP.
    assert call("--network", "teacher") == 2
    assert "--network teacher needs a teacher with a ResNet of CLIP's" in capsys.readouterr().err
    assert call("--teacher", "maskclip-pocket", "--network", "teacher", "--classes", "cup,table,floor") == 0
    made = build_segmenter(str(tmp_path / "mine.safetensors"))
    assert made.config.network == "clip"
    assert made.class_names[:3] == ("cup", "table", "floor")
    assert "training never saw" in capsys.readouterr().out


def test_rendered_scenes_are_pictures_too(call, tmp_path, capsys):
    assert call("--rendered", 3, leave_out=("--images",)) == 0
    assert "3 pictures labelled, 0 skipped" in capsys.readouterr().out
    stored = sorted((tmp_path / "mine.work" / "pictures").glob("*.png"))
    assert [read_rgb(path).shape for path in stored] == [(480, 640, 3)] * 3
    assert call("--rendered", 0, leave_out=("--images",)) == 2
    assert "--rendered must be at least 1, got 0" in capsys.readouterr().err


def test_a_data_set_brings_pictures_and_classes(call, pictures, tmp_path, capsys):
    for path in pictures.iterdir():
        labels = tmp_path / "mine/labels" / path.name
        labels.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(labels), np.zeros((64, 88), np.uint8))
    pictures.rename(tmp_path / "mine/images")
    (tmp_path / "mine/classes.txt").write_text("cup\nbackground\n")
    data = ["--data", f"labelled_folder:{tmp_path / 'mine'}"]
    assert call(*data, leave_out=("--images", "--classes")) == 0
    said = capsys.readouterr().out
    assert "3 pictures labelled, 0 skipped" in said
    assert f"clip-seg evaluate --model {tmp_path / 'mine.safetensors'} --data labelled_folder:{tmp_path}" in said
    predictor = Predictor.from_name(str(tmp_path / "mine.safetensors"), "cpu", engine="eager")
    assert predictor.spec.class_names == ("cup", "background")
    (tmp_path / "mine/phrases.csv").write_text("image,mask,phrase\nimages/0.png,,cup\n")
    for wrong, leave_out, fault in (
        (["--data", f"folder:{tmp_path / 'mine'}"], ("--images", "--classes"), "holds phrases and no classes"),
        ([*data, "--every", 2], ("--images",), "--topic and --every go with --bag"),
        (["--data", "mine"], ("--images",), "--data must be a .yaml file or KIND:ROOT"),
        ([], ("--classes",), "--classes is missing"),
    ):
        assert call(*wrong, leave_out=leave_out) == 2
        assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--images", "/nowhere"], "there is no folder /nowhere"),
        (["--classes", " , "], "--classes is empty: name what to tell apart"),
        (["--classes", "cup,cup"], "holds a name twice"),
        (["--classes", "cup,fork"], "teacher knows a fixed list of classes, without fork"),
        (["--network", "unet"], 'there is no network "unet": use lraspp_mobilenet_v3_large, deeplabv3_mobilenet'),
        (["--teacher", "sam"], 'there is no model "sam": use clipseg-pocket'),
        (["--out", "model.pt"], "--out must end with .safetensors, got model.pt"),
        (["--size", "32"], "--size must be at least 64, got 32"),
        (["--steps", "0"], "needed are 1 step"),
        (["--device", "tpu"], 'unknown device "tpu"'),
        (["--topic", "/camera"], "--topic and --every go with --bag"),
        (["--confidence", "2"], "confidence must lie in 0..1"),
    ],
)
def test_wrong_arguments_are_said(call, arguments, fault, capsys):
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("clip-seg distill: ")
    assert fault in said


def test_a_folder_without_pictures(call, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert call("--images", tmp_path / "empty") == 2
    assert "holds no pictures" in capsys.readouterr().err


def test_weights_that_are_not_here_are_no_wrong_call(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "cache"))
    assert call("--teacher", "maskclip-vit-b16") == 1
    assert "type `clip-seg weights download maskclip-vit-b16`" in capsys.readouterr().err


def test_unknown_words_dropped_classes_and_the_added_background_are_said(call, tmp_path, capsys):
    assert call("--teacher", "maskclip-pocket", "--classes", "cup,zebra", "--confidence", 0.2) == 0
    said = capsys.readouterr().out
    assert 'maskclip-pocket never learnt zebra of "zebra"' in said
    assert '"background" was added for what is none of them' in said
    predictor = Predictor.from_name(str(tmp_path / "mine.safetensors"), "cpu", engine="eager")
    assert predictor.spec.class_names == ("cup", "zebra", "background")


def test_classes_that_are_never_a_label_are_named(call, tmp_path, capsys):
    assert call("--teacher", save_teacher(tmp_path / "sure.safetensors", never=1)) == 0
    assert "dropped: book. The teacher is sure of them in no picture" in capsys.readouterr().out


def test_a_teacher_that_is_sure_of_nothing_teaches_nothing(call, tmp_path, capsys):
    assert call("--teacher", save_teacher(tmp_path / "vague.safetensors", sureness=0.01)) == 2
    assert "vague is sure of no class anywhere: lower --confidence" in capsys.readouterr().err
