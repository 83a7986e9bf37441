import cv2
import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.data.image_sources import FolderPictures
from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.models.base import ImageFeatures, InputSpec, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.student import Student, StudentConfig, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training import maskclip_plus, runner
from clip_seg_ros.training.maskclip_plus import (
    Labeller,
    LabelSettings,
    MaskCLIPPlus,
    TrainSettings,
    crop_side,
    hard_labels,
    label_pictures,
    random_view,
)
from clip_seg_ros.training.runner import Runner

HUES = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "background": (120, 120, 120)}
CLASSES = ("red", "green", "blue")


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
        return ImageFeatures((), tuple(pixels.shape[2:]), dense=pixels)

    def encode_text(self, prompts):
        return TextFeatures(torch.tensor([HUES[prompt] for prompt in prompts]) / 255.0)

    def decode(self, image, text):
        away = (image.dense[:, None] - text.pooled[None, :, :, None, None]).square().sum(dim=2)
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
    return Labeller(Predictor(ColorTeacher(), "cpu"), classes, LabelSettings(**settings))


def make_student(class_names):
    """A student whose network is enough for colours, and fast."""
    torch.manual_seed(0)
    student = Student("s", StudentConfig("timm:mobilenetv3_small_050", class_names, imagenet_input(64)))
    layers = nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, len(class_names), 1)
    student.network = nn.Sequential(*layers)
    return student


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
        if competing:
            values = (np.exp(logits) / np.exp(logits).sum(axis=0))[:4]
        else:
            values = 1 / (1 + np.exp(-logits[:4]))
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
    assert len(labelled.unreadable) == 1 and "05x.png is no picture" in labelled.unreadable[0]
    assert labeller.teacher.model.asked == 12
    rgb, labels = labelled.rgb(3), labelled.labels(3)
    assert np.array_equal(rgb, cv2.imread(str(pictures / "03.png"))[..., ::-1])
    for place, name in enumerate(labeller.class_names):
        assert np.abs(rgb[labels == place].mean(axis=0) - np.array(HUES[name]) - 10).max() < 12
    assert labelled.pixel_counts(4).sum() == 12 * 64 * 80
    # Killed while it wrote: what is half there is made again, and nothing else.
    (work / "labels" / "000003.png").rename(work / "labels" / "000003.part")
    again = label_pictures(FolderPictures(pictures), labeller, work)
    assert labeller.teacher.model.asked == 13
    assert again.indices == labelled.indices and np.array_equal(again.labels(3), labels)


def test_large_pictures_are_kept_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(maskclip_plus, "STORED_SHORT_SIDE_PX", 40)
    cv2.imwrite(str(tmp_path / "big.png"), np.full((80, 120, 3), HUES["red"][::-1], np.uint8))
    labelled = label_pictures(FolderPictures(tmp_path), make_labeller(), tmp_path / "work")
    assert labelled.rgb(0).shape == (40, 60, 3)
    assert labelled.labels(0).shape == (40, 60) and (labelled.labels(0) == 0).all()


def test_labels_of_something_else_are_not_taken(pictures, tmp_path):
    label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    with pytest.raises(DataError, match="made with other classes: use another folder, or delete it"):
        label_pictures(FolderPictures(pictures), make_labeller(("red", "green")), tmp_path / "work")
    (pictures / "00.png").unlink()
    with pytest.raises(DataError, match="made with other settings and pictures"):
        label_pictures(FolderPictures(pictures), make_labeller(confidence=0.9), tmp_path / "work")


def test_a_tenth_is_held_out(pictures, tmp_path):
    labelled = label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    trained, held_out = labelled.split()
    assert held_out == (0, 11) and sorted((*trained, *held_out)) == list(labelled.indices)
    with pytest.raises(DataError, match="at least 2 pictures that can be read, got 1"):
        maskclip_plus.LabelledPictures(tmp_path, (3,), ()).split()


@pytest.mark.parametrize(("height", "width"), [(64, 200), (90, 60), (40, 40), (1, 7)])
def test_views_show_picture_and_labels_alike(height, width):
    truth = np.random.default_rng(0).integers(0, 3, (-(-height // 20), -(-width // 20)), np.uint8)
    labels = np.kron(truth, np.ones((20, 20), np.uint8))[:height, :width]
    rgb = np.repeat(labels[..., None] * 100, 3, axis=2)
    side = crop_side(96)
    assert side == 64
    for seed in range(20):
        view, view_labels = random_view(rgb, labels, np.random.default_rng(seed), 96, side)
        assert view.shape == (64, 64, 3) and view_labels.shape == (64, 64)
        assert (np.abs(view[..., 0] / 100 - view_labels) < 0.5).mean() > 0.85
    alone, nothing = random_view(rgb, None, np.random.default_rng(0), 96, side)
    assert alone.shape == (64, 64, 3) and nothing is None


def test_most_views_hold_the_rare_class():
    labels = np.zeros((100, 400), np.uint8)
    labels[10:14, 350:354] = 1
    rgb = np.zeros((100, 400, 3), np.uint8)
    rng = np.random.default_rng(0)
    held = [1 in random_view(rgb, labels, rng, 96, 64)[1] for _ in range(200)]
    assert 0.35 < np.mean(held) < 0.7  # 3 in 8 aim at it, and some others see it
    ignored = np.full_like(labels, IGNORED)
    assert random_view(rgb, ignored, rng, 96, 64)[1].min() == IGNORED


class Killed(Exception):
    pass


def train(labelled, settings, state_file, die_at=None):
    student = make_student(make_labeller().class_names)
    trainer = MaskCLIPPlus(student, labelled, labelled.split()[0], settings)
    draw, calls = trainer._views, iter(range(10**6))

    def views(rng, with_labels):
        if next(calls) == die_at:
            raise Killed
        return draw(rng, with_labels)

    trainer._views = views
    trainer.run(Runner(student, state_file, 0))
    return student


@pytest.mark.parametrize("die_at", [2, 5])
def test_a_killed_run_ends_exactly_where_an_undisturbed_one_does(pictures, tmp_path, monkeypatch, die_at):
    monkeypatch.setattr(runner, "_SAVE_EVERY_S", -1.0)
    labelled = label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    settings = TrainSettings(6, self_share=0.5, batch=2)
    whole = train(labelled, settings, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        train(labelled, settings, tmp_path / "broken.pt", die_at)
    resumed = train(labelled, settings, tmp_path / "broken.pt")
    assert not resumed.training
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_the_student_learns_its_teachers_classes_without_one_true_label(pictures, tmp_path):
    labeller = make_labeller()
    labelled = label_pictures(FolderPictures(pictures), labeller, tmp_path / "work")
    trained, held_out = labelled.split()
    student = make_student(labeller.class_names)
    settings = TrainSettings(80, self_share=0.2, batch=4, learning_rate=0.03)
    MaskCLIPPlus(student, labelled, trained, settings).run(Runner(student, tmp_path / "state.pt", 0))
    predictor = Predictor(student, "cpu")
    found = [predictor.predict(labelled.rgb(i), labeller.class_names).values.argmax(axis=0) for i in held_out]
    true = [labelled.labels(i) for i in held_out]
    for place in range(4):
        inside = np.stack(true) == place
        assert (np.stack(found)[inside] == place).mean() > 0.7, labeller.class_names[place]


def test_self_training_takes_the_students_own_labels_and_no_others(pictures, tmp_path):
    labelled = label_pictures(FolderPictures(pictures), make_labeller(), tmp_path / "work")
    student = make_student(make_labeller().class_names)
    # From here on the teacher's labels are gone.
    for path in (tmp_path / "work" / "labels").glob("*.png"):
        path.unlink()
    for confidence, learns in ((0.0, True), (1.0, False)):
        trainer = MaskCLIPPlus(student, labelled, (1, 2), TrainSettings(2, batch=2, confidence=confidence))
        loss = trainer._self_terms(np.random.default_rng(0))["self"]
        assert (float(loss.detach()) > 0) == learns and student.training
    with pytest.raises(DataError, match="is missing"):
        trainer._guided_terms(np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 9, "batch": 1}, {"steps": 9, "self_share": 1.0}])
def test_settings_that_cannot_be_trained_with(wrong):
    with pytest.raises(ValueError, match="needed are|must lie"):
        TrainSettings(**wrong)
