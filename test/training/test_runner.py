# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch
from torch import nn

from clip_seg_ros.training import runner as runner_module
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.optimizer import Schedule, Warmup, rising
from clip_seg_ros.training.runner import Runner, Stage, Validation
from nearness import assert_near


class Killed(Exception):
    pass


def make_stage(model, steps=30, die_at=None, name="fit"):
    calls = iter(range(steps + 1))

    def loss(rng):
        if next(calls) == die_at:
            raise Killed
        x = torch.from_numpy(rng.normal(size=(16, 3)).astype("float32"))
        return {"fit": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    return Stage(name, steps, 0.05, 0.01, model, loss, warmup=rising(5))


def make_model():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_training_learns(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model, 200))
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.1)


@pytest.mark.parametrize("die_at", [1, 17])
def test_a_killed_run_ends_where_an_undisturbed_one_does(tmp_path, monkeypatch, die_at):
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    whole = make_model()
    Runner(whole, tmp_path / "whole.pt", 0).run(make_stage(whole))

    broken = make_model()
    with pytest.raises(Killed):
        Runner(broken, tmp_path / "broken.pt", 0).run(make_stage(broken, die_at=die_at))
    resumed = make_model()
    Runner(resumed, tmp_path / "broken.pt", 0).run(make_stage(resumed))
    assert_near(resumed.weight, whole.weight, relative=1e-4)
    assert_near(resumed.bias, whole.bias, relative=1e-4, scale=1.0)


def test_a_finished_stage_is_not_run_again(tmp_path):
    model = make_model()
    runner = Runner(model, tmp_path / "state.pt", 0)
    runner.run(make_stage(model))
    trained = model.weight.clone()
    again = Runner(make_model(), tmp_path / "state.pt", 0)
    again.run(make_stage(again.model, die_at=0))
    assert torch.equal(again.model.weight, trained), "loaded"
    assert again.seconds.keys() == {"fit"}


def test_frozen_parameters_stay(tmp_path):
    model = make_model()
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model))
    assert torch.equal(model.bias, before)


def test_another_seed_does_not_take_over_a_run(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model))
    with pytest.raises(ValueError, match="belongs to a run with seed 0, not 1"):
        Runner(make_model(), tmp_path / "state.pt", 1)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    model = make_model()
    stage = Stage("bad", 3, 0.1, 0.0, model, lambda rng: {"x": model.weight.sum() * float("nan")})
    with pytest.raises(FloatingPointError, match="stage 'bad' is nan at step 0"):
        Runner(model, tmp_path / "state.pt", 0).run(stage)


def test_a_changed_recipe_does_not_take_over_a_run(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0, "30 steps").run(make_stage(model))
    with pytest.raises(ValueError, match="another recipe: use another folder, or delete the file"):
        Runner(make_model(), tmp_path / "state.pt", 0, "300 steps")


def test_a_damaged_state_is_said_in_words(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(ValueError, match="no training state that can be read"):
        Runner(make_model(), tmp_path / "state.pt", 0)


def test_a_state_that_lacks_something_is_said_in_words(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["optimizer"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="written by another version and lacks optimizer"):
        Runner(make_model(), tmp_path / "state.pt", 0)


def test_a_state_of_another_model_is_said_in_words(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model))
    with pytest.raises(ValueError, match="holds another model"):
        Runner(nn.Linear(4, 1), tmp_path / "state.pt", 0)


def test_a_state_of_other_parameters_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    model = make_model()
    with pytest.raises(Killed):
        Runner(model, tmp_path / "state.pt", 0).run(make_stage(model, die_at=9))
    model = make_model()
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="does not fit stage 'fit'"):
        Runner(model, tmp_path / "state.pt", 0).run(make_stage(model))


def test_a_state_without_what_later_versions_added_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    whole = make_model()
    Runner(whole, tmp_path / "whole.pt", 0).run(make_stage(whole))
    broken = make_model()
    with pytest.raises(Killed):
        Runner(broken, tmp_path / "old.pt", 0).run(make_stage(broken, die_at=9))
    state = torch.load(tmp_path / "old.pt", weights_only=True)
    del state["scaler"], state["means"]
    for group in state["optimizer"]["param_groups"]:
        del group["rate_factor"]
    torch.save(state, tmp_path / "old.pt")
    resumed = make_model()
    Runner(resumed, tmp_path / "old.pt", 0).run(make_stage(resumed))
    assert_near(resumed.weight, whole.weight, relative=1e-4)
    assert_near(resumed.bias, whole.bias, relative=1e-4, scale=1.0)


def test_the_curve_holds_the_mean_of_every_term(tmp_path):
    model, values = make_model(), []
    stage = make_stage(model, 25)

    def loss(rng):
        terms = {**stage.loss(rng), "size": model.weight.abs().sum()}
        values.append({name: float(value.detach()) for name, value in terms.items()})
        return terms

    Runner(model, tmp_path / "state.pt", 0, log_dir=tmp_path / "log").run(replace(stage, loss=loss))
    points = read_curve(tmp_path / "log" / CURVE_NAME)
    assert [(point["stage"], point["step"]) for point in points] == [("fit", 9), ("fit", 19), ("fit", 24)]
    for point, part in zip(points, (values[:10], values[10:20], values[20:]), strict=True):
        for name in ("fit", "size"):
            assert point["terms"][name] == pytest.approx(sum(step[name] for step in part) / len(part))
        assert point["loss"] == pytest.approx(sum(point["terms"].values()))


def test_the_schedule_and_the_factors_reach_the_optimizer(tmp_path, monkeypatch):
    model, seen = make_model(), []
    original = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        seen.append({p.ndim: group["lr"] for group in self.param_groups for p in group["params"]})
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    stage = replace(
        make_stage(model, 8),
        warmup=Warmup(4, ratio=0.2),
        schedule=Schedule("milestones", milestones=(5,)),
        rate_factors=(("bias", 0.5),),
        factors_from=2,
    )
    Runner(model, tmp_path / "state.pt", 0).run(stage)
    full = [0.01, 0.02, 0.03, 0.04, 0.05, 0.005, 0.005, 0.005]
    assert [rates[2] for rates in seen] == pytest.approx(full)
    assert [rates[1] for rates in seen] == pytest.approx(full[:2] + [rate / 2 for rate in full[2:]])


def test_momentum_carries_steps_on(tmp_path, monkeypatch):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def stage(die_at=None):
        calls = iter(range(9))

        def loss(rng):
            if next(calls) == die_at:
                raise Killed
            return {"x": model.weight.sum()}

        return Stage("fit", 3, 0.1, 0.0, model, loss, schedule=Schedule("constant"), momentum=0.5)

    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    with pytest.raises(Killed):
        Runner(model, tmp_path / "state.pt", 0).run(stage(die_at=2))
    Runner(model, tmp_path / "state.pt", 0).run(stage())
    # The velocities are 1, 1.5 and 1.75, also after a run was stopped.
    assert model.weight.item() == pytest.approx(-0.425)


def test_gradients_are_clipped_only_where_it_is_asked_for(tmp_path, monkeypatch):
    norms = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, norm: norms.append(norm))
    for clip_norm in (None, 0.3):
        model = make_model()
        Runner(model, tmp_path / f"{clip_norm}.pt", 0).run(replace(make_stage(model, 2), clip_norm=clip_norm))
    assert norms == [0.3, 0.3]


class Scores:
    """A validation of a stage of ten steps, every third of them: its scores, and the weights that it saw."""

    def __init__(self, model, scores):
        self.model, self.left, self.seen = model, list(scores), []

    def __call__(self):
        self.model.eval()
        self.seen.append(self.model.weight.detach().clone())
        return self.left.pop(0)


def validated(model, scores, die_at=None):
    return replace(make_stage(model, 10, die_at), validation=Validation(3, scores))


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.7, 0.3, 0.2], 1), ([0.7, 0.1, 0.7, 0.2], 2), ([0, 0, 0, 1], 3)])
def test_the_weights_of_the_best_score_are_kept(tmp_path, capsys, scores, best):
    model = make_model()
    watched = Scores(model, scores)
    Runner(model, tmp_path / "state.pt", 0, log_dir=tmp_path).run(validated(model, watched))
    assert len(watched.seen) == 4, "at steps 3, 6 and 9, and at the end"
    assert torch.equal(model.weight, watched.seen[best])
    assert not torch.equal(model.weight, watched.seen[best - 1])
    assert model.training, "each module's mode is restored"
    assert f"at step 10; the best is {max(scores):.4f} of step {(3, 6, 9, 10)[best]}" in capsys.readouterr().out
    points = [(point["step"], point["score"]) for point in read_curve(tmp_path / CURVE_NAME) if "score" in point]
    assert points == list(zip((2, 5, 8, 9), scores))
    again = make_model()
    Runner(again, tmp_path / "state.pt", 0)
    assert torch.equal(again.weight, model.weight), "the state holds them, too"


def test_a_killed_run_remembers_its_best_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    broken = make_model()
    scores = Scores(broken, [0.9, 0.5])
    with pytest.raises(Killed):
        Runner(broken, tmp_path / "state.pt", 0).run(validated(broken, scores, die_at=7))
    resumed = make_model()
    Runner(resumed, tmp_path / "state.pt", 0).run(validated(resumed, Scores(resumed, [0.6, 0.7])))
    assert torch.equal(resumed.weight, scores.seen[0])


def test_a_score_that_is_none_is_said(tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match="nothing to measure"):
        Runner(model, tmp_path / "state.pt", 0).run(validated(model, lambda: float("nan")))
    with pytest.raises(ValueError, match="every 1 step or more"):
        Validation(0, lambda: 1.0)


def test_accumulated_batches_are_one_large_batch(tmp_path):
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))

    def train(folder, parts, accumulation):
        model, numbers = make_model(), []

        def loss(rng):
            batch = parts[numbers[-1] % len(parts)]
            return {"fit": (model(batch) - batch.sum(1, keepdim=True)).square().mean()}

        stage = Stage(
            "fit", 20, 0.05, 0.01, model, loss, warmup=rising(5), accumulation=accumulation, before_batch=numbers.append
        )
        Runner(model, tmp_path / folder / "state.pt", 0, log_dir=tmp_path / folder).run(stage)
        assert numbers == list(range(20 * accumulation))
        losses = [point["loss"] for point in read_curve(tmp_path / folder / CURVE_NAME)]
        return model.weight, losses

    weight, losses = train("whole", [x.flatten(0, 1)], 1)
    accumulated, accumulated_losses = train("parts", list(x), 4)
    assert_near(weight, accumulated)
    assert_near(losses, accumulated_losses)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_learns_in_mixed_precision_and_resumes(tmp_path, monkeypatch, precision):
    model = make_model()
    Runner(model, tmp_path / "whole.pt", 0).run(replace(make_stage(model, 100), precision=precision))
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.2)
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    broken = make_model()
    with pytest.raises(Killed):
        Runner(broken, tmp_path / "state.pt", 0).run(replace(make_stage(broken, 100, die_at=17), precision=precision))
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", 60.0)
    resumed = make_model()
    Runner(resumed, tmp_path / "state.pt", 0).run(replace(make_stage(resumed, 100), precision=precision))
    assert_near(resumed.weight, model.weight, relative=1e-2)
