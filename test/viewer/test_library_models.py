# SPDX-License-Identifier: Apache-2.0
"""Weights that are not here are fetched while another model answers, or it is said why not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.tools.local_hub import HubHandler, address, served
from clip_seg_ros.viewer.library_source import LibrarySource
from clip_seg_ros.viewer.views import Wanted
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS
from looking import Viewer
from narrow_clipseg import write_narrow_clipseg

TABLE = Path(__file__).parents[2] / "examples" / "table" / "color.jpg"
PUBLISHED = "clipseg-rd64-refined"
HUB = PUBLIC_WEIGHTS[PUBLISHED].hub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, of which the processes of this test are told, and no hub."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "weights"))
    return tmp_path


@pytest.fixture
def shown(home: Path) -> Iterator[tuple[LibrarySource, Viewer]]:
    viewer = Viewer()
    source = LibrarySource(open_frames(str(TABLE)), "clipseg-pocket", engine="eager")
    source.start(viewer)
    source.want(Wanted(frozenset({""})))
    yield source, viewer
    source.stop()


def test_published_weights_are_fetched_while_the_embedded_ones_answer(shown, home, monkeypatch):
    source, viewer = shown
    file = write_narrow_clipseg(home / HUB.files[0], PUBLISHED)
    with served(type("Bound", (HubHandler,), {"files": {address(HUB.repository, HUB.files[0]): file}})) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        source.command(f"use {PUBLISHED}")
        accepted = viewer.event("status", id=1)["message"]
        for words in (f"fetching {PUBLISHED}", "about 603 MB", "grant no licence", "clipseg-pocket serves until"):
            assert words in accepted
        source.command("segment the red cup")
        assert viewer.event("status", id=2, state="found")
        source.command("use clipseg-rd64")
        assert "something is being fetched already" in viewer.event("status", id=3, state="rejected")["message"]
        assert viewer.event("status", id=1, state="done")["message"] == f"{PUBLISHED} serves now"
    assert viewer.event("model", name=PUBLISHED)
    assert viewer.view(lambda view: view.notes["model"] == PUBLISHED)
    assert {choice.name: choice for choice in source.models()}[PUBLISHED].is_here


def test_without_a_network_the_reason_is_said_and_the_model_stays(shown):
    source, viewer = shown
    source.command(f"use {PUBLISHED}")
    failed = viewer.event("status", id=1, state="failed")["message"]
    assert failed.startswith(f"{PUBLISHED} was not fetched: ")
    assert "gives no answer" in failed
    assert failed.endswith("clipseg-pocket serves on")
    source.command("segment the red cup")
    assert viewer.event("status", id=2, state="found")


def test_a_damaged_file_of_weights_leaves_the_model_in_service(shown, home):
    source, viewer = shown
    folder = home / "weights"
    folder.mkdir()
    (folder / f"{PUBLISHED}.safetensors").write_bytes(b"damaged")
    source.command(f"use {PUBLISHED}")
    failed = viewer.event("status", id=1, state="failed")["message"]
    assert failed.startswith(f"{PUBLISHED} could not be loaded: ")
    source.command(f"segment the red cup using {PUBLISHED}")
    assert viewer.event("status", id=2, state="failed")
    assert viewer.event("status", id=2, state="found"), "the model that stays answers"
    assert failed.endswith("clipseg-pocket serves on")
