# SPDX-License-Identifier: Apache-2.0
"""The rehearsal with weights of the published size: downloaded, converted and served, without the network."""

import gzip
import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from clip_seg_ros.tools.cli import main
from clip_seg_ros.tools.published_sizes import write_hugging_face

LAYOUT = Path(__file__).parents[1] / "data" / "layouts" / "clipseg_hf_rd64_refined.json.gz"


def test_the_file_has_the_published_layout(tmp_path: Path) -> None:
    write_hugging_face(tmp_path / "model.safetensors")

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (it is no mapping)
    published = {key: shape for key, (shape, _) in json.loads(gzip.decompress(LAYOUT.read_bytes())).items()}
    # Some releases of transformers wrote the numbers of the places, too.
    assert shapes == {key: shape for key, shape in published.items() if not key.endswith(".position_ids")}


def test_the_whole_way(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    # The other engines take a minute to convert a model of this size.
    arguments = ["--engine", "eager", "--seconds", "3", "--json", str(tmp_path / "figures.json")]

    code = main(["rehearse", *arguments])

    said = capfd.readouterr()
    assert code == 0, said.err
    assert re.search(r"accepted: fetching clipseg-rd64-refined .*603 MB", said.out)
    assert "done: clipseg-rd64-refined serves now" in said.out
    figures = {each["name"]: each["value"] for each in json.loads((tmp_path / "figures.json").read_text())}
    assert figures["rehearsal.start"] < figures["rehearsal.switch"]
    assert figures["rehearsal.vga.answered"] > 0
    assert figures["rehearsal.1080p.answered"] > 0
    assert 300 < figures["rehearsal.helper.memory"] < 6000
    assert 600 < figures["rehearsal.node.memory"] < 6000


def test_too_much_memory_is_a_failure(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rehearse", "--memory", "much"])
    assert ended.value.code == 2
    assert "much" in capsys.readouterr().err
