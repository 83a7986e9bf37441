# SPDX-License-Identifier: Apache-2.0
"""Annotations are measured against the truth of a recording: each error changes the figure that is about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.data.coco_masks import decode_segmentation, encode_runs
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.evaluation.annotation_files import TrueImage, TrueObject, true_images
from clip_seg_ros.evaluation.annotations import compare, is_named
from clip_seg_ros.sources.recorded_table import RecordingPlan, write_recording
from clip_seg_ros.tools.cli import main

PLAN = RecordingPlan(seconds=0.6, cameras=2, size=(160, 120))
ABSENT = "green ball"


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "table.mcap"
    assert list(write_recording(path, PLAN))[-1] == 12
    return path


@pytest.fixture(scope="module")
def perfect(recording) -> dict[str, Any]:
    """A COCO file that says the truth, with other ids."""
    names = (*PLAN.names, ABSENT)
    content: dict[str, Any] = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "images": [],
        "annotations": [],
    }
    for number, truth in enumerate(true_images(recording), start=1):
        add(content, number, truth)
    return content


def add(content: dict[str, Any], number: int, truth: TrueImage) -> None:
    height, width = truth.labels.shape
    topic = f"{truth.camera}/color/image_raw/compressed"
    image = {"id": number, "width": width, "height": height, "source": f"table{truth.camera.replace('/', '_')}"}
    content["images"].append({**image, "topic": topic, "stamp_ns": truth.stamp_ns})
    for each in truth.objects:
        entry = {
            "id": len(content["annotations"]) + 1,
            "image_id": number,
            "category_id": 1 + PLAN.names.index(each.name),
            "segmentation": encode_runs(truth.labels == each.label),
            "track_id": 40 + each.label,
            "position_m": each.position_m,
        }
        content["annotations"].append(entry)


@pytest.fixture
def measured(recording, perfect, tmp_path) -> Callable[[Callable[[dict], None]], dict[str, float]]:
    """Returns the figures of the perfect file after a change."""

    def measure(change: Callable[[dict], None]) -> dict[str, float]:
        content = deepcopy(perfect)
        change(content)
        (tmp_path / COCO).parent.mkdir(exist_ok=True)
        (tmp_path / COCO).write_text(json.dumps(content))
        return {figure.name.removeprefix("annotations."): figure.value for figure in compare(tmp_path, recording)}

    return measure


def test_the_truth_has_no_errors(measured) -> None:
    figures = measured(lambda content: None)

    assert (figures["images"], figures["images_left_out"]) == (12, 0)
    assert (figures["coco.mean_iou"], figures["coco.precision_at_50"], figures["coco.false_objects"]) == (1, 1, 0)
    assert (figures["coco.found"], figures["coco.stray_objects"]) == (1, 0)
    assert figures["ids_right"] == 1
    assert figures["position_error_cm"] == 0
    assert {name for name in figures if name.startswith("phrases.")} <= {f"phrases.{name}" for name in PLAN.names}


def test_half_a_mask_is_half_the_iou(measured) -> None:
    def halve(content: dict) -> None:
        for each in content["annotations"]:
            runs = each["segmentation"]["counts"]
            width, height = 160, 120
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            covered = np.flatnonzero(inside)
            inside[covered[: len(covered) // 2]] = False
            each["segmentation"] = encode_runs(inside.reshape(width, height).T)

    figures = measured(halve)

    assert figures["coco.mean_iou"] == pytest.approx(0.5, abs=0.02)


def test_what_is_missed_counts_as_nothing(measured) -> None:
    def drop(content: dict) -> None:
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] > 6]

    figures = measured(drop)

    assert figures["coco.mean_iou"] == figures["coco.precision_at_50"] == pytest.approx(0.5, abs=0.05)
    assert figures["coco.found"] == pytest.approx(0.5, abs=0.05)
    assert figures["ids_right"] == 0.5


def test_an_object_of_an_absent_phrase_is_false(measured) -> None:
    def invent(content: dict) -> None:
        for image in content["images"][:3]:
            first = content["annotations"][0]
            content["annotations"].append({**first, "image_id": image["id"], "category_id": 1 + len(PLAN.names)})

    figures = measured(invent)

    assert figures["coco.false_objects"] == 0.25
    assert figures["coco.mean_iou"] == 1


def test_a_second_object_on_one_thing_is_a_stray(measured) -> None:
    figures = measured(lambda content: content["annotations"].append(dict(content["annotations"][0], track_id=99)))

    assert figures["coco.stray_objects"] == pytest.approx(1 / 12, abs=1e-3)
    assert (figures["coco.mean_iou"], figures["coco.found"], figures["ids_right"]) == (1, 1, 1)


def test_an_object_with_another_id_in_one_image_makes_that_image_wrong(measured) -> None:
    def rename(content: dict) -> None:
        content["annotations"][0]["track_id"] = 99

    assert measured(rename)["ids_right"] == pytest.approx(11 / 12, abs=1e-3)


def test_an_id_that_something_else_has_too_makes_that_image_wrong(measured) -> None:
    def double(content: dict) -> None:
        first = content["annotations"][0]
        nothing = encode_runs(np.indices((120, 160)).sum(0) < 3)
        content["annotations"].append({**first, "segmentation": nothing})

    figures = measured(double)

    assert figures["coco.found"] == 1
    assert figures["ids_right"] == pytest.approx(11 / 12, abs=1e-3)


def test_what_covers_its_object_badly_may_have_its_id(measured) -> None:
    def shrink(content: dict) -> None:
        for each in content["annotations"][:1]:
            truth = decode_segmentation(each["segmentation"], 120, 160)
            each["segmentation"] = encode_runs(truth & (np.cumsum(truth).reshape(truth.shape) <= truth.sum() // 4))

    figures = measured(shrink)

    assert figures["coco.found"] < 1
    assert figures["ids_right"] == 1


def test_two_objects_with_one_id_are_wrong(measured) -> None:
    def merge(content: dict) -> None:
        for each in content["annotations"]:
            each["track_id"] = 1

    assert measured(merge)["ids_right"] == 0


def test_what_is_not_tracked_has_no_right_id(measured) -> None:
    def forget(content: dict) -> None:
        for each in content["annotations"]:
            each["track_id"] = 0

    assert measured(forget)["ids_right"] == 0


def test_positions_are_compared_in_cm(measured) -> None:
    def shift(content: dict) -> None:
        for each in content["annotations"]:
            x, y, z = each["position_m"]
            each["position_m"] = [x, y, z + 0.02]

    assert measured(shift)["position_error_cm"] == pytest.approx(2)


def test_images_that_were_left_out_are_counted(measured) -> None:
    figures = measured(lambda content: content["images"].pop())

    assert (figures["images"], figures["images_left_out"]) == (11, 1)


def test_the_other_camera_need_not_be_annotated(measured) -> None:
    def one(content: dict) -> None:
        content["images"] = [each for each in content["images"] if each["topic"].startswith("/camera_1/")]

    figures = measured(one)

    assert (figures["images"], figures["images_left_out"]) == (6, 0)


def test_objects_that_hardly_show_do_not_count(recording) -> None:
    from clip_seg_ros.evaluation.annotation_files import AnnotatedImage
    from clip_seg_ros.evaluation.annotations import AnnotationMeter

    labels = np.zeros((100, 100), np.uint8)
    labels[0, :9] = 1
    meter = AnnotationMeter(["red cup"])
    meter.add(AnnotatedImage("/a/b", 0, ()), TrueImage("/a", 0, labels, (TrueObject("red cup", 1, None),)))
    assert {figure.name for figure in meter.figures()} == {
        "annotations.images",
        "annotations.coco.pairs",
        "annotations.coco.false_objects",
        "annotations.coco.stray_objects",
    }
    labels[0, :10] = 1
    meter.add(AnnotatedImage("/a/b", 1, ()), TrueImage("/a", 1, labels, (TrueObject("red cup", 1, None),)))
    assert {figure.name: figure.value for figure in meter.figures()}["annotations.coco.mean_iou"] == 0


@pytest.mark.parametrize(
    ("phrase", "is_so"),
    [("red cup", True), ("cup", True), ("red thing", True), ("mug", True), ("blue cup", False), ("giraffe", False)],
)
def test_phrases_name_objects(phrase, is_so) -> None:
    assert is_named(phrase, "red cup") == is_so


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content["images"].append(content["images"][0]), "two images of /camera_1/color"),
        (lambda content: content["images"][0].pop("stamp_ns"), "'stamp_ns' is missing"),
        (lambda content: content["annotations"][0].update(segmentation={"size": [2, 2], "counts": [4]}), "of size"),
        (lambda content: content.update(images=[]), "came from a recording"),
        (lambda content: [each.update(stamp_ns=7 + each["id"]) for each in content["images"]], "the truth of none"),
    ],
)
def test_what_cannot_be_compared_is_said(measured, change, why) -> None:
    with pytest.raises(DataError, match=why):
        measured(change)


def test_a_recording_without_truth_is_refused(recording, measured, tmp_path) -> None:
    from clip_seg_ros.sources.bag_writing import BagWriter

    measured(lambda content: None)
    with BagWriter(tmp_path / "bare.mcap") as bag:
        bag.add("/notes", bag.messages.text("nothing"), 0)

    with pytest.raises(DataError, match="has no truth: none of its topics ends with /ground_truth/labels"):
        compare(tmp_path, tmp_path / "bare.mcap")


def test_the_command_writes_the_figures(recording, measured, tmp_path, capsys) -> None:
    measured(lambda content: None)
    target = tmp_path / "figures.json"

    assert main(["evaluate", "--annotations", str(tmp_path), "--truth", str(recording), "--json", str(target)]) == 0
    figures = {each["name"]: each["value"] for each in json.loads(target.read_text())}
    assert figures["annotations.coco.mean_iou"] == 1
    assert "mean_iou" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["--annotations", "x"], 2, "give --annotations and --truth"),
        (["--annotations", "x", "--truth", "y", "--suite", "edges"], 2, "--suite does not go with --annotations"),
        (["--annotations", "x", "--truth", "y"], 1, "is missing: annotate with the format coco first"),
    ],
)
def test_a_wrong_call_is_said(options, code, why, capsys) -> None:
    assert main(["evaluate", *options]) == code
    assert why in capsys.readouterr().err
