# SPDX-License-Identifier: Apache-2.0
"""What the models are asked, on the embedded weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers, at_scale, with_antialias, with_templates
from clip_seg_ros.pipeline.predictor import Predictor
from color_segmenter import ColorSegmenter
from nearness import assert_near


@pytest.fixture(scope="module")
def maskclip() -> Predictor:
    return Predictor.from_name("maskclip-pocket", "cpu", engine="eager")


def assert_labels(found: np.ndarray, expected: np.ndarray) -> None:
    """Rounding may tip a pixel where two classes are equal."""
    assert found.shape == expected.shape
    assert np.mean(found == expected) > 0.999


def test_a_phrase_gets_the_models_own_answer(clipseg: Predictor, scenes: list) -> None:
    sample = scenes[0]
    expected = clipseg.predict(sample.rgb, [sample.phrase]).values[0]
    assert_near(PhraseAnswers(clipseg).probabilities(sample), expected)


def test_phrases_are_averaged_over_templates(clipseg: Predictor, maskclip: Predictor, scenes: list) -> None:
    rgb, phrase = scenes[0].rgb, scenes[0].phrase
    for model in (clipseg, maskclip):
        before = model.predict(rgb, [phrase]).values
        assert with_templates(model, None) is model
        assert_near(with_templates(model, ["{}"]).predict(rgb, [phrase]).values, before)
        other = with_templates(model, ["{}", "the floor, no {}"]).predict(rgb, [phrase]).values
        assert abs(other - before).max() > 0.01
        assert_near(model.predict(rgb, [phrase]).values, before)  # the model is as it was


def test_models_that_read_words_take_no_templates() -> None:
    with pytest.raises(ValueError, match="this model is color"):
        with_templates(Predictor.from_model(ColorSegmenter(), "cpu"), ["{}"])


def test_images_are_smoothed_or_not(clipseg: Predictor) -> None:
    plain = with_antialias(clipseg, False)
    assert not plain.spec.input.antialias
    assert clipseg.spec.input.antialias, "the model is as it was"
    assert with_antialias(clipseg, None) is with_antialias(clipseg, True) is clipseg
    # Rows of dots, which smoothing makes grey, and of which one pixel in three alone may see nothing but black.
    dots = np.zeros((576, 768, 3), np.uint8)
    dots[::3, ::3] = 255
    one, other = (each.encode(dots).features.taps[0] for each in (clipseg, plain))
    assert (one - other).abs().mean() > 0.01 * one.abs().mean()


def test_an_image_is_encoded_once_for_all_its_phrases(
    clipseg: Predictor, scenes: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = clipseg.encode
    monkeypatch.setattr(clipseg, "encode", lambda rgb: encoded.append(rgb) or encode(rgb))
    answers = PhraseAnswers(clipseg)
    for sample in scenes:
        # Data sets read the picture again for every phrase.
        answers.probabilities(replace(sample, rgb=sample.rgb.copy()))
    assert len(encoded) == len({sample.rgb.tobytes() for sample in scenes}) < len(scenes)


def test_example_images_alone_and_mixed(clipseg: Predictor, scenes: list) -> None:
    sample = replace(scenes[0], support=(scenes[0].rgb, scenes[0].mask))
    text = PhraseAnswers(clipseg).probabilities(sample)
    image = PhraseAnswers(clipseg, "image").probabilities(sample)
    clipseg.add_image_prompt("it", *sample.support)
    assert_near(image, clipseg.predict(sample.rgb, ["it"]).values[0])
    clipseg.remove_image_prompt("it")
    assert np.abs(text - image).max() > 0.01
    assert_near(PhraseAnswers(clipseg, "mixed", 1.0).probabilities(sample), text)
    assert_near(PhraseAnswers(clipseg, "mixed", 0.0).probabilities(sample), image)
    with pytest.raises(KeyError):
        clipseg.remove_image_prompt("the example")


def test_a_sample_without_an_example_says_so(clipseg: Predictor, scenes: list) -> None:
    with pytest.raises(DataError, match=f"{scenes[0].name} has no example image"):
        PhraseAnswers(clipseg, "image").probabilities(scenes[0])


def test_labels_are_the_best_class_with_the_background_three_times(clipseg: Predictor, scenes: list) -> None:
    names = ("cup", "background", "ball")
    values = clipseg.predict(scenes[0].rgb, names).values * np.float32([1, 3, 1])[:, None, None]
    assert_labels(LabelAnswers(clipseg, names).labels(scenes[0].rgb), values.argmax(axis=0))


def test_with_a_threshold_the_background_is_what_no_class_reaches(clipseg: Predictor, scenes: list) -> None:
    rgb = scenes[0].rgb
    cup, ball = clipseg.predict(rgb, ["cup", "ball"]).values
    labels = LabelAnswers(clipseg, ("cup", "background", "ball"), threshold=0.4).labels(rgb)
    expected = np.where(np.maximum(cup, ball) > 0.4, np.where(ball > cup, 2, 0), 1)
    assert_labels(labels, expected)
    assert len(np.unique(expected)) > 1
    with pytest.raises(ValueError, match="no such class"):
        LabelAnswers(clipseg, ("cup", "ball"), threshold=0.4)


def test_where_prompts_compete_the_background_has_its_own_phrases(maskclip: Predictor, scenes: list) -> None:
    rgb = scenes[0].rgb
    rest = [phrase for phrase in maskclip.spec.background_prompts if phrase != "background"]
    values = maskclip.predict(rgb, ["background", "cup", "ball", *rest]).values
    scores = np.stack([values[[0, *range(3, 3 + len(rest))]].max(axis=0), values[1], values[2]])
    labels = LabelAnswers(maskclip, ("background", "cup", "ball")).labels(rgb)
    assert_labels(labels, scores.argmax(axis=0))
    assert rest
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("name", ["clipseg", "maskclip"])
def test_scales_and_mirror_images_are_averaged(name: str, scenes: list, request: pytest.FixtureRequest) -> None:
    predictor, rgb, names = request.getfixturevalue(name), scenes[0].rgb, ("cup", "ball", "box")
    views = []
    for scale in (0.5, 1.25):
        scaled = at_scale(predictor, scale)
        assert scaled.encode(rgb).geometry.model_size != predictor.encode(rgb).geometry.model_size
        views.append(scaled.predict(rgb, names).values)
        views.append(scaled.predict(np.fliplr(rgb).copy(), names).values[:, :, ::-1])
    labels = LabelAnswers(predictor, names, (0.5, 1.25), flip=True, background_phrases=True).labels(rgb)
    expected = np.mean(views, axis=0).argmax(axis=0)
    assert_labels(labels, expected)
    assert predictor.spec.input != at_scale(predictor, 0.5).spec.input


def test_scale_one_is_the_predictor_itself(clipseg: Predictor) -> None:
    assert at_scale(clipseg, 1.0) is clipseg


def test_a_fixed_list_that_lacks_classes_is_refused(clipseg: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipseg.engine, "spec", replace(clipseg.spec, class_names=("cup", "ball")))
    LabelAnswers(clipseg, ("ball", "cup"))
    with pytest.raises(ValueError, match=r"only the 2 classes .* 1 of the data set's 2 .*\(sofa\)"):
        LabelAnswers(clipseg, ("cup", "sofa"))


def test_classes_may_be_asked_for_by_other_words(clipseg: Predictor, scenes: list) -> None:
    rgb = scenes[0].rgb
    named = LabelAnswers(clipseg, ("rest", "background", "kugel"), prompts=("cup", "background", "ball"))
    assert_labels(named.labels(rgb), LabelAnswers(clipseg, ("cup", "background", "ball")).labels(rgb))
    with pytest.raises(ValueError, match="two classes are asked for by the same words"):
        LabelAnswers(clipseg, ("cup", "mug"), prompts=("cup", "cup"))


def test_phrases_may_be_put_into_other_words(clipseg: Predictor, scenes: list) -> None:
    sample = replace(scenes[0], phrase="this", support=(scenes[0].rgb, scenes[0].mask))
    worded = {"wording": lambda phrase: scenes[0].phrase if phrase == "this" else phrase}
    assert_near(PhraseAnswers(clipseg, **worded).probabilities(sample), PhraseAnswers(clipseg).probabilities(scenes[0]))
    mixed = PhraseAnswers(clipseg, "mixed", 1.0, **worded).probabilities(sample)
    assert_near(mixed, PhraseAnswers(clipseg).probabilities(scenes[0]))


@pytest.mark.parametrize(
    ("names", "choice", "there"),
    [
        (("cup", "ball"), None, False),
        (("cup", "ball"), True, True),
        (("background", "cup"), None, True),
        (("background", "cup"), False, False),
    ],
)
def test_whether_the_models_background_competes(
    maskclip: Predictor, scenes: list, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], choice, there: bool
) -> None:
    asked = []
    encode = maskclip.engine.encode_text
    monkeypatch.setattr(maskclip.engine, "encode_text", lambda prompts: asked.extend(prompts) or encode(prompts))
    LabelAnswers(Predictor(maskclip.engine), names, background_phrases=choice).labels(scenes[0].rgb)
    assert set(names) <= set(asked)
    assert (set(maskclip.spec.background_prompts) <= {*asked, *names}) == there
    assert there or set(asked) == set(names)
