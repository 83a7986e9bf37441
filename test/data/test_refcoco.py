# SPDX-License-Identifier: Apache-2.0
import json
import pickle
import shutil
from typing import ClassVar

import cv2
import numpy as np
import pytest

from clip_seg_ros.data.coco_masks import decode_polygon
from clip_seg_ros.data.refcoco import RefCOCO
from clip_seg_ros.data.samples import DataError

WIDTH, HEIGHT = 32, 24
SQUARE, LEG = [4, 4, 12, 4, 12, 12, 4, 12], [10.5, 10, 14, 10, 14, 20, 10.5, 20]
COLUMNS = {"size": [HEIGHT, WIDTH], "counts": [2 * HEIGHT, 3 * HEIGHT, (WIDTH - 5) * HEIGHT]}


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, in its protocol 0: the published files are made so."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_python2_str(self, text):
        self.write(b"S" + repr(text.encode("latin1"))[1:].encode() + b"\n")
        self.memoize(text)

    dispatch[str] = save_python2_str


def ref(ref_id, ann_id, image_id, split, *texts):
    """An entry of refs(...).p with the fields that are published."""
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 62,
        "split": split,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "sent_ids": [10 * ref_id + n for n in range(len(texts))],
        "sentences": [
            {"sent_id": 10 * ref_id + n, "sent": text, "raw": text + " caf\xe9!", "tokens": text.split()}
            for n, text in enumerate(texts)
        ],
    }


REFS = [
    ref(0, 501, 581857, "train", "the chair on the left", " left chair "),
    ref(1, 502, 581857, "testA", "man in blue"),
    ref(2, 503, 99, "testB", "striped thing"),
    ref(3, 503, 99, "val", "the cat", "cat"),
]


def write_refs(path, refs):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=0).dump(refs)


def annotation(ann_id, image_id, segmentation):
    return {
        "id": ann_id,
        "image_id": image_id,
        "category_id": 62,
        "segmentation": segmentation,
        "area": 64.0,
        "iscrowd": 0,
        "bbox": [4.0, 4.0, 8.0, 8.0],
    }


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images" / "train2014").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id in (99, 581857):
        path = tmp_path / "images" / "train2014" / f"COCO_train2014_{image_id:012d}.jpg"
        cv2.imwrite(str(path), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    instances = {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"COCO_train2014_{i:012d}.jpg", "license": 1}
            for i in (99, 581857)
        ],
        "annotations": [
            annotation(501, 581857, [SQUARE, LEG]),
            annotation(502, 581857, [LEG]),
            annotation(503, 99, COLUMNS),
            annotation(504, 99, [SQUARE]),
        ],
        "categories": [{"id": 62, "name": "chair", "supercategory": "furniture"}],
    }
    for name, split_by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        (tmp_path / name).mkdir()
        write_refs(tmp_path / name / f"refs({split_by}).p", REFS)
        (tmp_path / name / "instances.json").write_text(json.dumps(instances))
    return tmp_path


def test_samples_are_read_as_published(root):
    data = RefCOCO(root, "refcoco", "train")
    assert data.phrases == ("the chair on the left", "left chair")
    assert data.pictures == ("581857", "581857")
    assert data.objects == ("0", "0"), "two sentences of one object"
    assert [sample.name for sample in data] == ["refcoco/train/ref_0/sent_0", "refcoco/train/ref_0/sent_1"]
    sample = data[1]
    picture = cv2.imread(str(root / "images/train2014/COCO_train2014_000000581857.jpg"))
    assert sample.phrase == "left chair"
    assert (sample.rgb == picture[..., ::-1]).all()
    expected = decode_polygon(SQUARE, HEIGHT, WIDTH) | decode_polygon(LEG, HEIGHT, WIDTH)
    assert (sample.mask == expected).all()
    assert sample.mask.dtype == bool
    assert sample.mask.sum() < decode_polygon(SQUARE, HEIGHT, WIDTH).sum() + decode_polygon(LEG, HEIGHT, WIDTH).sum()


def test_run_lengths_are_read_too(root):
    (sample,) = RefCOCO(root, "refcoco+", "testB")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:, 2:5] = True
    assert (sample.phrase, sample.name) == ("striped thing", "refcoco+/testB/ref_2/sent_20")
    assert (sample.mask == expected).all()


def test_splits_are_those_that_are_published(root):
    assert [len(RefCOCO(root, "refcoco", split)) for split in ("train", "val", "testA", "testB")] == [2, 2, 1, 1]
    assert len(RefCOCO(root, "refcocog", "val", "umd")) == 2
    for call, message in (
        (("refcoco", "test"), "refcoco split by unc has no split 'test', only train, val, testA, testB"),
        (("refcocog", "testA"), "refcocog split by umd has no split 'testA', only train, val, test"),
        (("refcocog", "test", "google"), "refcocog split by google has no split 'test', only train, val"),
        (("refcoco+", "val", "umd"), r"no data set 'refcoco\+' split by 'umd', only refcoco by unc, .*, refcocog by"),
        (("refclef", "val"), "no data set 'refclef' split by None"),
    ):
        with pytest.raises(DataError, match=message):
            RefCOCO(root, *call)


def test_pictures_may_lie_elsewhere(root, tmp_path):
    shutil.move(root / "images" / "train2014", tmp_path / "coco")
    assert RefCOCO(root, "refcoco", "val", images=tmp_path / "coco")[0].mask.any()
    with pytest.raises(DataError, match="train2014 is missing: it is COCO's folder of training pictures of 2014"):
        RefCOCO(root, "refcoco", "val")
    (tmp_path / "coco" / "COCO_train2014_000000000099.jpg").unlink()
    with pytest.raises(DataError, match=r"COCO_train2014_000000000099.jpg is missing: the folder must hold all"):
        RefCOCO(root, "refcoco", "val", images=tmp_path / "coco")[0]


@pytest.mark.parametrize("name", ["refs(unc).p", "instances.json"])
def test_missing_and_broken_files_say_what_to_unpack(root, name):
    path = root / "refcoco" / name
    whole = path.read_bytes()
    for content in (None, whole[: len(whole) // 2]):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(DataError) as failure:
            RefCOCO(root, "refcoco", "val")
        message = str(failure.value)
        assert f"{path} {'is missing' if content is None else ''}" in message
        assert message.endswith(f"refcoco.zip to {root / 'refcoco'}, which then holds refs(unc).p and instances.json")


class Evil:
    def __reduce__(self):
        return print, ("this has run",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_cannot_run_anything(root, protocol, capsys):
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Evil()], protocol))
    with pytest.raises(DataError, match=r"it asks for (__builtin__|builtins).print; the published file is plain data"):
        RefCOCO(root, "refcoco", "val")
    assert not capsys.readouterr().out


def test_files_that_do_not_belong_together_are_refused(root):
    write_refs(root / "refcoco" / "refs(unc).p", [*REFS, ref(9, 777, 99, "val", "a dog")])
    with pytest.raises(DataError, match=r"instances.json lacks annotation 777 on picture 99, which ref 9 is about"):
        RefCOCO(root, "refcoco", "val")
    assert len(RefCOCO(root, "refcoco", "train")) == 2
    write_refs(root / "refcoco" / "refs(unc).p", [{"ref_id": 1}])
    with pytest.raises(DataError, match=r"not as published: KeyError.'split'"):
        RefCOCO(root, "refcoco", "val")
    write_refs(root / "refcoco" / "refs(unc).p", REFS)
    (root / "refcoco" / "instances.json").write_text("[]")
    with pytest.raises(DataError, match=r"instances.json is not as published"):
        RefCOCO(root, "refcoco", "val")


def test_wrong_sizes_and_masks_name_the_sample(root):
    path = root / "refcoco" / "instances.json"
    whole = path.read_text()
    path.write_text(whole.replace(f'"width": {WIDTH}', '"width": 640'))
    with pytest.raises(DataError, match=r"000000000099.jpg is 32 x 24 pixels and 640 x 24 in instances.json"):
        RefCOCO(root, "refcoco", "val")[0]
    path.write_text(whole.replace(f'"size": [{HEIGHT}, {WIDTH}]', '"size": [9, 9]'))
    with pytest.raises(DataError, match=r"the mask of refcoco/val/ref_3/sent_30 \(annotation 503\): run lengths of"):
        RefCOCO(root, "refcoco", "val")[0]
