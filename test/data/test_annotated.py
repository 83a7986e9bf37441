# SPDX-License-Identifier: Apache-2.0
"""What a run of ``clip-seg annotate`` wrote, as a data set in which doubtful objects do not count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotated_run import PHRASES, Run, rendered_run
from clip_seg_ros.annotation.formats import FORMATS
from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.samples import IGNORED, DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = rendered_run(tmp_path_factory.mktemp("run"), {"kitchen.left": 10})
    for name in ("coco", "labels"):
        FORMATS[name](made.out, made.frames, made.job)
    return made


def opened(run: Run, **options: object):
    return open_dataset({"kind": "annotated", "root": str(run.out), **options})


def test_labels_are_those_of_the_label_images(run: Run) -> None:
    dataset, images = opened(run), open_dataset({"kind": "labelled_folder", "root": str(run.out)})
    assert dataset.class_names == images.class_names == ("background", *PHRASES)
    assert dataset.names == images.names
    for index in range(len(dataset)):
        assert np.array_equal(dataset[index].labels, images[index].labels)
        assert np.array_equal(dataset[index].rgb, images[index].rgb)


def test_doubtful_objects_are_neither_learnt_nor_wrong(run: Run) -> None:
    dataset = opened(run, task="instances")
    crowd = [flag for index in range(len(dataset)) for flag in dataset[index].crowd]
    assert crowd == [thing.band == "doubtful" for frame in run.images for thing in frame.objects]
    assert any(crowd)


def test_the_parts_share_no_image(run: Run) -> None:
    train, val = opened(run, split="train"), opened(run, split="val")
    assert train.names == tuple(f"kitchen.left/{number:06d}" for number in range(8))
    assert val.names == ("kitchen.left/000008", "kitchen.left/000009")
    assert len(opened(run)) == 10


def test_phrases_know_what_was_not_found(run: Run) -> None:
    dataset = opened(run, task="phrases")
    absent = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        frame = next(frame for frame in run.images if sample.name.startswith(Path(frame.picture).stem, 13))
        things = [thing for thing in frame.objects if thing.prompt == sample.phrase]
        sure = [thing.mask(frame.size) for thing in things if thing.band == "sure"]
        assert np.array_equal(sample.mask, np.logical_or.reduce([np.zeros(frame.size, bool), *sure]))
        assert sample.ignored.any() == any(thing.band == "doubtful" for thing in things)
        if not things:
            absent.add(frame.picture)
    assert len(absent) == sum({thing.prompt for thing in frame.objects} != set(PHRASES) for frame in run.images)


def test_what_a_person_accepted_counts(run: Run, tmp_path: Path) -> None:
    content = json.loads((run.out / COCO).read_text(encoding="utf-8"))
    for entry in content["annotations"]:
        entry["decided"] = "accepted"
    (tmp_path / COCO).parent.mkdir()
    (tmp_path / COCO).write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "images").symlink_to(run.out / "images")
    dataset = opened(replace(run, out=tmp_path))
    assert all((dataset[index].labels != IGNORED).all() for index in range(len(dataset)))


def test_a_file_that_another_program_wrote_is_cut_by_its_order(run: Run, tmp_path: Path) -> None:
    content = json.loads((run.out / COCO).read_text(encoding="utf-8"))
    plain = ("id", "file_name", "width", "height")
    content["images"] = [{key: entry[key] for key in plain} for entry in content["images"]]
    (tmp_path / COCO).parent.mkdir()
    (tmp_path / COCO).write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "images").symlink_to(run.out / "images")
    assert opened(replace(run, out=tmp_path), split="val").names == ("kitchen.left/000008", "kitchen.left/000009")


def test_a_folder_without_annotations_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip-seg annotate writes it"):
        open_dataset({"kind": "annotated", "root": str(tmp_path)})


def test_too_few_images_for_a_part_are_reported(tmp_path: Path) -> None:
    run = rendered_run(tmp_path, {"kitchen": 1})
    FORMATS["coco"](run.out, run.frames, run.job)
    with pytest.raises(DataError, match="none is for val"):
        opened(run, split="val")
