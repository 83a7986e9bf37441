# SPDX-License-Identifier: Apache-2.0
"""The models against the recordings on processors other than this one.

Each way of rounding needs a process of its own, because torch, oneDNN and MKL choose their programs as they start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODELS = TESTS / "models"
SUPPORT = TESTS / "support"
PROCESSORS = {
    # One thread too: the number of threads changes the order of additions.
    "without vector instructions": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OMP_NUM_THREADS": "1",
    },
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "rounding in a way of its own": {"PYTEST_ADDOPTS": "-p rounding", "OMP_NUM_THREADS": "1"},
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_models_equal_their_recordings(processor: str, request: pytest.FixtureRequest) -> None:
    files = sorted(MODELS.rglob("test_*_parity.py"))
    assert len(files) >= 5
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SUPPORT)])),
        **PROCESSORS[processor],
    }
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--golden={request.config.getoption('--golden')}",
            *files,
            TESTS / "zoo" / "test_factory.py",
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
