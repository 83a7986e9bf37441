# SPDX-License-Identifier: Apache-2.0
"""``clip-seg view`` in a process of its own, with a viewer that speaks to it as a browser does."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from clip_seg_ros.tools.cli import main
from view_client import ViewClient

TABLE = Path(__file__).parents[2] / "examples" / "table" / "color.jpg"
OPTIONS = ("--no-browser", "--port", "0", "--model", "clipseg-pocket", "--engine", "eager")


@contextmanager
def viewing(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running ``clip-seg view`` and its address."""
    command = [sys.executable, "-m", "clip_seg_ros.tools.cli", "view", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, re.search(r"http://\S+", line)[0]
        finally:
            process.kill()


def test_a_picture_is_served_with_what_was_found_and_ctrl_c_ends_it():
    with viewing(str(TABLE), "--command", "segment the red cup", *OPTIONS) as (process, address):
        with urlopen(address, timeout=60) as page:
            assert b"<html" in page.read()[:300].lower()
        with ViewClient(address) as client:
            client.look()
            assert client.event(lambda event: event["event"] == "hello")["title"] == "color.jpg"
            header, jpeg = client.picture(lambda header: header["things"])
            assert [thing["prompt"] for thing in header["things"]] == ["red cup"]
            shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert shown.shape[2] == 3
            client.send(ask="command", text="segment the blue box", request=1)
            client.picture(lambda header: header["prompts"] == ["blue box"])
            status = client.event(lambda event: event.get("state") == "found" and event["id"] == 2)
            assert status["found"] == ["blue box"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "clip-seg: stopped"


def test_another_port_is_asked_for_where_one_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["view", str(TABLE), "--no-browser", "--port", port, "--engine", "eager"]) == 1
    assert re.search(rf"127.0.0.1:{port} cannot be listened on: .*; choose another --port", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere.jpg"], "there is no file or folder nowhere.jpg: name a picture"),
        ([str(TABLE), "--model", "nothing-of-the-kind"], 'there is no model "nothing-of-the-kind"'),
        ([str(TABLE), "--model", "clipseg-rd64"], "clip-seg weights download clipseg-rd64"),
        ([str(TABLE), "--topic", "/camera"], "is no bag, so that it has no topic /camera"),
        ([os.devnull], "is neither a picture nor a video"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(capsys, arguments, why):
    assert main(["view", *arguments, "--no-browser", "--port", "0"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clip-seg view: ")
    assert why in last


@pytest.mark.parametrize("options", [["--port", "many"], ["--token", "short"], ["--engine", "steam"]])
def test_wrong_options_are_refused(options):
    with pytest.raises(SystemExit) as ended:
        main(["view", str(TABLE), *options])
    assert ended.value.code == 2


def test_without_its_packages_it_says_what_to_install(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "viser" else find(name))
    assert main(["view", str(TABLE)]) == 1
    error = capsys.readouterr().err
    assert 'viser is not installed: the view in the browser needs `pip install "clip_seg_ros[web]"`' in error


@pytest.fixture
def opened(tmp_path):
    """The file in which a browser notes the address with which it was started."""
    return tmp_path / "opened"


@pytest.fixture
def display(tmp_path, opened):
    """The environment of somebody who has a display and a browser."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    return {**os.environ, "BROWSER": str(browser), "DISPLAY": ":99"}


SHOWN = [sys.executable, "-m", "clip_seg_ros.tools.cli", "view", str(TABLE), *OPTIONS[1:]]


def test_no_browser_is_started_with_a_token_which_others_would_see_in_the_list_of_processes(display, opened):
    environment = {**display, "CLIP_SEG_VIEW_TOKEN": "letters-and-12345"}
    with subprocess.Popen(SHOWN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline())[0]
            assert address.endswith("/?token=letters-and-12345")
            assert any("open this address in your browser" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert not opened.exists()


def test_a_browser_is_opened_where_there_is_a_display(display, opened):
    with subprocess.Popen(SHOWN, stdout=subprocess.PIPE, text=True, env=display) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline())[0]
            while not opened.exists() and process.poll() is None:
                time.sleep(0.02)
            assert opened.read_text().strip() == address
        finally:
            process.kill()
