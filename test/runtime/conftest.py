# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.runtime import converted


@pytest.fixture
def converts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are converted in this process, which saves the seconds in which another one starts."""

    def none_to_be_had(*_: object) -> None:
        raise OSError("no other process can be had")

    monkeypatch.setattr(converted, "convert_elsewhere", none_to_be_had)
