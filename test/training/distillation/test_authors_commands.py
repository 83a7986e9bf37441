# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/distill.md for the paper's setting, against the configurations of MaskCLIP+'s authors."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import pytest

from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input
from clip_seg_ros.tools import distill
from clip_seg_ros.training.distillation.student_training import StudentSettings, StudentTraining
from clip_seg_ros.training.distillation.zero_shot import ZeroShotSettings

ROOT = Path(__file__).parents[3]
AUTHORS = json.loads((ROOT / "test" / "data" / "authors_recipes.json").read_text())["maskclip_plus"]
SCHEDULE = AUTHORS["schedule"]
SETTING = (ROOT / "docs" / "distill.md").read_text().split("## The paper's setting")[1].split("\n## ")[0]


def parsed(command: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    distill.add_parser(parser.add_subparsers())
    return parser.parse_args(shlex.split(command.replace("\\\n", " "))[1:])


def commands() -> list[argparse.Namespace]:
    """The commands of the section: without annotations on PASCAL Context, and zero-shot on VOC."""
    block = SETTING.split("```bash\n")[1].split("```")[0]
    lines = "\n".join(line for line in block.splitlines() if not line.startswith("#"))
    return [parsed(f"clip-seg {each}") for each in lines.split("clip-seg ")[1:]]


@pytest.mark.parametrize(
    ("number", "part", "data"), [(0, "anno_free", "pascal_context_59"), (1, "zero_shot", "voc12aug_20")]
)
def test_the_commands_of_the_page_are_the_authors_configurations(number: int, part: str, data: str) -> None:
    args, wanted = commands()[number], AUTHORS[part][data]
    assert args.steps == wanted["max_iters"]
    assert args.batch == SCHEDULE["samples_per_gpu"] * SCHEDULE["gpus"]
    assert list(args.scales) == SCHEDULE["ratio_range"]
    assert (args.size, args.crop) == (min(wanted["img_scale"]), wanted["crop_size"])
    assert (args.optimizer, args.learning_rate) == (SCHEDULE["optimizer"].lower(), None), "the rate is the optimiser's"
    assert args.network == "deeplabv2_resnet101"


def test_the_descent_is_the_authors() -> None:
    student = Student("s", StudentConfig("timm:mobilenetv3_small_050", ("a", "b"), imagenet_input(96)))
    stage = StudentTraining(student, StudentSettings(9, optimizer="sgd")).stage("fit", 9, lambda rng: {})
    found = {"lr": stage.learning_rate, "momentum": stage.momentum, "weight_decay": stage.weight_decay}
    assert found == {name: SCHEDULE[name] for name in found}
    assert (stage.schedule.kind, stage.schedule.least) == (SCHEDULE["policy"], SCHEDULE["min_lr"])


@pytest.mark.parametrize(
    ("data", "said"), [("voc12aug_20", "2,000 for VOC"), ("coco-stuff164k", "8,000 for COCO-Stuff")]
)
def test_the_other_lengths_without_annotations_are_told(data: str, said: str) -> None:
    assert said in SETTING
    assert said.startswith(f"{AUTHORS['anno_free'][data]['max_iters']:,} ")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("voc12aug_20", "20,000 steps"),
        ("pascal_context", "40,000 for PASCAL Context"),
        ("coco-stuff164k", "80,000 for COCO-Stuff"),
    ],
)
def test_the_zero_shot_lengths_are_the_authors(data: str, said: str) -> None:
    wanted = AUTHORS["zero_shot"][data]
    assert said in SETTING
    assert said.startswith(f"{wanted['max_iters']:,} ")
    guided = ZeroShotSettings(wanted["max_iters"]).guided_share * wanted["max_iters"]
    assert guided == pytest.approx(wanted["start_self_train"])
