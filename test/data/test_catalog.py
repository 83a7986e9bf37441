# SPDX-License-Identifier: Apache-2.0
"""Data sets from mappings as YAML gives them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from clip_seg_ros.data.ade20k import Ade20k
from clip_seg_ros.data.catalog import BUILDERS, open_dataset
from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.samples import DataError, ReferringSample, SemanticSample
from clip_seg_ros.data.voc import Voc2012

SIZE = (60, 80)
NAMES = ("2007_000032", "2007_000033")


@pytest.fixture
def voc_root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    root = tmp_path / "VOC2012"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(NAMES))
    for name in NAMES:
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", SIZE)
        write_labels(root / "SegmentationClass" / f"{name}.png", np.full(SIZE, 1), palette=True)
    return root


def opened(text: str):
    return open_dataset(yaml.safe_load(text))


def test_a_semantic_data_set(voc_root: Path) -> None:
    dataset = opened(f"{{kind: voc, root: {voc_root}, split: val, background: false}}")

    assert isinstance(dataset, Voc2012)
    assert (len(dataset), len(dataset.class_names)) == (2, 20)
    assert isinstance(dataset[0], SemanticSample)


def test_a_data_set_of_phrases(voc_root: Path) -> None:
    dataset = opened(f"{{kind: pascal5i, root: {voc_root}, fold: 0, split: val, one_shot: false}}")

    sample = dataset[1]
    assert isinstance(sample, ReferringSample)
    assert (sample.phrase, sample.support) == ("aeroplane", None)


def test_a_folder_below_home(tmp_path: Path, monkeypatch, write_jpeg, write_labels) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jpeg(tmp_path / "mine" / "images" / "desk.jpg", SIZE)
    write_labels(tmp_path / "mine" / "masks" / "cup.png", np.eye(*SIZE))
    with (tmp_path / "mine" / "phrases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mask", "phrase"), ("images/desk.jpg", "masks/cup.png", "the cup")])

    dataset = opened("{kind: folder, root: ~/mine}")

    assert isinstance(dataset, PhraseFolder)
    assert dataset[0].phrase == "the cup"


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_kind_says_which_options_it_has(kind: str) -> None:
    with pytest.raises(DataError, match=f"the data set {kind} needs root.*; its options are root"):
        open_dataset({"kind": kind})


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_kind_says_what_is_missing_on_disk(kind: str, tmp_path: Path) -> None:
    options = {
        "ade20k": {"split": "training"},
        "coco20i": {"fold": 0, "split": "val"},
        "coco_stuff_10k": {"split": "train"},
        "coco_stuff_164k": {"split": "val2017"},
        "folder": {},
        "lvis_affordances": {"split": "val", "group": "parts"},
        "pascal5i": {"fold": 0, "split": "val"},
        "refcoco": {"name": "refcoco+", "split": "testA", "images": str(tmp_path)},
    }.get(kind, {"split": "val"})

    with pytest.raises(DataError, match=str(tmp_path / "nowhere")):
        open_dataset({"kind": kind, "root": str(tmp_path / "nowhere"), **options})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{root: /data}", "needs a kind: ade20k, annotated, coco, "),
        ("ade20k", "needs a kind"),
        ("{kind: ade, root: /data}", "no kind of data set 'ade'; the kinds are ade20k, annotated, coco, "),
        ("{kind: [ade20k]}", r"no kind of data set \['ade20k'\]"),
        ("{kind: ade20k, root: /data}", "ade20k needs split; its options are root, split"),
        ("{kind: ade20k, root: /data, splt: training}", "ade20k does not know splt; its options are root, split"),
        ("{kind: ade20k, root: ~, split: training}", "root of the data set ade20k is None; it must be a path"),
        ("{kind: ade20k, root: '', split: training}", "root of the data set ade20k is ''; it must be a path"),
        ("{kind: ade20k, root: /data, split: 1}", "split of the data set ade20k is 1; it must be a text"),
        ("{kind: voc, root: /, split: val, background: 'no'}", "background .* is 'no'; it must be true or false"),
        ("{kind: pascal5i, root: /, split: val, fold: yes}", "fold .* is True; it must be a whole number"),
        ("{kind: refcoco, root: /, split: val, name: coco}", r"is 'coco'; it must be refcoco, refcoco\+, refcocog"),
        ("{kind: refcoco, root: /, split: val, name: refcoco, images: 3}", "images .* it must be a path or null"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(text)


def test_options_reach_the_data_set(tmp_path: Path, write_jpeg, write_labels) -> None:
    write_jpeg(tmp_path / "images" / "validation" / "ADE_val_00000001.jpg", SIZE)
    write_labels(tmp_path / "annotations" / "validation" / "ADE_val_00000001.png", np.full(SIZE, 150))

    dataset = opened(f"kind: ade20k\nroot: {tmp_path}\nsplit: validation\n")

    assert isinstance(dataset, Ade20k)
    assert dataset.class_names[dataset[0].labels[0, 0]] == "flag"
