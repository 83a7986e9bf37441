# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import cv2
import numpy as np
import pytest

from clip_seg_ros.data.phrasecut import MISMATCHED_IMAGES, PhraseCut
from clip_seg_ros.data.samples import DataError

WIDTH, HEIGHT = 40, 30
MISMATCHED = min(MISMATCHED_IMAGES)


def task(image_id, number, phrase, polygons, boxes):
    """An entry of refer_<split>.json with the fields and the types that are published."""
    return {
        "task_id": f"{image_id}__{number}",
        "image_id": image_id,
        "ann_ids": [1000 + number],
        "instance_boxes": boxes,
        "Polygons": polygons,
        "phrase": phrase,
        "phrase_structure": {
            "name": phrase.split()[-1],
            "attributes": phrase.split()[:-1],
            "relation_ids": [],
            "relation_descriptions": [],
            "type": "attribute",
        },
    }


def rectangle(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "VGPhraseCut_v0"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id in (7, 9, MISMATCHED):
        noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{image_id}.jpg"), noise)
    cv2.imwrite(str(folder / "images" / "9.jpg"), np.full((HEIGHT, WIDTH), 200, np.uint8))  # a grey one
    images = [
        {"image_id": i, "coco_id": None, "flickr_id": 5, "width": WIDTH, "height": HEIGHT, "url": "", "split": "val"}
        for i in (7, 9, MISMATCHED)
    ]
    (folder / "image_data_split.json").write_text(json.dumps(images))
    tasks = [
        task(
            7,
            1,
            "two white cups",
            [[rectangle(2, 3, 5.9, 8.2)], [rectangle(10, 3, 14, 8), rectangle(12, 10, 15, 12), [[30, 20]]]],
            [[2, 3, 4, 6], [10, 3, 6, 10]],
        ),
        task(9, 4, "red sign", [[rectangle(35, 25, 60, 60)]], [[35, 25, 5, 5]]),
        task(9, 5, "no box", [[rectangle(1, 1, 4, 4)]], [[1, 1, 0, 4]]),
        task(MISMATCHED, 6, "red sign", [[rectangle(1, 1, 4, 4)]], [[1, 1, 4, 4]]),
    ]
    (folder / "refer_val.json").write_text(json.dumps(tasks))
    return folder


def test_samples_are_read_as_published(root):
    data = PhraseCut(root, "val")
    assert len(data) == 2
    assert data.phrases == ("two white cups", "red sign")
    assert data.pictures == ("7", "9")
    cups, sign = data[0], data[1]
    assert (cups.phrase, cups.name) == ("two white cups", "val/7__1")
    assert cups.rgb.shape == sign.rgb.shape == (HEIGHT, WIDTH, 3)
    assert cups.rgb.dtype == np.uint8
    assert (cups.rgb == cv2.imread(str(root / "images" / "7.jpg"))[..., ::-1]).all()
    expected = np.zeros((HEIGHT, WIDTH), bool)
    # Corners are cut to whole pixels, and the outline belongs to the object.
    expected[3:9, 2:6] = expected[3:9, 10:15] = expected[10:13, 12:16] = True
    assert (cups.mask == expected).all()
    assert cups.mask.dtype == bool
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[25:, 35:] = True
    assert (sign.mask == expected).all()


def test_pictures_are_read_when_they_are_asked_for(root):
    data = PhraseCut(root, "val")
    (root / "images" / "9.jpg").unlink()
    assert data[0].mask.any()
    with pytest.raises(DataError, match=r"9.jpg is missing: download the pictures of the split val"):
        data[1]


@pytest.mark.parametrize("name", ["refer_val.json", "image_data_split.json", "images"])
def test_what_is_missing_is_said_with_the_layout(root, name):
    path = root / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing: .*VGPhraseCut_v0 with image_data_split.json"):
        PhraseCut(root, "val")


def test_wrong_calls_and_broken_files_are_said_in_words(root):
    with pytest.raises(DataError, match="no split 'dev', only train, val, test, miniv"):
        PhraseCut(root, "dev")
    whole = (root / "refer_val.json").read_text()
    for text, message in (
        (whole[:-40], "refer_val.json is no whole JSON file"),
        (whole.replace('"phrase"', '"text"', 1), "an entry of .*refer_val.json is not as published: KeyError.'phrase'"),
        (whole.replace("[2, 3]", "[2]", 1), "an entry of .*refer_val.json is not as published"),
        (json.dumps([{"phrase": "a cup"}]), "no list of phrases with Polygons"),
    ):
        (root / "refer_val.json").write_text(text)
        with pytest.raises(DataError, match=message):
            PhraseCut(root, "val")


def test_pictures_of_another_size_are_refused(root):
    cv2.imwrite(str(root / "images" / "7.jpg"), np.zeros((HEIGHT // 2, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"7.jpg is 40 x 15 pixels and 40 x 30 in image_data_split.json"):
        PhraseCut(root, "val")[0]


def test_pictures_that_are_not_listed_are_refused(root):
    (root / "image_data_split.json").write_text(json.dumps([{"image_id": 7, "width": 40, "height": 30}]))
    with pytest.raises(DataError, match=r"image_data_split.json does not list picture 9"):
        PhraseCut(root, "val")


def test_phrases_of_what_must_stay_unseen_are_left_out(root):
    tasks = json.loads((root / "refer_val.json").read_text())
    tasks[1]["phrase"] = "sign with wheels"
    (root / "refer_val.json").write_text(json.dumps(tasks))

    removed = PhraseCut(root, "val", remove="affordances")

    assert removed.phrases == ("two white cups",)
    assert removed.pictures == ("7",)
    assert removed[0].name == "val/7__1"
    with pytest.raises(DataError, match="nothing called 'wheels' can be removed"):
        PhraseCut(root, "val", remove="wheels")


def test_examples_show_another_sample_of_the_phrase(root):
    tasks = json.loads((root / "refer_val.json").read_text())
    tasks += [task(7, 7, "red sign", [[rectangle(1, 1, 4, 4)]], [[1, 1, 4, 4]])]
    (root / "refer_val.json").write_text(json.dumps(tasks))

    data = PhraseCut(root, "val", examples=True)

    assert data.phrases == ("red sign", "red sign"), "the cups occur once"
    whole = PhraseCut(root, "val")
    for own, other in ((0, 1), (1, 0)):
        rgb, mask = data[own].support
        assert (rgb == data[other].rgb).all()
        assert (mask == data[other].mask).all()
    assert data[0].name == whole[1].name
    assert whole[1].support is None
