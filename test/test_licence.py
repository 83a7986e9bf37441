# SPDX-License-Identifier: Apache-2.0
"""Each source file names the licence of the package, so that a copied file still says whose it is."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("clip_seg_ros", "docs", "env", "examples", "launch", "test")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".cpp") and path.stat().st_size
)


def test_every_source_file_names_the_licence():
    assert len(SOURCES) > 300
    # A program begins with its interpreter.
    beginnings = {path: path.read_text().splitlines()[:2] for path in SOURCES}
    line = "SPDX-License-Identifier: Apache-2.0"
    without = [str(path) for path, lines in beginnings.items() if not any(each.endswith(line) for each in lines)]
    assert without == []
