# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from clip_seg_ros.runtime.conversion import convert_elsewhere
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.engine_cache import METADATA
from clip_seg_ros.runtime.onnx_engine import OnnxRuntimeEngine
from clip_seg_ros.runtime.optional_packages import optional_package
from small_models import CONFIGS, small_model

try:
    optional_package("onnxruntime", "onnxruntime")
except EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)


def test_another_process_puts_the_model_into_the_cache(tmp_path: Path) -> None:
    convert_elsewhere(OnnxRuntimeEngine, small_model("student"), "float32", tmp_path, (64, 96))

    sizes = {path.parent.name.split("-onnx-")[0].rsplit("-", 1)[1] for path in tmp_path.glob(f"*/{METADATA}")}
    assert "64x96" in sizes


def test_a_model_is_not_converted_in_the_process_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeEngine, "_write", lambda *_: pytest.fail("it was converted in this process"))
    engine = OnnxRuntimeEngine(small_model("clipseg-vit"), cache_dir=tmp_path)

    for _ in range(3):
        engine.encode_image(torch.zeros(1, 3, 48, 80))
    engine.wait()

    assert (48, 80) in engine._sizes._built


def test_where_no_other_process_can_be_had_this_one_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    assert OnnxRuntimeEngine(small_model("student"), cache_dir=tmp_path)._sizes.values()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_can_be_sent_to_another_process(name: str, tmp_path: Path) -> None:
    torch.save(small_model(name), tmp_path / "model.pt")

    assert torch.load(tmp_path / "model.pt", weights_only=False).spec == small_model(name).spec


def test_what_the_other_process_failed_of_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with code 1: .*unknown precision .half."):
        convert_elsewhere(OnnxRuntimeEngine, small_model("student"), "half", tmp_path, (64, 96))


def test_only_in_the_background_it_has_a_low_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine_that_tells.py").write_text("""
import os
from pathlib import Path

class Telling:
    def __init__(self, model, precision, cache_dir):
        self.told = Path(cache_dir) / precision

    def prepare(self, size):
        self.told.write_text(str(os.nice(0)))
""")
    monkeypatch.syspath_prepend(tmp_path)
    engine = importlib.import_module("engine_that_tells").Telling

    convert_elsewhere(engine, small_model("student"), "awaited", tmp_path, (64, 96))
    in_background = ("background", tmp_path, (64, 96))
    thread = threading.Thread(target=convert_elsewhere, args=(engine, small_model("student"), *in_background))
    thread.start()
    thread.join()

    assert int((tmp_path / "awaited").read_text()) == os.nice(0)
    assert int((tmp_path / "background").read_text()) == os.nice(0) + 10


def test_the_program_may_end_meanwhile(tmp_path: Path) -> None:
    code = f"""
import threading
from pathlib import Path
from clip_seg_ros.runtime.conversion import convert_elsewhere
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.onnx_engine import OnnxRuntimeEngine
from small_models import small_model

def convert():
    try:
        convert_elsewhere(OnnxRuntimeEngine, model, "float32", Path({str(tmp_path)!r}), (64, 96))
    except EngineUnavailable as error:
        print(error)

model = small_model("student")
threading.Thread(target=convert).start()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)

    assert (done.returncode, done.stdout, done.stderr) == (0, "the program ends\n", "")
