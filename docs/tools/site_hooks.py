# SPDX-License-Identifier: Apache-2.0
"""Hooks of MkDocs: files outside ``docs/`` that pages link to, the page of messages, and what no page may load."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
OUTSIDE_PAGES = ("examples/README.md", *(f"weights/{path.name}" for path in sorted((ROOT / "weights").glob("*.md"))))
"""Pages of the site that lie beside what they describe, as paths in the repository."""
MESSAGES_PAGE = "reference/messages.md"
PHOTOGRAPHS_PAGE = "photographs.md"
PHOTOGRAPHS_MARK = "<!-- photographs -->"
"""Where the page shows what docs/tools/draw_photographs.py made."""
PHOTOGRAPHS_SECTION = ROOT / "docs" / "photographs" / "answers.txt"
WITHOUT_PHOTOGRAPHS = """!!! note "The pictures are missing"
    The photographs could not be fetched, or the models could not be run, when this site was built. `make docs` makes
    the pictures.
"""
LANGUAGES = {".py": "python", ".cpp": "cpp"}

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^()\s#]+)(#[^()\s]*)?(?=\))")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LOADED_FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)=[\"']?(?:https?:)?//[^>]*>|"
    r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon|dns-prefetch))[^>]*href=[\"']?(?:https?:)?//[^>]*>|"
    r"@import[^;]*//[^;]*;|url\([\"']?(?:https?:)?//[^)]*\)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside ``docs/``, what pages link to there, and the page of messages."""
    wanted = set(OUTSIDE_PAGES)
    for path in [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in OUTSIDE_PAGES)]:
        source = path.relative_to(ROOT).as_posix()
        wanted.update(target for target, _ in links_of(path.read_text(encoding="utf-8"), source) if is_outside(target))
    for name in sorted(wanted):
        if (ROOT / name).is_file() and Path(name).suffix not in LANGUAGES:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, MESSAGES_PAGE, content=messages_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links between files of the repository into links between files of the site."""
    place = page.file.src_uri
    if place == PHOTOGRAPHS_PAGE:
        markdown = markdown.replace(PHOTOGRAPHS_MARK, photographs_section())
    source = place if place in OUTSIDE_PAGES else f"docs/{place}"
    programs = dict.fromkeys(target for target, _ in links_of(markdown, source) if Path(target).suffix in LANGUAGES)
    for target, link in links_of(markdown, source):
        anchor = link.partition("#")[2]
        in_site = target.removeprefix("docs/") if target.startswith("docs/") else target
        new = posixpath.relpath(in_site, posixpath.dirname(place) or ".") + (f"#{anchor}" if anchor else "")
        new = f"#{anchor_of(target)}" if target in programs else new
        if new != link:
            markdown = markdown.replace(f"]({link})", f"]({new})")
    return markdown + "".join(program_section(target) for target in programs)


def on_post_build(config: MkDocsConfig) -> None:
    """Ends the build where a page or a style would load something from another host."""
    site = Path(config.site_dir)
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        if found := LOADED_FROM_ELSEWHERE.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(site)} loads from another host: {found[0]}")


def links_of(markdown: str, source: str) -> Iterator[tuple[str, str]]:
    """Yields (path in the repository, link as written) of the relative links of a file, outside blocks of code."""
    for match in LINK.finditer(CODE_BLOCK.sub("", markdown)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1])), match[0]


def is_outside(target: str) -> bool:
    return not target.startswith(("docs/", ".."))


def anchor_of(program: str) -> str:
    return re.sub(r"\W+", "-", program.split("/", 1)[-1])


def program_section(program: str) -> str:
    """Shows a program that a page links to."""
    path = ROOT / program
    title = program.split("/", 1)[-1]
    code = path.read_text(encoding="utf-8")
    return f"\n\n## {title} {{ #{anchor_of(program)} }}\n\n```{LANGUAGES[path.suffix]}\n{code}```\n"


def photographs_section() -> str:
    """Returns the models' answers to photographs, which git does not keep, or a note that they are missing."""
    if not PHOTOGRAPHS_SECTION.is_file():
        return WITHOUT_PHOTOGRAPHS
    return PHOTOGRAPHS_SECTION.read_text(encoding="utf-8")


def messages_page() -> str:
    """Shows the definitions of messages, services and actions, which explain themselves."""
    parts = ["# Messages, services and actions\n\n[The nodes](../nodes.md) say which topic carries what.\n"]
    for folder in ("msg", "srv", "action"):
        parts += [
            f"\n## {folder}/{path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8')}```\n"
            for path in sorted((ROOT / folder).glob(f"*.{folder}"))
        ]
    return "".join(parts)
