# SPDX-License-Identifier: Apache-2.0
"""``clip-seg calibrate`` on rendered pictures with the embedded weights."""

import json
from pathlib import Path

import pytest

from clip_seg_ros.data.rendered_folder import write_rendered_folder
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    for _ in write_rendered_folder(folder, 4, "table", size=(160, 120)):
        pass
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_result_is_kept_told_drawn_and_used(pictures, cache, tmp_path, capsys) -> None:
    code = main(
        [
            *("calibrate", "clipseg-pocket", "--data", f"folder:{pictures}", "--name", "mine", "--per-phrase"),
            *("--json", str(tmp_path / "found.json"), "--page", str(tmp_path / "page")),
        ]
    )

    said = capsys.readouterr()
    assert code == 0, said.err
    assert "before: mean IoU 0." in said.out
    assert "use it with `model:=mine`" in said.out
    found = json.loads((tmp_path / "found.json").read_text())
    spec = Predictor.from_name("mine").spec
    assert spec.threshold == pytest.approx(found["threshold"])
    assert spec.calibration.temperature == pytest.approx(found["calibration"]["temperature"])
    assert 0 < found["after"]["named_iou"] < 1
    assert found["before"]["named_iou"] > 0.2
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<svg") == 2
    assert "share of such pixels that are right" in page
    # What was calibrated is calibrated anew, and not twice.
    assert main(["calibrate", "mine", "--data", f"folder:{pictures}", "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["calibration"]["temperature"] == pytest.approx(found["calibration"]["temperature"])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["denseclip-pocket"], 2, "lets its prompts compete"),
        (["clipseg-pocket", "--name", "cris-pocket"], 2, "the name of other weights"),
        (["clipseg-pocket", "--name", "../mine"], 2, "is no name"),
        (["clipseg-pocket", "--most-answered", "2"], 2, "must lie in 0..1"),
        (["clipseg-pocket", "--limit", "1"], 2, "--limit must be 2 or more"),
        (["nonsense"], 2, "there is no model"),
    ],
)
def test_wrong_calls_are_told(words, code, told, pictures, cache, capsys) -> None:
    assert main(["calibrate", *words, "--data", f"folder:{pictures}"]) == code
    said = capsys.readouterr()
    assert told in said.err
    assert not cache.exists()


def test_data_without_phrases_is_refused(pictures, cache, capsys) -> None:
    assert main(["calibrate", "clipseg-pocket", "--data", f"labelled_folder:{pictures}"]) == 1
    assert "does not hold several phrases with masks" in capsys.readouterr().err
