# SPDX-License-Identifier: Apache-2.0
"""The page of the papers: what it names is there, its commands are commands, and its figures are where they link to."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from clip_seg_ros import resources
from clip_seg_ros.data.catalog import BUILDERS, SPLITTING, THINGS
from clip_seg_ros.data.phrasecut_plus import TEMPLATES
from clip_seg_ros.models.spec import BEST_STYLE
from clip_seg_ros.tools.cli import parse
from clip_seg_ros.tools.data_options import parse_data
from clip_seg_ros.training.methods import TrainConfig

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "papers.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([a-z_]+(?:\.\w+){2,})`", PAGE)))
FENCED = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = sorted(
    {
        line
        for text in [*FENCED, *re.findall(r"`(clip-seg [^`]+)`", PAGE)]
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("clip-seg ") and len(line.split()) > 2
    }
)
FIGURES = sorted(set(re.findall(r"\[(\d[\d. /]*)\]\(([^)#]+)", PAGE)))
ROWS = [
    tuple(re.sub(r"^`({.*})`$", r"\1", cell.strip()) for cell in line.strip("|").split("|"))
    for line in PAGE.split("### CLIPSeg's rows")[1].split("###")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| Row ")
]


AUTHORS = json.loads((Path(__file__).parent / "data" / "authors_recipes.json").read_text())["clipseg"]


def changed(architecture: str, recipe: str, data: str = "") -> TrainConfig:
    """The recipe file with the changes of a row."""
    values = yaml.safe_load((resources.config_dir() / "train_clipseg_phrasecut.yaml").read_text())
    for name, text in (("architecture", architecture), ("recipe", recipe)):
        values[name] = {**values[name], **(yaml.safe_load(text) or {})}
    values["data"] = yaml.safe_load(data) or values["data"]
    return TrainConfig.from_mapping(values)


def checked_options(values: dict[str, Any]) -> None:
    """Holds that a data set has these options, without its files."""
    known = inspect.signature(BUILDERS[values["kind"]]).parameters
    assert set(values) - {"kind", THINGS, *SPLITTING} <= set(known)
    assert {name for name, option in known.items() if option.default is option.empty} <= set(values)


@pytest.mark.parametrize("name", CODE)
def test_what_the_page_names_is_there(name: str) -> None:
    module, _, member = name.rpartition(".")

    assert hasattr(importlib.import_module(f"clip_seg_ros.{module}"), member)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_commands(command: str) -> None:
    args = parse(shlex.split(command, comments=True)[1:])

    if getattr(args, "data", None):
        checked_options(dict(parse_data(args.data)))
    if args.subcommand == "train":
        assert (DOCS.parent / args.config).is_file()


@pytest.mark.parametrize(("figure", "page"), FIGURES)
def test_its_figures_stand_where_they_link_to(figure: str, page: str) -> None:
    assert figure in (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(("architecture", "recipe", "data"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_rows_of_clipseg_are_recipes(architecture: str, recipe: str, data: str) -> None:
    config = changed(architecture, recipe, data)

    config.check()
    checked_options(dict(config.data))


def test_the_authors_rows_are_there() -> None:
    assert set(AUTHORS["rows"]) <= {row[0] for row in ROWS}


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] in AUTHORS["rows"]], ids=lambda row: row[0])
def test_the_rows_of_clipseg_are_the_authors(row: tuple[str, ...]) -> None:
    theirs = {"model": "CLIPDensePredT", "mix": True, **AUTHORS["rd64-uni"], **AUTHORS["rows"][row[0]]}
    config = changed(*row[1:])
    settings, own = config.settings(), config.read_architecture()
    share = theirs["mix_text_min"], theirs["mix_text_max"]
    if theirs.get("only_visual"):
        share = 0.0, 0.0
    elif not theirs["mix"]:
        share = 1.0, 1.0
    assert settings.text_weight == share
    assert settings.templates == (TEMPLATES if theirs["mix"] else ("{}",))
    assert (settings.steps, settings.learning_rate) == (theirs["max_iterations"], theirs["lr"])
    assert settings.learning_rate * settings.floor == pytest.approx(theirs["eta_min"], rel=1e-3)
    assert settings.negative_probability == theirs["negative_prob"]
    assert settings.fresh_clip == theirs.get("not_pretrained", False)
    assert own.extract_layers == tuple(theirs["extract_layers"])
    assert (own.reduce_dim, own.complex_trans_conv) == (theirs["reduce_dim"], theirs["complex_trans_conv"])
    assert (own.block == "linear") == (theirs["model"] == "CLIPDenseBaseline")
    assert (own.image_tower is not None) == (theirs["model"] == "VITDensePredT")
    style = own.example_style or BEST_STYLE
    assert (style.blur_sigma, style.intensity) == (theirs.get("blur", 3), theirs.get("bg_fac", 0.1))
