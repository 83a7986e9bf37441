# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError, save_safetensors, update_sum
from clip_seg_ros.models.clip.backbone import VisionConfig, build_vision_tower
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec
from clip_seg_ros.models.student.model import Student, StudentConfig, TextClassifier, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.build import MODEL_KINDS, build_from_config
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near

CLASSES = ("cup", "book", "background")
SMALL = "timm:mobilenetv3_small_050"


def make_student(network=SMALL, classes=CLASSES):
    torch.manual_seed(0)
    return Student("mine", StudentConfig(network, classes, imagenet_input(64))).eval()


@pytest.fixture
def saved(tmp_path):
    model, path = make_student(), tmp_path / "mine.safetensors"
    save_safetensors(path, model.state_dict(), model.file_config(), half=False)
    update_sum(path)
    return model, path


def test_a_file_gives_the_same_model_back(saved):
    model, path = saved
    built = build_segmenter(str(path))
    assert isinstance(built, Student)
    assert built.config == model.config
    assert not built.training
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert_near(built.encode_image(pixels).logits, model.encode_image(pixels).logits)


def test_configuration_survives_json():
    config = make_student().file_config()
    again = MODEL_KINDS["student"]("mine", json.loads(json.dumps(config)))
    assert again.file_config() == config


def test_weights_are_loaded_all_or_none():
    model = make_student()
    tensors = dict(model.state_dict())
    del tensors["network.head.conv_seg.bias"]
    with pytest.raises(WeightsError, match=r"network\.head\.conv_seg\.bias is missing"):
        build_from_config("mine", model.file_config(), tensors, "here")


def test_a_predictor_asks_some_of_the_classes(saved):
    _model, path = saved
    predictor = Predictor.from_name(str(path), "cpu", engine="eager")
    rgb = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    everything = predictor.predict(rgb, CLASSES).values
    assert everything.shape == (3, 48, 80)
    assert np.allclose(everything.sum(axis=0), 1, rtol=0, atol=1e-5)
    swapped = predictor.predict(rgb, ["book", "cup"]).values
    assert_near(swapped, everything[[1, 0]])
    with pytest.raises(ValueError, match='"fork" is not one of the 3 classes of mine: cup, book, background'):
        predictor.predict(rgb, ["fork"])


def test_decoding_takes_the_classes_in_the_order_that_is_asked():
    model = make_student()
    image = model.encode_image(torch.randn(1, 3, 64, 64))
    logits = model.decode(image, model.encode_text(["background", "cup"]))
    assert torch.equal(logits[:, 0], image.logits[:, 2])
    assert torch.equal(logits[:, 1], image.logits[:, 0])


@pytest.mark.parametrize("classes", [(), ("cup", "cup")])
def test_class_lists_that_name_nothing(classes):
    with pytest.raises(ValueError, match="class names must be there and differ"):
        make_student(classes=classes)


def test_a_configuration_that_describes_no_student():
    config = make_student().file_config()
    for change in ({"network": "unet"}, {"dropout": 1}):
        wrong = {"kind": "student", "student": {**config["student"], **change}}
        with pytest.raises(WeightsError, match="does not describe a model of this version"):
            build_from_config("mine", wrong, {}, "here")


def test_a_student_of_clips_tower_begins_with_its_convolutions(tmp_path):
    visual = build_vision_tower(VisionConfig((1, 1, 1, 1), 16, 64), 32, False).eval()
    spec = InputSpec(64, "short_side", 32, CLIP_MEAN, CLIP_STD)
    student = Student.from_tower("mine", visual, ("cup", "ball", "table"), spec).eval()
    pixels = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        theirs = visual.layer1(visual.stem(pixels))
        assert_near(student.network.backbone.layer1(student.network.backbone.stem(pixels)), theirs)
        logits = student.encode_image(pixels).logits
    assert logits.shape == (2, 3, 16, 24)
    assert not any("attnpool" in name for name in student.state_dict())
    again = Student.from_config("again", student.file_config())
    again.load_state_dict(student.state_dict())
    with torch.inference_mode():
        assert_near(again.eval().encode_image(pixels).logits, logits)


def test_only_the_network_of_clip_has_a_vision_shape():
    for network, vision in (("clip", None), ("fcn_resnet50", VisionConfig((1, 1, 1, 1), 16, 64))):
        with pytest.raises(ValueError, match='the network "clip", and no other, needs the shape of its ResNet'):
            StudentConfig(network, ("cup",), imagenet_input(64), vision)


def worded(classes=CLASSES, seed=0):
    """A student with a classifier of text embeddings, and the embeddings of further words."""
    torch.manual_seed(seed)
    config = StudentConfig(SMALL, classes, imagenet_input(64), classifier=TextClassifier("some-clip", 5))
    student = Student("worded", config).eval()
    rows = torch.randn(len(classes), 5)
    student.set_text_embeddings(rows)
    return student, rows


def test_logits_are_products_of_features_and_unit_embeddings():
    student, rows = worded()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = student.network(pixels)
        logits = student.encode_image(pixels).logits
    assert features.shape[:2] == (2, 5)
    for place in (0, 1):
        expected = (features * (rows[place] / rows[place].norm())[:, None, None]).sum(dim=1)
        assert_near(logits[:, place], expected)
    learnt = student.background.detach()[0]
    assert_near(logits[:, 2], (features * (learnt / learnt.norm())[:, None, None]).sum(dim=1))


def test_training_leaves_the_embeddings_as_they_are_and_learns_the_background():
    student, _ = worded()
    trained = {name for name, _ in student.named_parameters()}
    assert "background" in trained
    assert not any("text_embeddings" in name for name in trained)


def test_the_list_changes_by_rows_and_the_network_is_shared():
    student, rows = worded()
    new = torch.randn(5)
    other = student.with_classes(("jug", "cup"), torch.stack([new, rows[0]]))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before, after = student.encode_image(pixels).logits, other.encode_image(pixels).logits
        features = student.network(pixels)
    assert other.class_names == other.spec.class_names == ("jug", "cup")
    assert student.class_names == CLASSES
    assert before.shape[1] == 3
    assert_near(after[:, 1], before[:, 0])
    assert_near(after[:, 0], (features * (new / new.norm())[:, None, None]).sum(dim=1))
    assert other.network is student.network
    again = Student.from_config("again", other.file_config())
    again.load_state_dict(other.state_dict())
    with torch.inference_mode():
        assert_near(again.eval().encode_image(pixels).logits, after)


def test_lists_that_words_cannot_make():
    student, rows = worded()
    with pytest.raises(ValueError, match='does not tell "jug" from "pot": it may know neither word'):
        student.with_classes(("jug", "cup", "pot"), torch.stack([rows[1], rows[0], rows[1]]))
    with pytest.raises(ValueError, match="class names must be there and differ"):
        student.with_classes(("cup", "cup"), rows[:2])
    with pytest.raises(ValueError, match='trained without a class "background"'):
        worded(("cup", "book"))[0].with_classes(CLASSES, rows)
    with pytest.raises(ValueError, match="the classes of mine are learnt and cannot be changed by words"):
        make_student().with_classes(("jug",), rows[:1])
