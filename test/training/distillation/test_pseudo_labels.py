# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sources.images import FolderPictures
from clip_seg_ros.training.distillation import pseudo_labels
from clip_seg_ros.training.distillation.pseudo_labels import (
    LabelledPictures,
    Labeller,
    LabelSettings,
    hard_labels,
    label_pictures,
)

HUES = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "background": (120, 120, 120)}
CLASSES = ("red", "green", "blue")


@dataclass(frozen=True)
class Shown(ImageFeatures):
    pixels: torch.Tensor


class ColorTeacher(PromptableSegmenter):
    """Knows colours by their distance in RGB."""

    name, competition, background_prompts = "colors", "softmax", ("background",)
    input_spec = InputSpec(32, "short_side", 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    asked = 0

    def __init__(self):
        super().__init__()
        self.sharpness = torch.nn.Parameter(torch.tensor(20.0))

    def encode_image(self, pixels):
        self.asked += 1
        return Shown(pixels)

    def encode_text(self, prompts):
        return TextFeatures(torch.tensor([HUES[prompt] for prompt in prompts]) / 255.0)

    def decode(self, image, text):
        away = (image.pixels[:, None] - text.pooled[None, :, :, None, None]).square().sum(dim=2)
        return -self.sharpness * away


@pytest.fixture
def pictures(tmp_path):
    """A folder of twelve pictures of squares on grey, and one broken file."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        rng = np.random.default_rng(index)
        rgb = np.full((64, 80, 3), HUES["background"], np.uint8)
        for left, name in zip((4, 30, 56), rng.permutation(CLASSES), strict=True):
            top = int(rng.integers(4, 40))
            rgb[top : top + 20, left : left + 20] = HUES[name]
        rgb += rng.integers(0, 20, rgb.shape, np.uint8)
        cv2.imwrite(str(folder / f"{index:02d}.png"), rgb[..., ::-1])
    (folder / "05x.png").write_bytes(b"broken")
    return folder


def make_labeller(classes=CLASSES, **settings):
    return Labeller(Predictor.from_model(ColorTeacher(), "cpu"), classes, LabelSettings(**settings))


def slow_labels(values, competing, background_added, settings):
    """Pixel by pixel, as the text says it."""
    prompts, height, width = values.shape
    shares = np.empty((prompts + 1, height, width))
    for y in range(height):
        for x in range(width):
            column = values[:, y, x].astype(float)
            rest = max(0.0, 1 - column.sum()) if competing else 1 - column.max()
            shares[:, y, x] = np.append(column, rest) / (column.sum() + rest)
    here = [p for p in range(prompts) if shares[p].max() >= settings.denoising]
    labels = np.full((height, width), IGNORED)
    for y in range(height):
        for x in range(width):
            total = shares[here, y, x].sum() + shares[prompts, y, x]
            left = {p: shares[p, y, x] / total for p in here}
            best = max(left, key=left.get, default=None)
            if best is None or left[best] < settings.background_below or shares[prompts, y, x] / total > left[best]:
                labels[y, x] = prompts if background_added else IGNORED
            elif left[best] >= settings.confidence:
                labels[y, x] = best
    return labels


@pytest.mark.parametrize("competing", [True, False])
@pytest.mark.parametrize("background_added", [True, False])
def test_hard_labels_equal_the_slow_way(competing, background_added):
    rng = np.random.default_rng(0)
    settings = LabelSettings(confidence=0.6, background_below=0.45, denoising=0.55)
    kinds = set()
    for _ in range(20):
        logits = rng.normal(0, 1.5, (5, 6, 7))
        logits[rng.integers(4)] -= 3  # some class is nowhere
        values = (np.exp(logits) / np.exp(logits).sum(axis=0))[:4] if competing else 1 / (1 + np.exp(-logits[:4]))
        values = values.astype(np.float32)
        labels = hard_labels(values, competing, background_added, settings)
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, slow_labels(values, competing, background_added, settings))
        kinds |= set(np.unique(labels).tolist())
    assert kinds == {0, 1, 2, 3, IGNORED} | ({4} if background_added else set())


def test_a_background_is_added_only_where_the_list_has_none(monkeypatch):
    assert make_labeller().class_names == (*CLASSES, "background")
    assert make_labeller(("red", "background")).class_names == ("red", "background")
    assert not make_labeller(("red", "background")).background_added
    monkeypatch.setitem(HUES, "table", HUES["background"])  # of MaskCLIP's own list, not this teacher's
    assert make_labeller(("red", "table")).class_names == ("red", "table")


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        ((), "empty"),
        (("red", " "), "empty name"),
        (("red", "red"), "twice"),
        (tuple(map(str, range(255))), "at most 254"),
    ],
)
def test_class_lists_that_cannot_be_used(classes, fault):
    with pytest.raises(ValueError, match=fault):
        make_labeller(classes)


@pytest.mark.parametrize("settings", [{"confidence": 1.1}, {"confidence": 0.4, "background_below": 0.5}])
def test_thresholds_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="must"):
        LabelSettings(**settings)


def test_pictures_are_labelled_once(pictures, tmp_path):
    labeller, work = make_labeller(), tmp_path / "work"
    labelled = label_pictures(FolderPictures(pictures), labeller, work)
    assert labelled.indices == (*range(6), *range(7, 13))
    assert len(labelled.unreadable) == 1
    assert "05x.png is no picture" in labelled.unreadable[0]
    assert labeller.teacher.engine.model.asked == 12
    rgb, labels = labelled.rgb(3), labelled.labels(3)
    assert np.array_equal(rgb, cv2.imread(str(pictures / "03.png"))[..., ::-1])
    for place, name in enumerate(labeller.class_names):
        assert np.abs(rgb[labels == place].mean(axis=0) - np.array(HUES[name]) - 10).max() < 12
    assert labelled.pixel_counts(4, labelled.indices).sum() == 12 * 64 * 80
    # Killed while it wrote: what is half there is made again, and nothing else.
    (work / "labels" / "000003.png").rename(work / "labels" / "000003.part")
    again = label_pictures(FolderPictures(pictures), labeller, work)
    assert labeller.teacher.engine.model.asked == 13
    assert again.indices == labelled.indices
    assert np.array_equal(again.labels(3), labels)


def test_large_pictures_are_kept_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_labels, "STORED_SHORT_SIDE_PX", 40)
    cv2.imwrite(str(tmp_path / "big.png"), np.full((80, 120, 3), HUES["red"][::-1], np.uint8))
    labelled = label_pictures(FolderPictures(tmp_path), make_labeller(), tmp_path / "work")
    assert labelled.rgb(0).shape == (40, 60, 3)
    assert labelled.labels(0).shape == (40, 60)
    assert (labelled.labels(0) == 0).all()


def test_labels_of_something_else_are_not_taken(pictures, tmp_path):
    label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    with pytest.raises(DataError, match="made with other classes: use another folder, or delete it"):
        label_pictures(FolderPictures(pictures), make_labeller(("red", "green")), tmp_path / "work")
    (pictures / "00.png").unlink()
    with pytest.raises(DataError, match="made with other settings and pictures"):
        label_pictures(FolderPictures(pictures), make_labeller(confidence=0.9), tmp_path / "work")


def test_a_tenth_is_held_out(pictures, tmp_path):
    labelled = label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    split = labelled.split()
    assert (split.to_choose, split.measured) == ((), (0, 11))
    assert sorted((*split.trained, *split.measured)) == list(labelled.indices)
    with pytest.raises(DataError, match="at least 2 pictures that can be read, got 1"):
        LabelledPictures(tmp_path, (3,), ()).split()


@pytest.mark.parametrize(("count", "chosen"), [(3, (2,)), (5, (4,)), (12, (5,)), (30, (5, 15, 25))])
def test_weights_are_chosen_on_pictures_that_measure_nothing(tmp_path, count, chosen):
    split = LabelledPictures(tmp_path, tuple(range(count)), ()).split(to_choose=True)
    assert split.to_choose == chosen
    assert split.measured == tuple(range(0, count, 10))
    assert sorted((*split.trained, *split.to_choose, *split.measured)) == list(range(count))
    assert split.trained
    with pytest.raises(DataError, match="at least 3 pictures"):
        LabelledPictures(tmp_path, (3, 4), ()).split(to_choose=True)


def test_some_pictures_are_labelled_and_all_are_stored(pictures, tmp_path):
    labeller = make_labeller()
    stored = label_pictures(FolderPictures(pictures), labeller, tmp_path / "work", every=10)
    assert [index for index in stored.indices if stored.has_labels(index, "labels")] == [0, 11]
    assert stored.split().measured == (0, 11)
    assert all(stored.rgb(index).shape == (64, 80, 3) for index in stored.indices)
    assert labeller.teacher.engine.model.asked == 2


def test_without_a_background_every_pixel_has_a_class():
    picture = np.array([[HUES["red"], HUES["green"], HUES["background"]]] * 4, np.uint8)
    labeller = Labeller(
        Predictor.from_model(ColorTeacher(), "cpu"), ("red", "green"), LabelSettings(0.0, 0.0, 0.0), background=False
    )
    labels = labeller(picture)
    assert labeller.class_names == ("red", "green")
    assert labels[:, :2].tolist() == [[0, 1]] * 4
    assert set(labels[:, 2].tolist()) <= {0, 1}
    assert make_labeller(("red", "green"))(picture)[:, 2].tolist() == [2] * 4


def test_views_are_seen_at_their_own_size():
    labeller = make_labeller().for_views(64)
    sizes = []
    encode = labeller.teacher.engine.model.encode_image
    labeller.teacher.engine.model.encode_image = lambda pixels: sizes.append(tuple(pixels.shape)) or encode(pixels)
    picture = np.full((64, 64, 3), HUES["red"], np.uint8)
    labels = labeller.batch([picture, picture])
    assert sizes == [(2, 3, 64, 64)]
    assert [found.tolist() for found in labels] == [[[0] * 64] * 64] * 2


def test_the_same_name_with_other_weights_is_another_teacher(pictures, tmp_path):
    label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    other = make_labeller()
    other.teacher.engine.model.sharpness.data += 1
    with pytest.raises(DataError, match="made with other teacher"):
        label_pictures(FolderPictures(pictures), other, tmp_path / "work")


def test_other_words_may_ask_for_the_classes(pictures, tmp_path):
    teacher = Predictor.from_model(ColorTeacher(), "cpu")
    labeller = Labeller(teacher, ("rouge", "vert"), LabelSettings(), asked=("red", "green"))
    picture = np.array([[HUES["red"], HUES["green"]]] * 4, np.uint8)
    assert labeller(picture).tolist() == [[0, 1]] * 4
    assert labeller.class_names == ("rouge", "vert", "background")
    label_pictures(FolderPictures(pictures), labeller, tmp_path / "work")
    turned = Labeller(teacher, ("rouge", "vert"), LabelSettings(), asked=("green", "red"))
    with pytest.raises(DataError, match="made with other asked"):
        label_pictures(FolderPictures(pictures), turned, tmp_path / "work")
    plain = Labeller(teacher, ("red", "green"), LabelSettings())
    with pytest.raises(DataError, match="made with other classes and asked"):
        label_pictures(FolderPictures(pictures), plain, tmp_path / "work")
    for asked in (("red",), ("red", "red")):
        with pytest.raises(ValueError, match="each class needs a phrase of its own, got red"):
            Labeller(teacher, ("rouge", "vert"), LabelSettings(), asked=asked)


def test_a_teacher_with_a_list_is_asked_about_that_list_alone():
    teacher = ColorTeacher()
    teacher.class_names, teacher.background_prompts = ("red", "green", "background"), ()
    labeller = Labeller(Predictor.from_model(teacher, "cpu"), ("red",), LabelSettings())
    labels = labeller(np.array([[HUES["red"], HUES["green"], HUES["background"]]] * 4, np.uint8))
    assert labels.tolist() == [[0, 1, 1]] * 4
    assert labeller.class_names == ("red", "background")
    with pytest.raises(ValueError, match="colors knows a fixed list of classes, without fork, spoon"):
        Labeller(Predictor.from_model(teacher, "cpu"), ("red", "fork", "spoon"), LabelSettings())
