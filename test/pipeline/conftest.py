# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def golden_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of recordings of the original implementations."""
    return request.config.getoption("--golden")
