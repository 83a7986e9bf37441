# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import pytest

from clip_seg_ros import resources
from clip_seg_ros.evaluation.suites.embedded import PhraseExaminer
from clip_seg_ros.evaluation.suites.embedded_classes import ClassExaminer
from clip_seg_ros.evaluation.suites.embedded_examples import ExampleExaminer
from clip_seg_ros.evaluation.suites.embedded_suite import PARTS, examiners, parts_there
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of the embedded CLIPSeg alone."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("SHA256SUMS", "clip_pocket.safetensors", "clipseg_pocket.safetensors"):
        shutil.copy(resources.weights_dir() / name, folder)
    return folder


def test_parts_ask_models_that_there_are():
    assert {model for models in PARTS.values() for model in models} == set(EMBEDDED_MODELS)


def test_the_parts_that_are_there_are_those_with_all_their_weights(weights, tmp_path):
    assert parts_there(weights) == ["phrases", "examples", "maskclip"]
    assert parts_there(tmp_path) == []
    (tmp_path / "cris_pocket.safetensors").touch()
    assert parts_there(tmp_path) == [], "relations are asked of CLIPSeg too"


def test_the_chosen_parts_are_made_in_the_suites_order(weights):
    asked = examiners(["maskclip", "examples", "phrases"], "cpu", weights)
    assert [type(each) for each in asked] == [PhraseExaminer, ExampleExaminer, ClassExaminer]
    assert examiners([], "cpu", weights) == []


def test_all_models_see_images_resized_as_asked(weights):
    asked = examiners(["phrases"], "cpu", weights, antialias=False)
    assert not asked[0]._predictor.spec.input.antialias


def test_maskclip_is_examined_with_its_refinements_and_its_successors(weights, held_out):
    (examiner,) = examiners(["maskclip"], "cpu", weights)
    examiner.examine(*held_out[0])
    accuracy = {
        figure.name.split(".")[3]: figure.value
        for figure in examiner.figures()
        if figure.name.endswith(".pixel_accuracy")
    }
    refinements = ["plain", "key_smoothing", "prompt_denoising", "both", "pamr"]
    assert list(accuracy) == [*refinements, "sclip", "clearclip", "naclip"]
    assert all(0 < value <= 1 for value in accuracy.values())
    assert len(set(accuracy.values())) >= 3, "the refinements change the answers"


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("relations", "cris_pocket"),
        ("classes", "denseclip_pocket"),
        ("instances", "denseclip_instances_pocket"),
        ("maskclip_vit", "clip_vit_pocket"),
        ("maskclip_plus", "maskclip_plus_pocket"),
        ("maskclip_plus_zero_shot", "maskclip_plus_zero_shot_pocket"),
    ],
)
def test_missing_weights_are_named(weights, part, file):
    with pytest.raises(WeightsError, match=f"{file}.safetensors"):
        examiners(["phrases", part], "cpu", weights)


def test_an_unknown_device_is_named(weights):
    with pytest.raises(ValueError, match='unknown device "abacus"'):
        examiners(["phrases"], "abacus", weights)
