# SPDX-License-Identifier: Apache-2.0
"""Rules for every source file: the licence, which a copied file takes along, and sizes that one can take in."""

import ast
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
WRITTEN = (
    *("msg/*.msg", "srv/*.srv", "action/*.action", "config/*.yaml", ".github/workflows/*.yml"),
    *("CMakeLists.txt", "examples/*/CMakeLists.txt", "Makefile", "docker/Dockerfile", "pyproject.toml", "mkdocs.yml"),
)
"""What is written by hand, but is no program: messages, builds and configuration."""


def test_every_source_file_names_the_licence():
    assert len(SOURCES) > 300
    # A program begins with its interpreter.
    others = [path for pattern in WRITTEN for path in ROOT.glob(pattern)]
    assert len(others) > 30
    beginnings = {path: path.read_text().splitlines()[:2] for path in (*SOURCES, *others)}
    line = "SPDX-License-Identifier: Apache-2.0"
    without = [str(path) for path, lines in beginnings.items() if not any(each.endswith(line) for each in lines)]
    assert without == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_have_at_most_400_lines_and_functions_60(folder: str) -> None:
    too_long = []
    for path in (path for path in SOURCES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == folder):
        text = path.read_text()
        functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        sizes = {f"{each.name}()": each.end_lineno - each.lineno + 1 for each in functions}
        too_long += [f"{path}: {name} has {size} lines" for name, size in sizes.items() if size > 60]
        if text.count("\n") > 400:
            too_long.append(f"{path} has {text.count(chr(10))} lines")
    assert too_long == []
