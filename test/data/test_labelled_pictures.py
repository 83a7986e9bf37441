# SPDX-License-Identifier: Apache-2.0
"""What all semantic data sets share: finding files, and turning stored numbers into labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_seg_ros.data.labelled_pictures import (
    LabelledPicture,
    LabelledPictures,
    check_choice,
    names_in,
    names_listed,
    paired,
    zero_ignored,
)
from clip_seg_ros.data.samples import IGNORED, DataError

NUMBERS = np.random.default_rng(0).choice([0, 1, 2, 3, 255], (6, 8))


@pytest.fixture
def one_picture(tmp_path: Path, write_jpeg, write_labels) -> LabelledPictures:
    write_jpeg(tmp_path / "a.jpg", (6, 8))
    write_labels(tmp_path / "a.png", NUMBERS)
    files = [LabelledPicture(tmp_path / "a.jpg", tmp_path / "a.png", "val/a")]
    return LabelledPictures(files, ("cat", "dog", "cow"), zero_ignored(3))


def test_numbers_become_labels(one_picture: LabelledPictures) -> None:
    sample = one_picture[0]

    expected = [[IGNORED if number in (0, 255) else number - 1 for number in row] for row in NUMBERS.tolist()]
    assert sample.labels.dtype == np.uint8
    assert sample.labels.tolist() == expected
    assert sample.rgb.shape == (6, 8, 3)
    assert (sample.name, one_picture.names, one_picture.class_names) == ("val/a", ("val/a",), ("cat", "dog", "cow"))


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    dataset = LabelledPictures([LabelledPicture(tmp_path / "a.jpg", tmp_path / "a.png", "a")], ("cat",), {0: 0})

    assert len(dataset) == 1
    with pytest.raises(DataError, match=r"a.jpg is missing"):
        dataset[0]


def test_a_number_without_a_meaning_is_refused(one_picture: LabelledPictures, tmp_path: Path, write_labels) -> None:
    write_labels(tmp_path / "a.png", np.where(NUMBERS == 3, 4, NUMBERS))

    with pytest.raises(DataError, match=r"a\.png holds the number 4"):
        one_picture[0]


def test_labels_of_another_size_are_refused(one_picture: LabelledPictures, tmp_path: Path, write_labels) -> None:
    write_labels(tmp_path / "a.png", NUMBERS[:, :7])

    with pytest.raises(DataError, match=r"a\.jpg has 8 x 6 pixels, but .*a\.png has 7 x 6"):
        one_picture[0]


@pytest.mark.parametrize("kind", [np.uint16, bool])
def test_labels_of_other_than_eight_bits_are_refused(one_picture: LabelledPictures, tmp_path: Path, kind) -> None:
    Image.fromarray((NUMBERS == 1).astype(kind)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match="have 8 bits"):
        one_picture[0]


def test_both_published_forms_of_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("2007_000032\n2007_000039\n\n")
    (tmp_path / "paths.txt").write_text(
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png \r\n"
        "JPEGImages/2007_000039.jpg SegmentationClassAug/2007_000039.png"
    )

    for name in ("bare", "paths"):
        assert names_listed(tmp_path / f"{name}.txt", "") == ["2007_000032", "2007_000039"]


def test_a_missing_or_empty_list_is_said(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("\n")

    with pytest.raises(DataError, match=r"no list .*train\.txt \(lists in that folder: val\.txt\)\. The layout is so"):
        names_listed(tmp_path / "train.txt", "The layout is so.")
    with pytest.raises(DataError, match="empty"):
        names_listed(tmp_path / "val.txt", "")


def test_missing_folders_and_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*images. The layout is so"):
        names_in(tmp_path / "images", ".jpg", "The layout is so.")
    (tmp_path / "._a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"holds no file \*\.jpg\. The layout is so"):
        names_in(tmp_path, ".jpg", "The layout is so.")


def test_the_first_folder_with_labels_counts(tmp_path: Path) -> None:
    files = {"images": ("a.jpg", "b.jpg", "c.jpg"), "fine": ("a.png",), "coarse": ("a.png", "b.png")}
    for folder, names in files.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    images, folders = tmp_path / "images", [tmp_path / "fine", tmp_path / "coarse"]

    found = paired("ba", images, folders, ".png", "val", "")

    assert found == (
        LabelledPicture(images / "b.jpg", tmp_path / "coarse" / "b.png", "val/b"),
        LabelledPicture(images / "a.jpg", tmp_path / "fine" / "a.png", "val/a"),
    )
    with pytest.raises(DataError, match=r"coarse/c\.png is missing\. The layout is so"):
        paired("abc", images, folders, ".png", "val", "The layout is so.")
    with pytest.raises(DataError, match=r"coarse/c\.png and 2 more files are missing"):
        paired("abcde", images, folders, ".png", "val", "")


def test_a_wrong_choice_is_told_the_right_ones() -> None:
    check_choice("split", "val", ("train", "val"))
    with pytest.raises(DataError, match="split is 'test'; it may be train, val"):
        check_choice("split", "test", ("train", "val"))
