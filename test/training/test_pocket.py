import numpy as np
import pytest
import torch

from clip_seg_ros.models.factory import build_segmenter
from clip_seg_ros.training.pocket import PocketSettings, PocketTrainer, StageSettings, mask_loss, save_pocket
from clip_seg_ros.training.runner import Runner

PX = (64, 64)


def settings(steps=2):
    return PocketSettings(
        scenes=12,
        crops=StageSettings(steps, 8, 1e-3),
        joint=StageSettings(steps, 2, 1e-3, phrases=2, crops=4, scene_px=PX),
        decoder=StageSettings(steps, 2, 1e-3, phrases=2, scene_px=PX),
        width=8,
        layers=(1, 1, 1, 1),
        embed_dim=32,
        text_width=32,
        text_layers=1,
        reduce_dim=16,
        feed_forward=32,
        input_px=64,
    )


@pytest.fixture(scope="module")
def trained(few_scenes, tmp_path_factory):
    trainer = PocketTrainer(settings(), few_scenes)
    before = {name: value.clone() for name, value in trainer.state_dict().items()}
    trainer.run(Runner(trainer, tmp_path_factory.mktemp("run") / "state.pt", 0))
    return trainer, before


def test_every_part_of_the_model_is_trained(trained):
    trainer, before = trained
    same = [name for name, value in trainer.named_parameters() if torch.equal(value, before[name])]
    assert same == []


def test_the_decoder_stage_holds_the_towers_still(few_scenes):
    trainer = PocketTrainer(settings(), few_scenes)
    trainer._freeze_towers()
    sum(trainer._decoder_terms(np.random.default_rng(0)).values()).backward()
    assert all(p.grad is None for p in trainer.model.clip.parameters())
    assert all(p.grad is not None for p in trainer.model.decoder.parameters())
    assert not trainer.model.clip.training


def test_saved_weights_are_the_trained_model(trained, tmp_path):
    trainer, _ = trained
    save_pocket(trainer, tmp_path)
    loaded = build_segmenter("clipseg-pocket", tmp_path)
    pixels = torch.rand(1, 3, 64, 96)
    prompts = ["red cup", "a photo of the violet mug."]
    with torch.inference_mode():
        expected, found = (
            model.decode(model.encode_image(pixels), model.encode_text(prompts)) for model in (trainer.model, loaded)
        )
    assert torch.allclose(expected, found, atol=0.05), "half precision on disk costs a little"
    assert loaded.input_spec == trainer.model.input_spec
    assert loaded.unknown_words("red giraffe") == ("giraffe",)


def test_the_loss_of_masks_against_the_obvious_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    masks = (torch.rand(2, 3, 4, 5, generator=generator) > 0.6).float()
    masks[1, 2] = 0
    entropy, dices = [], []
    for b in range(2):
        for p in range(3):
            probability = 1 / (1 + np.exp(-logits[b, p].numpy().astype(float)))
            mask = masks[b, p].numpy()
            entropy += list(-(mask * np.log(probability) + (1 - mask) * np.log(1 - probability)).ravel())
            if mask.any():
                dices.append(1 - (2 * (probability * mask).sum() + 1) / (probability.sum() + mask.sum() + 1))
    terms = mask_loss(logits, masks)
    assert float(terms["bce"]) == pytest.approx(10 * np.mean(entropy), rel=1e-5)
    assert float(terms["dice"]) == pytest.approx(np.mean(dices), rel=1e-5)


def test_without_anything_to_find_only_the_entropy_counts():
    terms = mask_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert float(terms["dice"]) == 0 and float(terms["bce"]) > 0


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="widht"):
        PocketSettings.from_mapping({"scenes": 1, "widht": 3, **{n: {"steps": 1, "batch": 1, "learning_rate": 1.0}
                                                                 for n in ("crops", "joint", "decoder")}})  # fmt: skip


def test_a_batch_in_which_nothing_has_a_colour_still_has_a_loss(few_scenes, monkeypatch):
    monkeypatch.setattr("clip_seg_ros.training.batches._RECOLORED_SHARE", 1.1)
    trainer = PocketTrainer(settings(), few_scenes)
    for terms in (trainer._crop_terms(np.random.default_rng(0)), trainer._joint_terms(np.random.default_rng(0))):
        assert all(torch.isfinite(value) for value in terms.values()), terms
