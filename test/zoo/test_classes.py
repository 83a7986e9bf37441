# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.student.model import Student, StudentConfig, TextClassifier, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.classes import with_classes
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.writing import store
from nearness import assert_near
from small_teacher import save_teacher

CLASSES = ("cup", "table", "background")
SMALL = "timm:mobilenetv3_small_050"


@pytest.fixture(scope="module")
def tower():
    return build_segmenter("maskclip-pocket")


@pytest.fixture
def student(tower):
    torch.manual_seed(0)
    classifier = TextClassifier("maskclip-pocket", 128)
    student = Student("mine", StudentConfig(SMALL, CLASSES, imagenet_input(64), classifier=classifier)).eval()
    with torch.inference_mode():
        student.set_text_embeddings(tower.encode_text(CLASSES).pooled)
    return student


def test_words_make_rows_and_known_classes_keep_theirs(student, tower):
    changed = with_classes(student, ("red ball", "background", "cup"))
    assert changed.class_names == ("red ball", "background", "cup")
    with torch.inference_mode():
        assert_near(changed.text_embeddings[0], tower.encode_text(["red ball"]).pooled[0])
    assert torch.equal(changed.text_embeddings[2], student.text_embeddings[0])
    assert changed.background is student.background


def test_a_predictor_answers_with_its_new_list(student, tmp_path):
    path = tmp_path / "mine.safetensors"
    store(Converted(student.file_config(), student.state_dict()), path, half=True)
    predictor = Predictor.from_name(str(path), "cpu", engine="eager")
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    changed = predictor.with_classes(("cup", "plate", "table", "background"))
    values = changed.predict(rgb, ("cup", "plate", "table", "background")).values
    assert np.allclose(values.sum(axis=0), 1, rtol=0, atol=1e-5)
    # A further class takes from all others alike.
    before = predictor.predict(rgb, ("cup", "table")).values
    assert np.allclose(values[0] / values[2], before[0] / before[1], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match='"plate" is not one of the 3 classes'):
        predictor.predict(rgb, ["plate"])


def test_an_engine_with_one_list_is_refused(student):
    predictor = Predictor.from_model(student, "cpu")
    predictor.engine = SimpleNamespace(name="openvino", spec=student.spec)
    with pytest.raises(ValueError, match="the engine openvino runs one list: see `clip-seg weights classes`"):
        predictor.with_classes(("cup", "plate"))


def test_a_list_without_new_words_needs_no_tower(student):
    changed = with_classes(student, ("table", "cup"), tower="/nowhere.safetensors")
    assert changed.class_names == ("table", "cup")


def test_what_cannot_make_the_words_is_said(student, tmp_path):
    with pytest.raises(ValueError, match='maskclip-pocket never learnt zebra of "zebra": use other words'):
        with_classes(student, ("cup", "zebra"))
    with pytest.raises(ValueError, match="holds no text tower for any phrase: name a MaskCLIP"):
        with_classes(student, ("cup", "ball"), tower="clipseg-pocket")
    student.text_embeddings.copy_(torch.randn_like(student.text_embeddings))
    with pytest.raises(WeightsError, match="maskclip-pocket is not the text tower that made the classifier of mine"):
        with_classes(student, ("cup", "ball"))
    learnt = build_segmenter(str(save_teacher(tmp_path / "learnt.safetensors")))
    with pytest.raises(ValueError, match="learnt has no classifier of text embeddings"):
        with_classes(learnt, ("cup", "ball"))
