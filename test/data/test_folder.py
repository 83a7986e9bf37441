# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest
from PIL import Image

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.phrasecut_plus import PhraseCutPlus
from clip_seg_ros.data.samples import DataError

HEADER = "image,mask,phrase\n"
ROWS = (
    "images/desk.jpg,masks/desk_cup.png,the red cup\n"
    'images/desk.jpg,masks/desk_pens.png,"pens, and a ""cup"""\n'
    "\n"
    "images/shelf.png,masks/shelf.png,la tasse émaillée\n"
    "images/shelf.png,,a banana\n"
)


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {"desk.jpg": (24, 32), "shelf.png": (20, 16)}.items():
        cv2.imwrite(str(tmp_path / "images" / name), rng.integers(0, 256, (height, width, 3), np.uint8))
    cup = np.zeros((24, 32), np.uint8)
    cup[2:9, 3:8] = 255
    cv2.imwrite(str(tmp_path / "masks" / "desk_cup.png"), cup)
    # A palette whose object is black: the stored numbers count, not the colours.
    pens = Image.fromarray((np.roll(cup, 15, axis=1) > 0).astype(np.uint8), "P")
    pens.putpalette([255, 255, 255, 0, 0, 0])
    pens.save(tmp_path / "masks" / "desk_pens.png")
    shelf = np.zeros((20, 16), np.uint8)
    shelf[5, 5] = 1
    cv2.imwrite(str(tmp_path / "masks" / "shelf.png"), shelf)
    (tmp_path / "phrases.csv").write_text(HEADER + ROWS, encoding="utf-8")
    return tmp_path


def test_a_row_is_a_sample(root):
    data = PhraseFolder(root)
    assert data.phrases == ("the red cup", 'pens, and a "cup"', "la tasse émaillée", "a banana")
    assert data.pictures == ("images/desk.jpg", "images/desk.jpg", "images/shelf.png", "images/shelf.png")
    samples = [data[index] for index in range(len(data))]
    assert [sample.name for sample in samples] == [
        "images/desk.jpg:2",
        "images/desk.jpg:3",
        "images/shelf.png:5",
        "images/shelf.png:6",
    ]
    assert [sample.phrase for sample in samples] == list(data.phrases)
    expected = np.zeros((24, 32), bool)
    expected[2:9, 3:8] = True
    assert (samples[0].mask == expected).all()
    assert samples[0].mask.dtype == bool
    assert (samples[1].mask == np.roll(expected, 15, axis=1)).all()
    assert np.argwhere(samples[2].mask).tolist() == [[5, 5]], "1 is as good as 255"
    assert samples[3].mask.shape == (20, 16)
    assert not samples[3].mask.any()
    assert (samples[2].rgb == cv2.imread(str(root / "images" / "shelf.png"))[..., ::-1]).all()


def test_files_as_spreadsheets_save_them(root):
    rows = "note,phrase , image,mask\r\nlater,the red cup, images/desk.jpg ,masks/desk_cup.png\r\n"
    (root / "phrases.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    data = PhraseFolder(root)
    assert len(data) == 1
    assert data[0].phrase == "the red cup"
    assert data[0].mask.sum() == 35


def test_a_folder_can_be_trained_on(root):
    plus = PhraseCutPlus(PhraseFolder(root), size_px=32)
    samples = [plus.draw(index, np.random.default_rng(index)) for index in range(len(plus))]
    assert {sample.rgb.shape for sample in samples} == {(32, 32, 3)}


def test_all_wrong_rows_are_named_at_once(root):
    rows = (
        "desk.jpg,masks/desk_cup.png,a cup\n"  # line 2
        "images/desk.jpg,cup.png,\n"
        "images/desk.jpg,masks/desk.jpg,a cup\n"
        ",masks/desk_cup.png,a cup\n"
    )
    (root / "phrases.csv").write_text(HEADER + rows)
    with pytest.raises(DataError) as failure:
        PhraseFolder(root)
    assert str(failure.value).splitlines() == [
        f"{root / 'phrases.csv'}:",
        f"  line 2: there is no image desk.jpg in {root}; write images/desk.jpg",
        "  line 3: the phrase is empty",
        f"  line 3: there is no mask cup.png in {root}",
        "  line 4: the mask masks/desk.jpg is no PNG; other formats change its values when they are saved",
        "  line 5: the image is empty",
    ]
    (root / "phrases.csv").write_text(HEADER + 13 * "images/none.png,,a cup\n")
    with pytest.raises(DataError, match=r"line 11: .*\n  and 3 more$"):
        PhraseFolder(root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "no column image and no column mask and no column phrase: .* and is empty"),
        ("image;mask;phrase\n", "must be image,mask,phrase, with commas, and is image;mask;phrase"),
        ("image,phrase\n", "has no column mask"),
        (HEADER, "has a header and no rows"),
        (HEADER + "images/desk.jpg,masks/desk_cup.png,pens, and a cup\n", "line 2: .* must have 3 cells; a phrase"),
        (HEADER + "images/desk.jpg,masks/desk_cup.png\n", "line 2: the row must have 3 cells"),
        (
            HEADER + 'images/desk.jpg,masks/desk_cup.png,"a cup\n',
            "after line 1: unexpected end .* is a quote left open",
        ),
        (HEADER + "images/desk.jpg,masks/desk_cup.png,tasse \udce9\n", "is not in UTF-8 .*: save it as CSV"),
    ],
)
def test_wrong_tables_are_said_in_words(root, table, message):
    (root / "phrases.csv").write_bytes(table.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        PhraseFolder(root)


def test_missing_folders_and_tables_are_said_in_words(root):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: a data set of your own is a folder"):
        PhraseFolder(root / "nowhere")
    (root / "phrases.csv").unlink()
    with pytest.raises(DataError, match=r"phrases.csv is missing: a data set of your own"):
        PhraseFolder(root)


def test_sizes_and_channels_are_checked_before_anything_is_trained(root):
    cv2.imwrite(str(root / "masks" / "desk_cup.png"), np.zeros((12, 32), np.uint8))
    cv2.imwrite(str(root / "masks" / "shelf.png"), np.zeros((20, 16, 3), np.uint8))
    with pytest.raises(DataError) as failure:
        PhraseFolder(root)
    assert str(failure.value).splitlines() == [
        f"{root / 'phrases.csv'}:",
        (
            "  line 2: masks/desk_cup.png is 32 x 12 pixels and images/desk.jpg is 32 x 24; a mask must be as large as "
            "its picture"
        ),
        f"  line 5: {root / 'masks' / 'shelf.png'} has 3 channels; label images have one",
    ]
    (root / "images" / "desk.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"line 2: .*desk.jpg is no picture that can be read"):
        PhraseFolder(root)


def test_a_picture_that_the_camera_turned_has_the_size_that_it_is_read_with(root):
    turned = Image.fromarray(np.zeros((32, 24, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "images" / "desk.jpg", exif=exif)
    sample = PhraseFolder(root)[0]
    assert sample.rgb.shape == (24, 32, 3)
    assert sample.mask.shape == (24, 32)


def test_pictures_and_masks_are_checked_when_they_are_read(root):
    data = PhraseFolder(root)
    cv2.imwrite(str(root / "masks" / "desk_cup.png"), np.zeros((12, 32), np.uint8))
    with pytest.raises(DataError, match=r"phrases.csv, line 2: masks/desk_cup.png is 32 x 12 pixels and images/"):
        data[0]
    cv2.imwrite(str(root / "masks" / "desk_cup.png"), np.zeros((24, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"phrases.csv, line 2: .*desk_cup.png has 3 channels"):
        data[0]
    (root / "images" / "shelf.png").write_text("no picture")
    with pytest.raises(DataError, match=r"phrases.csv, line 5: .*shelf.png is no picture"):
        data[2]
