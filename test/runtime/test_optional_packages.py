# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.optional_packages import ONEDNN_LIMIT, optional_package

ALONE = """
import importlib, os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from clip_seg_ros.runtime.optional_packages import optional_package
"""
IMPORTS = """
seen = importlib.import_module
def import_module(name):
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1", f"{name} is imported too early"
    return seen(name)
importlib.import_module = import_module
module = optional_package(sys.argv[1], "export")
assert sys.modules["openvino_telemetry"] is None
"""
USE = {
    "openvino": "module.Core().available_devices",
    "nncf": "import nncf.telemetry.wrapper as w\nassert not isinstance(w.telemetry, w.NNCFTelemetry)",
    "onnxruntime": "module.get_available_providers()",
}


@pytest.mark.parametrize("name", USE)
def test_nothing_is_reported_by_what_is_imported(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    program = "\n".join([ALONE, IMPORTS, USE[name]])
    # In continuous integration, and in pytest, these packages are silent by themselves.
    left_out = ("CI", "PYTEST_CURRENT_TEST", ONEDNN_LIMIT)
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    result = subprocess.run(
        [sys.executable, "-c", program, name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
    )

    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == [], "an identifier of the user was kept"


def test_what_is_missing_is_named_with_what_to_type() -> None:
    with pytest.raises(EngineUnavailable, match=r"no_such_package cannot be imported .*clip_seg_ros\[export\]"):
        optional_package("no_such_package", "export")


@pytest.mark.parametrize("name", ["openvino", "nncf"])
def test_openvino_is_left_alone_where_onednn_is_limited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONEDNN_LIMIT, "AVX2")
    with pytest.raises(EngineUnavailable, match="ONEDNN_MAX_CPU_ISA=AVX2 is set"):
        optional_package(name, "openvino")
