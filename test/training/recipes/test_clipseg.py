# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.data.samples import ReferringSample
from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.clipseg.visual_prompts import visual_prompt
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.recipes.clipseg import CLIPSegRecipe, CLIPSegSettings
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.training.settings import SettingsError
from clip_seg_ros.zoo.build import StoredModel, build_from_file
from clip_seg_ros.zoo.vocabulary import grow
from nearness import assert_near, assert_same_training

WORDS = ("red", "green", "blue", "object", "the")
SMALL = CLIPSegSettings(steps=30, batch=8, learning_rate=2e-2, precision="float32", threads=2)


def model_config(tower: str) -> dict:
    """The configuration of a tiny CLIPSeg."""
    tokenizer = CompactTokenizer(WORDS, 8)
    if tower == "vit":
        vision = VisionConfig(3, 32, 64, 8, head_width=16)
        layers, widths, prefix = (0, 1, 2), (32, 32, 32), 1
    else:
        vision = VisionConfig((1, 1, 1, 1), 8, 64, output_stride=16)
        layers, widths, prefix = (2, 3, 4), (64, 128, 256), 0
    clip = ClipConfig(24, vision, TextConfig(8, tokenizer.vocab_size, 16, 2, 1))
    spec = InputSpec(64, "squash", 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    own = CLIPSegConfig(
        24, layers, widths, 8, prefix, spec, reduce_dim=16, n_heads=2, feed_forward=32, image_prompt_px=32
    )
    return {
        "kind": "clipseg",
        "clip": clip.to_dict(),
        "clipseg": own.to_dict(),
        "tokenizer": {"kind": "compact", "known_words": list(WORDS), "context_length": 8},
    }


@pytest.fixture(params=["vit", "resnet"])
def config(request) -> dict:
    return model_config(request.param)


def build(config: dict) -> CLIPSeg:
    torch.manual_seed(0)
    return CLIPSeg.from_config("tiny", config).eval()


class Scenes:
    """Asks for all objects, or for what is not there; every other sample has an example image."""

    def __init__(self, scenes: TabletopScenes) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def draw(self, index: int, rng: np.random.Generator) -> ReferringSample:
        top, left = rng.integers(0, [120 - 64, 160 - 64])
        window = slice(top, top + 64), slice(left, left + 64)
        mask = self._scenes.labels[index] > 0
        support = (self._scenes.rgb[index], mask) if index % 2 else None
        return ReferringSample(self._scenes.rgb[index][window], "the object", mask[window], str(index), support)


class Asking(Scenes):
    """The same, asked with other words."""

    def __init__(self, scenes: TabletopScenes, phrase: str) -> None:
        super().__init__(scenes)
        self._phrase = phrase

    def draw(self, index: int, rng: np.random.Generator) -> ReferringSample:
        return replace(super().draw(index, rng), phrase=self._phrase)


def test_the_loss_falls_and_clip_stays(few_scenes, tmp_path: Path) -> None:
    config = model_config("vit")
    model = build(config)
    before = {name: value.clone() for name, value in model.clip.state_dict().items()}
    recipe = CLIPSegRecipe(SMALL, model, Scenes(few_scenes), config)
    (stage,) = recipe.stages()
    Runner(recipe.module, tmp_path / "state.pt", 0, repr(SMALL), log_dir=tmp_path, log_every=5).run(stage)
    losses = [point["loss"] for point in read_curve(tmp_path / CURVE_NAME)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.clip.state_dict().items())


def test_what_is_saved_is_the_trained_model(few_scenes, config, tmp_path: Path) -> None:
    recipe = CLIPSegRecipe(replace(SMALL, steps=2), build(config), Scenes(few_scenes), config)
    Runner(recipe.module, tmp_path / "state.pt", 0).run(recipe.stages()[0])
    (path,) = recipe.save(tmp_path / "weights")
    loaded = build_from_file(path)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = (
            model.decode(model.encode_image(pixels), model.encode_text(["the red object"]))
            for model in (recipe.model, loaded)
        )
    assert path.name == "tiny.safetensors"
    assert torch.allclose(expected, found, atol=0.02), "half precision on disk costs a little"


def test_a_configuration_of_another_model_is_refused(few_scenes, tmp_path: Path) -> None:
    recipe = CLIPSegRecipe(SMALL, build(model_config("vit")), Scenes(few_scenes), model_config("resnet"))
    with pytest.raises(WeightsError, match=r"do not fit CLIPSeg|does not describe"):
        recipe.save(tmp_path)


def test_prompts_are_mixtures_where_there_is_an_example(few_scenes, config) -> None:
    model = build(config)
    recipe = CLIPSegRecipe(SMALL, model, Scenes(few_scenes), config)
    samples = [recipe._data.draw(index, np.random.default_rng(0)) for index in (1, 2, 3)]
    weights = np.array([0.25, 0.25, 1.0])
    with torch.no_grad():
        found = recipe._conditionals(samples, weights)
        text = model.encode_text(["the object"]).pooled[0]
        rgb, mask = samples[0].support
        mean, std = (torch.tensor(values)[:, None, None] for values in (model.input_spec.mean, model.input_spec.std))
        pixels = (torch.from_numpy(rgb).permute(2, 0, 1) / 255 - mean) / std
        image = model.encode_image_prompt(visual_prompt(pixels[None], torch.from_numpy(mask)[None], 32))[0]
    assert_near(found[0], 0.25 * text + 0.75 * image)
    assert_near(found[1], text, message="no example: the phrase alone")
    assert_near(found[2], text, message="the phrase's share is all")


def test_a_recipe_goes_on(few_scenes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("clip_seg_ros.training.runner._SAVE_EVERY_S", -1.0)
    settings, config = replace(SMALL, steps=8), model_config("vit")

    def train(name: str, die_at: int | None = None) -> CLIPSegRecipe:
        recipe = CLIPSegRecipe(settings, build(config), Scenes(few_scenes), config)
        (stage,) = recipe.stages()

        def load(number: int) -> None:
            if number == die_at:
                raise KeyboardInterrupt
            stage.before_batch(number)

        Runner(recipe.module, tmp_path / name, 0).run(replace(stage, before_batch=load))
        return recipe

    whole = train("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train("broken.pt", 5)
    resumed = train("broken.pt")
    start = CLIPSegRecipe(settings, build(config), Scenes(few_scenes), config).module.state_dict()
    assert_same_training(whole.module.state_dict(), resumed.module.state_dict(), start)


def test_a_decoder_may_go_on_or_start_anew(few_scenes) -> None:
    config = model_config("vit")
    model = build(config)
    trained = model.decoder.film_mul.weight.clone()
    kept = CLIPSegRecipe(replace(SMALL, fresh_decoder=False), model, Scenes(few_scenes), config)
    assert torch.equal(kept.module.film_mul.weight, trained)
    one, two = (CLIPSegRecipe(SMALL, model, Scenes(few_scenes), config).module.film_mul.weight for _ in range(2))
    assert_near(two, one)
    assert (one - trained).abs().max() > 1e-2


def test_mixed_precision_learns_too(few_scenes, tmp_path: Path) -> None:
    settings = replace(SMALL, steps=6, precision="bfloat16")
    config = model_config("vit")
    recipe = CLIPSegRecipe(settings, build(config), Scenes(few_scenes), config)
    Runner(recipe.module, tmp_path / "state.pt", 0, log_dir=tmp_path, log_every=1).run(recipe.stages()[0])
    losses = [point["loss"] for point in read_curve(tmp_path / CURVE_NAME)]
    assert losses[-1] < losses[0]
    assert recipe.module.film_mul.weight.dtype == torch.float32


def test_new_words_and_the_image_tower_learn_where_they_are_told_to(few_scenes, tmp_path: Path) -> None:
    config = model_config("resnet")
    start = StoredModel(config, build(config).state_dict(), "start")
    grown = grow(start, ["the object", "a gizmo"])
    assert set(grown.words) == {"a", "gizmo"} - set(config["tokenizer"]["known_words"])
    model = grown.stored.build("tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = replace(SMALL, steps=4, fresh_decoder=False, word_factor=5.0, image_factor=0.5, dice_weight=0.1)
    recipe = CLIPSegRecipe(settings, model, Asking(few_scenes, "a gizmo"), grown.stored.config, grown.rows)
    runner = Runner(recipe.module, tmp_path / "state.pt", 0, log_dir=tmp_path, log_every=1)
    runner.run(recipe.stages()[0])
    assert read_curve(tmp_path / CURVE_NAME)[0]["terms"].keys() == {"bce", "dice"}
    loaded = build_from_file(*recipe.save(tmp_path / "weights"))
    assert loaded.unknown_words("a gizmo") == ()
    assert loaded.unknown_words("a dragon") == ("dragon",)
    changed = {
        name for name, value in loaded.state_dict().items() if not torch.allclose(value, before[name], atol=2e-3)
    }
    table = "clip.token_embedding.weight"
    moved = (loaded.state_dict()[table] - before[table]).abs().amax(dim=1) > 2e-3
    assert moved.nonzero().flatten().tolist() == list(grown.rows), "new words learn, old ones do not"
    assert any(name.startswith("clip.visual.") for name in changed)
    assert any(name.startswith("decoder.") for name in changed)
    assert not any(name.startswith("clip.transformer.") or "running_" in name for name in changed)


def test_kept_phrases_are_answered_as_before_training(few_scenes) -> None:
    config = model_config("resnet")
    model = build(config)
    settings = replace(SMALL, batch=3, fresh_decoder=False, kept_phrases=("red object", "the blue object"))
    recipe = CLIPSegRecipe(settings, model, Scenes(few_scenes), config)
    recipe._samples = [recipe._data.draw(index, np.random.default_rng(index)) for index in range(3)]
    model.eval()
    with torch.no_grad():
        pixels = torch.stack([recipe._normalised(sample.rgb) for sample in recipe._samples[::2]])
        answers = model.decode(model.encode_image(pixels), model.encode_text(settings.kept_phrases)).double()
    # The least that cross-entropy can be is the entropy of the answers themselves.
    least = F.binary_cross_entropy_with_logits(answers, answers.sigmoid(), reduction="none").mean(dim=(2, 3))
    loss = recipe.terms(np.random.default_rng(0))["kept"].item()
    drawn = np.random.default_rng(0)
    drawn.uniform(size=3)
    phrases = drawn.integers(2, size=3)[::2]
    assert loss == pytest.approx(float(np.mean([least[row, phrase] for row, phrase in enumerate(phrases)])), rel=1e-4)
    with torch.no_grad():
        for parameter in model.decoder.trans_conv.parameters():
            parameter += 1
    assert recipe.terms(np.random.default_rng(0))["kept"].item() > 1.001 * loss, "training does not change what is kept"


def test_a_kept_phrase_must_be_known(few_scenes) -> None:
    config = model_config("resnet")
    with pytest.raises(ValueError, match='kept_phrases: tiny never knew "dragon", of "the dragon"'):
        CLIPSegRecipe(replace(SMALL, kept_phrases=("the dragon",)), build(config), Scenes(few_scenes), config)


def test_ignored_pixels_are_not_learnt_from(few_scenes) -> None:
    config = model_config("vit")
    recipe = CLIPSegRecipe(SMALL, build(config), Scenes(few_scenes), config)
    samples = [recipe._data.draw(index, np.random.default_rng(index)) for index in (1, 2)]
    ignored = np.random.default_rng(0).random(samples[0].mask.shape) > 0.6
    recipe._samples = [replace(samples[0], ignored=ignored), samples[1]]
    seen = []
    recipe.module.eval().register_forward_hook(lambda module, given, logits: seen.append(logits))
    loss = recipe.terms(np.random.default_rng(0))["bce"]
    entropies = []
    for logits, sample in zip(seen[0].tolist(), recipe._samples, strict=True):
        for y, row in enumerate(logits):
            for x, logit in enumerate(row):
                if sample.ignored is None or not sample.ignored[y, x]:
                    # -log of the probability of what is there.
                    entropies.append(math.log1p(math.exp(-logit if sample.mask[y, x] else logit)))
    assert loss.item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert len(entropies) < sum(sample.mask.size for sample in samples)
    seen[0].retain_grad()
    loss.backward()
    assert not seen[0].grad[0][torch.from_numpy(ignored)].any()


def test_samples_of_different_sizes_are_refused(few_scenes) -> None:
    config = model_config("vit")
    recipe = CLIPSegRecipe(SMALL, build(config), Scenes(few_scenes), config)
    sample = recipe._data.draw(0, np.random.default_rng(0))
    recipe._samples = [sample, replace(sample, rgb=sample.rgb[:32], mask=sample.mask[:32])]
    with pytest.raises(ValueError, match="one size, not 64x32, 64x64"):
        recipe.terms(np.random.default_rng(0))


def test_settings_are_checked() -> None:
    assert CLIPSegSettings.from_mapping({"text_weight": [0, 0.75]}).text_weight == (0, 0.75)
    with pytest.raises(SettingsError, match=r"stpes.; did you mean steps"):
        CLIPSegSettings.from_mapping({"stpes": 3})
    with pytest.raises(ValueError, match=r"a range within 0..1"):
        CLIPSegSettings(text_weight=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"negative_probability must lie in 0..1, got 1.5"):
        CLIPSegSettings(negative_probability=1.5)


def test_examples_are_changed_in_the_style_of_the_model(few_scenes) -> None:
    config = model_config("vit")
    config["clipseg"]["example_style"] = {"blur_sigma": 1.0, "intensity": 0.5, "margin": None}
    model = build(config)
    recipe = CLIPSegRecipe(SMALL, model, Scenes(few_scenes), config)
    (sample,) = [recipe._data.draw(1, np.random.default_rng(0))]
    with torch.no_grad():
        found = recipe._conditionals([sample], np.array([0.0]))
        rgb, mask = sample.support
        style = model.decoder.config.example_style
        cut = visual_prompt(recipe._normalised(rgb)[None], torch.from_numpy(mask)[None], 32, style)
        assert_near(found, model.encode_image_prompt(cut))


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",)])
def test_templates_have_one_place_for_the_phrase(templates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="templates must be sentences with one"):
        replace(SMALL, templates=templates)


def test_examples_are_needed_unless_the_phrase_is_all() -> None:
    assert SMALL.uses_examples
    assert not replace(SMALL, text_weight=(1.0, 1.0)).uses_examples
