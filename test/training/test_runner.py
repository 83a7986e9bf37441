import pytest
import torch
from torch import nn

from clip_seg_ros.training import runner as runner_module
from clip_seg_ros.training.runner import Runner, Stage


class Killed(Exception):
    pass


def make_stage(model, steps=30, die_at=None, name="fit"):
    calls = iter(range(steps + 1))

    def loss(rng):
        if next(calls) == die_at:
            raise Killed
        x = torch.from_numpy(rng.normal(size=(16, 3)).astype("float32"))
        return {"fit": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    return Stage(name, steps, 0.05, 0.01, model, loss, warmup_steps=5)


def make_model():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_training_learns(tmp_path):
    model = make_model()
    Runner(model, tmp_path / "state.pt", 0).run(make_stage(model, 200))
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.1)


@pytest.mark.parametrize("die_at", [1, 17])
def test_a_killed_run_ends_exactly_where_an_undisturbed_one_does(tmp_path, monkeypatch, die_at):
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    whole = make_model()
    Runner(whole, tmp_path / "whole.pt", 0).run(make_stage(whole))

    broken = make_model()
    with pytest.raises(Killed):
        Runner(broken, tmp_path / "broken.pt", 0).run(make_stage(broken, die_at=die_at))
    resumed = make_model()
    Runner(resumed, tmp_path / "broken.pt", 0).run(make_stage(resumed))
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_a_finished_stage_is_not_run_again(tmp_path):
    model = make_model()
    runner = Runner(model, tmp_path / "state.pt", 0)
    runner.run(make_stage(model))
    trained = model.weight.clone()
    again = Runner(make_model(), tmp_path / "state.pt", 0)
    again.run(make_stage(again.model, die_at=0))
    assert torch.equal(again.model.weight, trained)
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
