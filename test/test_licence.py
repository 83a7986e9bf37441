# SPDX-License-Identifier: Apache-2.0
"""Each source file names the licence of the package, so that a copied file still says whose it is."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("clip_seg_ros", "docs", "env", "examples", "launch", "test")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".cpp") and path.stat().st_size
)


def test_the_sources_are_found():
    assert len(SOURCES) > 300


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_names_the_licence(path):
    first_lines = path.read_text().splitlines()[:2]  # a program begins with its interpreter
    assert any(line.endswith("SPDX-License-Identifier: Apache-2.0") for line in first_lines)
