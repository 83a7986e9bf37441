# SPDX-License-Identifier: Apache-2.0
"""The program that draws what models make of photographs, on a package that the test writes."""

from __future__ import annotations

import runpy
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.predictor import Predictor
from color_segmenter import ColorSegmenter

ROOT = Path(__file__).parents[1]
PROGRAM = runpy.run_path(str(ROOT / "docs" / "tools" / "draw_photographs.py"))
HOOKS = ROOT / "docs" / "tools" / "site_hooks.py"
THING = PROGRAM["Photograph"]("things", "things/data/red.png", "A red thing", "nobody; CC0", ("red cup", "spoon"))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the package of one photograph, 80 x 60."""
    rgb = np.full((60, 80, 3), 120, np.uint8)
    rgb[20:40, 30:50] = (200, 30, 30)
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "things-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(THING.path, cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    return folder


def test_colours_are_read_as_they_are(wheels: Path) -> None:
    assert PROGRAM["read"](THING, wheels)[30, 40].tolist() == [200, 30, 30]


def test_pictures_and_text_replace_those_of_before(wheels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "old.jpg").touch()

    PROGRAM["write"](folder, wheels, ["clipseg-pocket"], [THING])

    assert sorted(path.name for path in folder.iterdir()) == ["answers.txt", "red-clipseg-pocket.jpg"]
    assert cv2.imread(str(folder / "red-clipseg-pocket.jpg")).shape == (60, 80, 3)
    text = (folder / "answers.txt").read_text(encoding="utf-8")
    for words in (
        "`clipseg-pocket` knows one rendered table",
        'Asked: "red cup", "spoon". Photograph: nobody; CC0.',
        "(photographs/red-clipseg-pocket.jpg)",
        "spoon: not found (these weights never learnt 'spoon')",
    ):
        assert words in text


def test_what_is_missing_leaves_earlier_pictures_alone(wheels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "old.jpg").touch()
    other = PROGRAM["Photograph"]("things", "things/data/blue.png", "A blue thing", "nobody; CC0", ("cup",))

    with pytest.raises(PROGRAM["NoPhotographs"], match=r"things/data/blue\.png"):
        PROGRAM["write"](folder, wheels, ["clipseg-pocket"], [THING, other])

    assert [path.name for path in folder.iterdir()] == ["old.jpg"]


def test_without_an_index_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(PROGRAM["NoPhotographs"], match="No matching distribution found for scikit-image=="):
        PROGRAM["fetch"](tmp_path)


def test_weights_that_know_photographs_are_not_called_nonsense() -> None:
    text = PROGRAM["head"]([Predictor.from_model(ColorSegmenter(), "cpu")])

    assert "knows photographs" in text
    assert "nonsense" not in text


def test_each_photograph_is_in_a_pinned_package() -> None:
    names = [photograph.name for photograph in PROGRAM["PHOTOGRAPHS"]]
    pinned = {line.split("==")[0].replace("-", "_") for line in PROGRAM["PACKAGES"].read_text().splitlines()[1:]}

    assert len(set(names)) == len(names)
    assert {photograph.package for photograph in PROGRAM["PHOTOGRAPHS"]} == pinned


def test_git_keeps_none_of_them() -> None:
    assert "/docs/photographs/" in (ROOT / ".gitignore").read_text().splitlines()
    # The site's hook, which mkdocs alone can import, shows what the program wrote.
    assert f'"{PROGRAM["FOLDER"].name}" / "{PROGRAM["SECTION"]}"' in HOOKS.read_text()
