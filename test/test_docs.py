# SPDX-License-Identifier: Apache-2.0
"""The documentation: links that lead somewhere, pages that a reader can reach, and a drawing that is up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from clip_seg_ros import api

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
MADE_BY_THE_BUILD = ("reference/messages.md",)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^()\s#]*)(#[^()\s]*)?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(CODE.sub("", page.read_text())):
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(path)
        elif anchor and anchor[1:] not in anchors(target):
            broken.append(path + anchor)

    assert broken == []


def test_the_site_reaches_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    listed = set(re.findall(r"[\w/]+\.md", str(yaml.safe_load(navigation))))

    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    cards = {path.relative_to(ROOT).as_posix() for path in (ROOT / "weights").glob("*.md")}
    assert written | cards | set(MADE_BY_THE_BUILD) <= listed
    # The others lie beside what they describe.
    assert [name for name in listed - written - set(MADE_BY_THE_BUILD) if not (ROOT / name).is_file()] == []


def test_the_reference_holds_the_whole_public_face() -> None:
    page = (DOCS / "reference" / "api.md").read_text()

    assert sorted(re.findall(r"^::: clip_seg_ros\.api\.(\w+)$", page, re.MULTILINE)) == sorted(api.__all__)


def test_the_drawing_is_what_its_program_draws() -> None:
    program = runpy.run_path(str(DOCS / "tools" / "draw_way_of_an_image.py"))

    assert program["DRAWING"].read_text(encoding="utf-8") == program["drawing"]()
