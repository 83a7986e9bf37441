# SPDX-License-Identifier: Apache-2.0
"""What is written of a run is read by the tools that people use, is the same each time, and needs no memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from annotated_run import FIRST_NS, PHRASES, Run, rendered_run
from clip_seg_ros.annotation.formats import FORMATS, READING_IMAGES
from clip_seg_ros.annotation.polygons import mask_polygon
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.writing import class_names, is_sure
from clip_seg_ros.annotation.written_labels import label_palette
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.coco_masks import compressed_runs
from clip_seg_ros.data.samples import IGNORED, DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = rendered_run(tmp_path_factory.mktemp("run"), {"kitchen": 6, "bench": 2})
    for write in FORMATS.values():
        write(made.out, made.frames, made.job)
    return made


def test_writes_the_same_bytes_again(run: Run) -> None:
    files = [path for path in run.out.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    for write in FORMATS.values():
        write(run.out, run.frames, run.job)
    assert {path: path.read_bytes() for path in run.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FORMATS)
def test_which_formats_read_the_kept_images_is_known(name: str, run: Run, tmp_path: Path) -> None:
    frame = replace(run.images[0], topic="/camera/color/image_raw")
    try:
        FORMATS[name](tmp_path, lambda: iter([frame]), run.job)
    except (OSError, DataError):
        assert name in READING_IMAGES
    else:
        assert name not in READING_IMAGES


def test_a_failure_leaves_the_old_file_and_no_other(run: Run, tmp_path: Path) -> None:
    FORMATS["coco"](tmp_path, run.frames, run.job)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calls = []

    def breaking() -> Iterator[AnnotatedFrame]:
        calls.append(None)
        yield run.images[0]
        if len(calls) > 2:
            raise DataError("a shard is damaged")
        yield from run.images[1:]

    with pytest.raises(DataError, match="damaged"):
        FORMATS["coco"](tmp_path, breaking, run.job)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_formats_do_not_keep_the_images(run: Run) -> None:
    alive = 0
    most = 0

    class Counted(AnnotatedFrame):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[AnnotatedFrame]:
        nonlocal alive, most
        for frame in run.images:
            made = Counted(**{name: getattr(frame, name) for name in frame.__dataclass_fields__})
            alive += 1
            most = max(most, alive)
            yield made
            del made

    for write in FORMATS.values():
        write(run.out, frames, run.job)
    # Two passes go side by side at most, and each holds the last image until it has the next.
    assert most <= 4


def test_pycocotools_reads_masks_and_what_is_known_of_them(run: Run) -> None:
    coco = COCO(str(run.out / "annotations" / "instances_default.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(PHRASES)
    assert len(coco.imgs) == len(run.images)
    for number, frame in enumerate(run.images, start=1):
        image = coco.imgs[number]
        assert (image["source"], image["topic"], image["stamp_ns"]) == (frame.source, frame.topic, frame.stamp_ns)
        assert (run.out / "images" / image["file_name"]).is_file()
        found = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert len(found) == len(frame.objects)
        for entry, thing in zip(found, frame.objects, strict=True):
            assert np.array_equal(coco.annToMask(entry), thing.mask(frame.size))
            assert (entry["track_id"], entry["score"], entry["prompt"]) == (thing.track, thing.score, thing.prompt)
            assert entry["area"] == thing.area_px
            left, top, right, bottom = thing.box_px
            assert entry["bbox"] == [left, top, right - left, bottom - top]
    assert coco.imgs[2]["stamp_ns"] == FIRST_NS + 100_000_000


def test_coco_names_the_models_of_the_manifest(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"models": [{"name": "a", "sha256": "ab12"}]}), encoding="utf-8")
    FORMATS["coco"](tmp_path, run.frames, run.job)
    content = json.loads((tmp_path / "annotations" / "instances_default.json").read_text(encoding="utf-8"))
    assert content["info"]["models"] == [{"name": "a", "sha256": "ab12"}]


def test_names_that_a_person_gave_are_classes(run: Run, tmp_path: Path) -> None:
    first = next(frame for frame in run.images if frame.objects)
    renamed = first.with_objects([replace(first.objects[0], prompt="Tasse")])
    assert class_names(lambda: iter([renamed]), run.job) == (*PHRASES, "Tasse")
    FORMATS["coco"](tmp_path, lambda: iter([renamed]), run.job)
    coco = COCO(str(tmp_path / "annotations" / "instances_default.json"))
    assert coco.cats[coco.anns[1]["category_id"]]["name"] == "Tasse"


def test_coco_is_read_as_objects(run: Run) -> None:
    dataset = open_dataset({"kind": "coco", "root": str(run.out), "task": "instances"})
    assert dataset.class_names == PHRASES
    assert len(dataset) == len(run.images)
    for sample, frame in zip(map(dataset.__getitem__, range(len(dataset))), run.images, strict=True):
        assert np.array_equal(sample.masks, np.array([thing.mask(frame.size) for thing in frame.objects]))


def test_label_images_are_read_with_doubtful_pixels_ignored(run: Run) -> None:
    dataset = open_dataset({"kind": "labelled_folder", "root": str(run.out)})
    assert dataset.class_names == ("background", *PHRASES)
    by_name = {f"{frame.source}/{frame.index:06d}": frame for frame in run.images}
    assert set(dataset.names) == set(by_name)
    for index, name in enumerate(dataset.names):
        frame = by_name[name]
        labels = dataset[index].labels
        # Rendered objects do not overlap, so that each pixel has one owner.
        expected = np.zeros(frame.size, np.uint8)
        for thing in frame.objects:
            expected[thing.mask(frame.size)] = (
                dataset.class_names.index(thing.prompt) if thing.band == "sure" else IGNORED
            )
        assert np.array_equal(labels, expected)
    assert any((dataset[index].labels == IGNORED).any() for index in range(len(dataset)))


def test_the_better_score_wins_where_objects_overlap(run: Run, tmp_path: Path) -> None:
    first = next(frame for frame in run.images if frame.objects)
    whole, half = np.ones(first.size, bool), np.ones(first.size, bool)
    half[:, first.size[1] // 2 :] = False
    thing = first.objects[0]
    low = replace(thing, prompt="cup", score=0.8, band="sure", counts=compressed_runs(half), area_px=int(half.sum()))
    high = replace(thing, prompt="book", score=0.9, band="sure", counts=compressed_runs(whole), area_px=whole.size)
    FORMATS["labels"](tmp_path, lambda: iter([first.with_objects([high, low])]), run.job)
    labels = np.array(Image.open(tmp_path / "labels" / Path(first.picture).relative_to("images")))
    assert set(np.unique(labels)) == {1 + PHRASES.index("book")}


def test_what_a_person_accepted_is_sure(run: Run) -> None:
    thing = next(frame for frame in run.images if frame.objects).objects[0]
    guessed = replace(thing, band="doubtful")
    assert not is_sure(guessed)
    assert is_sure(replace(guessed, decided="accepted"))


def test_colour_blind_people_tell_the_first_classes_apart(run: Run) -> None:
    palette = np.frombuffer(label_palette(("background", *PHRASES)), np.uint8).reshape(256, 3)
    classes = palette[1 : 1 + len(PHRASES)].astype(np.float64) / 255
    # Vienot's simulation of the two frequent kinds of colour blindness, in linear light.
    linear = classes**2.2
    for seen in (
        np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    ):
        colours = (linear @ seen.T).clip(0) ** (1 / 2.2)
        apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)[~np.eye(len(PHRASES), dtype=bool)]
        assert apart.min() > 0.1


def test_more_classes_than_a_label_image_has_numbers_are_refused(run: Run, tmp_path: Path) -> None:
    first = next(frame for frame in run.images if frame.objects)
    many = first.with_objects([replace(first.objects[0], prompt=f"thing {number}") for number in range(300)])
    with pytest.raises(DataError, match="use the format coco"):
        FORMATS["labels"](tmp_path, lambda: iter([many]), run.job)


def test_yolo_outlines_fill_to_the_masks(run: Run) -> None:
    folder = run.out / "yolo"
    content = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert content["names"] == dict(enumerate(PHRASES))
    pictures = [
        folder / line.strip() for part in ("train", "val") for line in (folder / content[part]).read_text().splitlines()
    ]
    assert len(pictures) == len(run.images)
    by_name = {Path(frame.picture).relative_to("images").as_posix(): frame for frame in run.images}
    for picture in pictures:
        assert picture.is_file()
        frame = by_name[picture.relative_to(folder / "images").as_posix()]
        # This is where ultralytics looks for the labels of an image.
        labels = Path(str(picture).replace("/images/", "/labels/")).with_suffix(".txt")
        lines = labels.read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(frame.objects)
        for line, thing in zip(lines, frame.objects, strict=True):
            number, *values = line.split()
            assert PHRASES[int(number)] == thing.prompt
            assert len(values) >= 6
            assert _iou(_filled(values, frame.size), thing.mask(frame.size)) > 0.97


def test_an_outline_keeps_holes_and_parts() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:40] = True
    mask[20:40, 18:30] = False
    mask[26:32, 22:26] = True
    mask[5:15, 60:70] = True
    mask[50, 70] = True
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [mask_polygon(mask)], 1)
    wrong = np.count_nonzero(filled.astype(bool) != mask)
    # Only the bridges are wrong: one pixel wide, and shorter than 60 pixels together.
    assert wrong < 60
    assert not filled[30, 20]


def test_one_pixel_is_an_outline_of_three_points() -> None:
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    assert mask_polygon(mask).tolist() == [[3, 2]] * 3


def test_phrases_are_read_without_doubtful_ones(run: Run) -> None:
    dataset = open_dataset({"kind": "folder", "root": str(run.out)})
    found = {(dataset.pictures[index], dataset.phrases[index]): dataset[index].mask for index in range(len(dataset))}
    for frame in run.images:
        for phrase in PHRASES:
            things = [thing for thing in frame.objects if thing.prompt == phrase]
            if things and all(map(is_sure, things)):
                expected = np.logical_or.reduce([thing.mask(frame.size) for thing in things])
                assert np.array_equal(found[frame.picture, phrase], expected)
            elif things:
                assert (frame.picture, phrase) not in found
    absent = [mask for mask in found.values() if not mask.any()]
    assert len(absent) == len(run.images)


def test_the_zip_file_for_cvat_is_a_coco_data_set(run: Run, tmp_path: Path) -> None:
    with ZipFile(run.out / "cvat.zip") as archive:
        archive.extractall(tmp_path)
    coco = COCO(str(tmp_path / "annotations" / "instances_default.json"))
    for image in coco.imgs.values():
        assert (tmp_path / "images" / "default" / image["file_name"]).is_file()
    assert all(entry["attributes"]["track_id"] == entry["track_id"] for entry in coco.anns.values())
    assert len(open_dataset({"kind": "coco", "root": str(tmp_path)})) == len(run.images)


def _filled(values: list[str], size: tuple[int, int]) -> np.ndarray:
    """Fills an outline as ultralytics does: the numbers times the size, cut off behind the point."""
    points = (np.array(values, np.float32).reshape(-1, 2) * (size[1], size[0])).astype(np.int32)
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [points], 1)
    return mask.astype(bool)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))
