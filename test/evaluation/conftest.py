"""Recordings of the original implementations' metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest


class MetricRecording:
    """The inputs and outputs recorded of one original implementation's metrics (see test/data/golden)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays}
        # A folder may leave some recordings out, by name.
        left_out = folder / "left_out.json"
        self.left_out = set(json.loads(left_out.read_text()).get(name, [])) if left_out.is_file() else set()

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def check(self, actual: Mapping[str, object], prefixes: tuple[str, ...], atol: float) -> None:
        """Compares with the recordings; ``actual`` must have each one whose key starts with a prefix, and no other."""
        recorded = {key for key in self.arrays if key.startswith(prefixes)}
        left_out = {key for key in self.left_out if key.startswith(prefixes)}
        assert set(actual) == recorded | left_out
        for key in sorted(recorded):
            expected = self.arrays[key]
            value = np.asarray(actual[key])
            assert value.shape == expected.shape, f"{self.name} {key}"
            np.testing.assert_allclose(value, expected, rtol=0, atol=atol, err_msg=f"{self.name} {key}")


@pytest.fixture(scope="session")
def recording(request: pytest.FixtureRequest) -> Callable[[str], MetricRecording]:
    """Opens a recording by name: ``recording("mmseg_metrics")``."""
    folder = request.config.getoption("--golden")

    def open_recording(name: str) -> MetricRecording:
        return MetricRecording(folder, name)

    return open_recording
