# SPDX-License-Identifier: Apache-2.0
"""A user's own images with index PNGs, in the layouts that people have."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.resources import class_list
from clip_seg_ros.training.recipes.dataset_batches import SemanticBatches

SIZE = (6, 8)
CLASSES = ("road", "cup", "tree")
NUMBERS = np.random.default_rng(0).choice([0, 1, 2, 11, 255], SIZE)
LABELS = np.where(NUMBERS > 2, IGNORED, NUMBERS)


@pytest.fixture
def root(tmp_path: Path, write_jpeg, write_labels) -> Path:
    """Two splits, of which "val" holds a folder, and labels with a palette."""
    root = tmp_path / "mine"
    for name in ("train/b", "train/a", "val/day/c"):
        write_jpeg(root / "images" / f"{name}.jpg", SIZE)
        write_labels(root / "labels" / f"{name}.png", NUMBERS, palette=name == "train/a")
    (root / "classes.txt").write_text("road\ncup\n\ntree\n", encoding="utf-8")
    return root


def test_a_split_is_a_folder(root: Path) -> None:
    train, val = (LabelledFolder(root, split=split, ignore=(11,)) for split in ("train", "val"))

    assert (train.names, val.names) == (("train/a", "train/b"), ("val/day/c",))
    assert train.class_names == CLASSES
    for sample in (train[0], train[1], val[0]):
        assert sample.labels.tolist() == LABELS.tolist()
        assert sample.rgb.shape == (*SIZE, 3)


def test_it_can_be_trained_on(root: Path) -> None:
    batches = SemanticBatches(LabelledFolder(root, ignore=(11,)), batch=2, side_px=16, seed=0)
    batches.load(0)

    batch = batches(np.random.default_rng(0))

    assert batch.pixels.shape == (2, 3, 16, 16)
    assert set(batch.labels.unique().tolist()) <= {0, 1, 2, IGNORED}


def test_without_a_split_all_images_count(root: Path) -> None:
    assert LabelledFolder(root, ignore=(11,)).names == ("train/a", "train/b", "val/day/c")


def test_a_split_is_a_list_of_names_in_its_order(root: Path) -> None:
    (root / "half.txt").write_text("val/day/c.jpg\n\ntrain/a\n")

    dataset = LabelledFolder(root, split="half.txt", ignore=(11,))

    assert dataset.names == ("half/val/day/c", "half/train/a")
    assert dataset[1].labels.tolist() == LABELS.tolist()


def test_patterns_name_files_in_other_layouts(tmp_path: Path, write_jpeg, write_labels) -> None:
    # As Cityscapes has them, and as several tools export masks: beside their images.
    write_jpeg(tmp_path / "leftImg8bit/val/bonn/bonn_1_leftImg8bit.png", SIZE)
    write_labels(tmp_path / "gtFine/val/bonn/bonn_1_gtFine_labelIds.png", NUMBERS)
    write_labels(tmp_path / "gtFine/val/bonn/bonn_1_gtFine_instanceIds.png", NUMBERS)
    for name in ("x", "y"):
        write_jpeg(tmp_path / "export/val" / f"{name}.png", SIZE)
        write_labels(tmp_path / "export/val" / f"{name}_mask.png", NUMBERS)

    city = LabelledFolder(
        tmp_path, CLASSES, "val", "leftImg8bit/{split}/*_leftImg8bit.png", "gtFine/{split}/*_gtFine_labelIds.png", (11,)
    )
    export = LabelledFolder(tmp_path, CLASSES, "val", "export/{split}/*.png", "export/{split}/*_mask.png", (11,))

    assert (city.names, export.names) == (("val/bonn/bonn_1",), ("val/x", "val/y"))
    assert city[0].labels.tolist() == export[0].labels.tolist() == LABELS.tolist()


def test_classes_have_the_numbers_that_one_gives_them(root: Path, write_labels) -> None:
    write_labels(root / "labels/val/day/c.png", np.resize([1, 7, 0, 255], SIZE))

    dataset = LabelledFolder(root, {7: "cup", 1: "road"}, "val", ignore=(0,))

    assert dataset.class_names == ("road", "cup")
    assert dataset[0].labels.tolist() == np.resize([0, 1, IGNORED, IGNORED], SIZE).tolist()


def test_classes_come_from_the_lists_of_the_package(root: Path) -> None:
    assert LabelledFolder(root, "cityscapes19", "val").class_names == class_list("cityscapes19")


def test_it_opens_from_a_mapping(root: Path) -> None:
    options = {"kind": "labelled_folder", "root": str(root), "split": "val", "ignore": [11]}

    assert open_dataset({**options, "classes": list(CLASSES)})[0].labels.tolist() == LABELS.tolist()
    assert open_dataset({**options, "classes": {0: "a", 1: "b", 2: "c"}}).class_names == ("a", "b", "c")
    for classes in ([True, "cup"], {"0": "road"}, 3):
        with pytest.raises(DataError, match=r"classes of the data set labelled_folder is .* a list of texts, as"):
            open_dataset({**options, "classes": classes})
    with pytest.raises(DataError, match=r"ignore .* must be a list of whole numbers, as"):
        open_dataset({**options, "ignore": 11})


def test_a_number_that_is_no_class_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png holds the number 11, which is no class of this data set and not ign"):
        LabelledFolder(root, split="train")[0]


@pytest.mark.parametrize(
    ("classes", "ignore", "message"),
    [
        (("road", "cup", "road"), (), "holds road twice"),
        (("road", " "), (), "empty name"),
        ((), (), "list of classes is empty"),
        (("void", "cup", "tree"), (0,), r"number 0 is in ignore, and is the class void: .*: classes: {1: cup, 2: tree"),
        ({255: "cup"}, (), "cup is number 255"),
        ({1: "cup"}, (256,), "256 is no number of a label image"),
        ("names.txt", (), r"there is no .*mine/names\.txt: write it, .* cityscapes19"),
    ],
)
def test_wrong_classes_are_said(root: Path, classes, ignore: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledFolder(root, classes, ignore=ignore)


def test_labels_that_cannot_be_used_are_named_at_once(root: Path, write_jpeg) -> None:
    folder = root / "labels/train"
    names = "wide small bits colours jpeg broken missing".split()
    for name in names:
        write_jpeg(root / "images/train" / f"{name}.jpg", SIZE)
    Image.fromarray(NUMBERS.astype(np.uint16)).save(folder / "wide.png")
    Image.fromarray(NUMBERS[:, :5].astype(np.uint8)).save(folder / "small.png")
    Image.fromarray(NUMBERS == 1).save(folder / "bits.png")
    Image.fromarray(np.stack([NUMBERS] * 3, axis=-1).astype(np.uint8)).save(folder / "colours.png")
    Image.fromarray(NUMBERS.astype(np.uint8)).save(folder / "jpeg.jpg")
    (folder / "broken.png").write_bytes(b"no image")

    with pytest.raises(DataError) as failure:
        LabelledFolder(root, split="train")

    first, *lines = str(failure.value).splitlines()
    assert first == f"7 of 9 images in {folder} cannot be used:"
    for line, said in zip(
        lines,
        [
            "bits.png has 1 bits for each number: write one number for each pixel as an 8-bit PNG",
            "broken.png is no picture that can be read",
            "colours.png shows classes as colours: write one number for each pixel as an 8-bit PNG",
            "jpeg.jpg is a JPEG, whose numbers change when it is saved",
            "missing.png is missing: label the image, or make a list of the labelled ones",
            "small.jpg has 8 x 6 pixels, but",
            "wide.png has 16 bits for each number: write one number for each pixel as an 8-bit PNG",
        ],
        strict=True,
    ):
        assert said in line


def test_no_more_than_ten_files_are_named(root: Path, write_jpeg) -> None:
    for number in range(12):
        write_jpeg(root / "images/train" / f"{number}.jpg", SIZE)

    with pytest.raises(DataError, match=r"7\.png is missing.*\n  and 2 more$"):
        LabelledFolder(root, split="train")


def test_videos_are_told_apart(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "images/train")
    (root / "images/train").mkdir()
    (root / "images/train/drive.MP4").touch()
    (tmp_path / "drive.avi").touch()

    with pytest.raises(DataError, match=r"train/drive\.MP4 is a video: write its frames as images first.*ffmpeg -i"):
        LabelledFolder(root, split="train")
    with pytest.raises(DataError, match=r"drive\.avi is a video"):
        LabelledFolder(tmp_path / "drive.avi")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"no folder .*images/test \(folders beside it: train, val\): name a split that exists"),
        ({"images": "pictures"}, r"no folder .*mine/pictures \(folders beside it: images, labels\): name the folders"),
        ({"split": "test.txt"}, r"no list .*test\.txt: a split is a folder of images, or such a list"),
        ({"images": "{split}/*.png"}, "needs a split"),
        ({"images": "*/*.png"}, r"it may have one \*"),
        ({"images": "images/*.webp"}, r"holds no image \*\.webp"),
        ({"labels": "labels/*.jpg"}, "labels must be PNG files"),
    ],
)
def test_wrong_places_are_said(root: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledFolder(root, **options)


def test_wrong_lists_are_said(root: Path) -> None:
    (root / "none.txt").touch()
    (root / "other.txt").write_text("train/z\n")

    with pytest.raises(DataError, match=r"none\.txt is empty"):
        LabelledFolder(root, split="none.txt")
    with pytest.raises(DataError, match=r"no image train/z in .*images"):
        LabelledFolder(root, split="other.txt")


def test_two_images_of_one_name_are_refused(root: Path, write_jpeg) -> None:
    write_jpeg(root / "images/train/a.png", SIZE)

    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name"):
        LabelledFolder(root, split="train")
