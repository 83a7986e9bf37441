# SPDX-License-Identifier: Apache-2.0
"""What several tests of commands begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from plain_clips import RESNET, write_archive


@pytest.fixture(scope="module")
def settings_as_they_were() -> Iterator[None]:
    """Takes back what a training sets for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet as OpenAI publishes its own."""
    return write_archive(tmp_path_factory.mktemp("clip") / "RN5.pt", RESNET)
