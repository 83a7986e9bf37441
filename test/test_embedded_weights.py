"""The shipped weights, on scenes that training never saw. The model card has the figures of all 500."""

import subprocess

import pytest

from clip_seg_ros import resources
from clip_seg_ros.data.tabletop import TEST_SEEDS
from clip_seg_ros.evaluation.embedded import evaluate_embedded, summarise
from clip_seg_ros.pipeline.predictor import Predictor


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_name("clipseg-pocket", "cpu")


@pytest.fixture(scope="module")
def figures(predictor):
    found = summarise(evaluate_embedded(predictor, TEST_SEEDS[:48]))
    return {figure["name"].removeprefix("embedded.clipseg."): figure["value"] for figure in found}


def test_named_objects_are_found(figures):
    assert figures["named.count"] > 200
    assert figures["named.mean_iou"] >= 0.65


def test_pairs_that_training_never_saw_are_found(figures):
    assert figures["unseen_pairs.count"] > 20
    assert figures["unseen_pairs.mean_iou"] >= 0.50


def test_what_is_not_there_is_rarely_found(figures):
    assert figures["absent_random.answered"] <= 0.15


def test_a_word_that_the_weights_never_learnt_is_named(predictor):
    assert predictor.model.unknown_words("the red giraffe") == ("giraffe",)
    assert predictor.model.unknown_words("the violet mug") == ()


def test_the_files_are_small_and_match_their_checksums():
    folder = resources.weights_dir()
    files = sorted(folder.glob("*.safetensors"))
    assert [file.name for file in files] == ["clip_pocket.safetensors", "clipseg_pocket.safetensors"]
    assert sum(file.stat().st_size for file in files) <= 25e6
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
