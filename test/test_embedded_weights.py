# SPDX-License-Identifier: Apache-2.0
"""The shipped weights, on scenes that training never saw. The model cards have the figures of more scenes."""

import subprocess

import pytest

from clip_seg_ros import resources
from clip_seg_ros.data.tabletop import held_out_seeds
from clip_seg_ros.evaluation.suite import run_suite
from clip_seg_ros.evaluation.suites.embedded_classes import ClassExaminer
from clip_seg_ros.evaluation.suites.embedded_suite import PARTS, examiners, parts_there
from clip_seg_ros.pipeline import separation
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS, build_maskclip_pocket, embedded_models

STUDENT, TEACHER = "maskclip-plus-pocket", "maskclip-pocket"
SUCCESSORS = ("sclip", "clearclip", "naclip")


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_name("clipseg-pocket", "cpu", engine="eager")


@pytest.fixture(scope="module")
def figures():
    parts = ["phrases", "examples", "relations", "classes", "instances", "maskclip_plus_zero_shot"]
    asked = examiners(parts, "cpu", None)
    named = {name: Predictor.from_name(name, "cpu", engine="eager") for name in (STUDENT, TEACHER)}
    for name, variant in (("value_path", "maskclip"), *zip(SUCCESSORS, SUCCESSORS)):
        model = build_maskclip_pocket(resources.weights_dir(), "resnet", pamr_iterations=0, variant=variant)
        named[name] = Predictor.from_model(model.eval(), "cpu")
    asked.append(ClassExaminer(named))
    found = run_suite(asked, held_out_seeds(40))
    return {figure.name.removeprefix("embedded."): figure.value for figure in found}


def test_named_objects_are_found(figures):
    assert figures["clipseg.named.count"] > 200
    assert figures["clipseg.named.mean_iou"] >= 0.75
    assert figures["clipseg.named_unseen_scenes.mean_iou"] >= 0.65


def test_pairs_that_training_never_saw_are_found(figures):
    assert figures["clipseg.unseen_pairs.count"] > 20
    assert figures["clipseg.unseen_pairs.mean_iou"] >= 0.55


def test_what_is_not_there_is_rarely_found(figures):
    assert figures["clipseg.absent_random.answered"] <= 0.10
    assert figures["clipseg.absent_hard.answered"] <= 0.25


def test_an_example_shows_what_is_meant_best_when_the_rest_is_taken_away(figures):
    assert figures["clipseg.example.blur_dark_crop.mean_iou"] >= 0.55
    assert figures["clipseg.example.blur_dark_crop.mean_iou"] > figures["clipseg.example.none.mean_iou"] + 0.3


def test_denseclip_names_every_pixel(figures):
    assert figures["denseclip.miou"] >= 0.75


def test_objects_are_told_apart_where_they_touch(figures):
    assert figures["denseclip_instances.ap50"] >= 0.85
    assert figures["denseclip_instances.touching.count"] > 4
    assert figures["denseclip_instances.touching.found"] >= 0.8
    assert (
        figures["denseclip_instances.touching.found"]
        > (figures["denseclip_instances.touching.found_by_connected_parts"])
    )


def test_cris_knows_how_objects_lie_and_clipseg_does_not(figures):
    assert figures["relations.count"] > 60
    assert figures["cris.relations.mean_iou"] >= 0.60
    assert figures["cris.relations.pr_at_50"] >= 0.68
    assert figures["clipseg.relations.mean_iou"] < 0.1


def test_what_learnt_from_maskclip_without_labels_is_above_it(figures):
    assert figures[f"{STUDENT}.miou"] > figures[f"{TEACHER}.miou"] > 0.5


def test_the_successors_of_maskclip_are_no_worse_than_it(figures):
    for name in SUCCESSORS:
        # On all held-out scenes all three are above it; on these few, SCLIP is 0.016 below it.
        assert figures[f"{name}.miou"] >= figures["value_path.miou"] - 0.025


def test_classes_without_labels_are_learnt_from_pseudo_labels(figures):
    assert figures["maskclip_plus.zero_shot.seen_iou"] >= 0.65
    assert figures["maskclip_plus.zero_shot.unseen_iou"] >= 0.5


def test_a_word_that_the_weights_never_learnt_is_named(predictor):
    assert predictor.spec.unknown_words("the red giraffe") == ("giraffe",)
    assert predictor.spec.unknown_words("the violet mug") == ()


def test_the_files_are_small_and_match_their_checksums():
    folder = resources.weights_dir()
    files = sorted(folder.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 60e6
    needed = {file for name in embedded_models() for file in EMBEDDED_MODELS[name].files}
    # The separator comes after any model.
    needed.add(separation.FILE)
    assert {file.name for file in files} == needed, "every file belongs to a model, and every model has its files"
    assert set(parts_there(None)) == {*PARTS} - {"maskclip_vit"}
    assert [file.name for file in files if not file.with_suffix(".md").is_file()] == [], "each file has a card"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
