# SPDX-License-Identifier: Apache-2.0
"""The node ``web_view`` as a process: what it serves, what it does without, how it begins and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="what serves the view is not installed: pip install .[web]")

from ros_harness import PATIENCE_S, NodeProcess, Talker
from view_client import ViewClient
from viewed_robot import Playing, rendered_views, topics_of

NAMESPACE = "served"
MOST_MB = 300
"""Without what it shares with others: images under way. With PyTorch it would be 200 more."""
HIDING = """
import importlib.abc, importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "viser" else found(name, *rest)
sys.argv = ["web_view"]
runpy.run_module("clip_seg_ros.nodes.web_view", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def web_view(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("served")
    parameters = [*topics_of(NAMESPACE), "smoothing:=0.0"]
    node = NodeProcess("referring", folder / "node", parameters, namespace=NAMESPACE)
    view = NodeProcess("web_view", folder / "view", ["port:=0"], namespace=NAMESPACE, fresh=True)
    try:
        node.wait_said("commands:")
        with Talker.camera(f"/{NAMESPACE}") as camera, Playing(camera, rendered_views()[:1]):
            address_of(view)
            yield view
            assert view.end() == 0
            assert "Traceback" not in view.said(), view.said()
    finally:
        view.end()
        node.end()


def address_of(view: NodeProcess) -> str:
    said = view.wait_said("the view in the browser: ")
    return re.search(r"the view in the browser: (\S+)", said)[1]


def memory_mb(view: NodeProcess) -> float:
    status = Path(f"/proc/{view.process.pid}/status").read_text()
    return sum(int(kilobytes) for kilobytes in re.findall(r"Rss(?:Anon|File):\s+(\d+)", status)) / 1024


def test_it_shows_what_is_found_to_a_browser(web_view: NodeProcess) -> None:
    truth = rendered_views()[0]
    with ViewClient(address_of(web_view)) as viewer:
        viewer.event(lambda event: event["event"] == "back")
        viewer.look("", space=True)
        viewer.ask(ask="command", text="segment the red cup")
        assert viewer.event(lambda event: event.get("state") == "found")["found"] == ["red cup"]
        header, jpeg = viewer.picture(lambda header: header["things"])
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        (thing,) = header["things"]
        drawn = np.abs(picture - truth.rgb).max(axis=2) > 40
        assert thing["prompt"] == "red cup"
        assert drawn[truth.mask_of("red", "cup")].mean() > 0.05
        viewer.event(lambda event: event["event"] == "health")
    assert memory_mb(web_view) < MOST_MB
    assert "libtorch" not in Path(f"/proc/{web_view.process.pid}/maps").read_text()


def test_its_settings_and_clicks_reach_the_node(web_view: NodeProcess) -> None:
    with ViewClient(address_of(web_view)) as viewer:
        viewer.event(lambda event: event["event"] == "back")
        viewer.look("")
        viewer.picture()
        assert viewer.ask(ask="set", name="threshold", value=0.4)["event"] == "answer"
        assert (
            viewer.event(lambda event: event["event"] == "parameter" and event["value"] == 0.4)["name"] == "threshold"
        )
        refused = viewer.ask(ask="set", name="threshold", value=4.0)
        assert refused["event"] == "refused"
        assert "threshold" in refused["message"]
        rows, columns = np.nonzero(rendered_views()[0].mask_of("blue", "box"))
        spot = [float(np.median(columns)), float(np.median(rows))]
        answer = viewer.ask(ask="point", camera="", spot=spot)
        assert answer["event"] == "answer", answer
        assert answer["answer"]["message"].startswith("blue box, ")
        models = {model["name"] for model in viewer.ask(ask="models")["answer"]}
        assert {"clipseg-pocket", "clipseg-rd64-refined"} <= models
    assert "libtorch" not in Path(f"/proc/{web_view.process.pid}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly_while_somebody_looks(ros: None, log: Path, number: int) -> None:
    view = NodeProcess("web_view", log, ["port:=0"], namespace="ended")
    with ViewClient(address_of(view)) as viewer:
        viewer.look("")
        viewer.event(lambda event: event["event"] == "gone")
        assert view.end(number) == 0
    assert "Traceback" not in view.said(), view.said()
    assert "ERROR" not in view.said(), view.said()


def test_whoever_comes_from_elsewhere_needs_the_token(ros: None, log: Path) -> None:
    view = NodeProcess("web_view", log, ["port:=0", "host:=0.0.0.0"], namespace="open")
    address = address_of(view)
    port = int(re.search(r":(\d+)/", address)[1])
    token = address.partition("token=")[2]
    assert len(token) > 10
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S)
    assert error.value.code in (401, 403)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/?token={token}", timeout=PATIENCE_S) as page:
        assert page.status == 200
    assert view.end() == 0


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["port:=70000"], "port"),
        (["host:=''"], "host must not be empty"),
        (["port:=0", "host:=192.0.2.1"], "port 0 of 192.0.2.1 cannot be listened on"),
    ],
)
def test_a_wrong_address_is_told_in_one_line(ros: None, log: Path, parameters: list[str], words: str) -> None:
    view = NodeProcess("web_view", log, parameters, namespace="wrong")
    assert view.wait_end() == 1
    assert words in view.said()
    assert "Traceback" not in view.said()


def test_a_port_that_is_taken_is_told(ros: None, log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        view = NodeProcess("web_view", log, [f"port:={port}"], namespace="taken")
        assert view.wait_end() == 1
    assert f"web_view: port {port} of 127.0.0.1 is taken, perhaps by another web_view: set the parameter" in view.said()
    assert "Traceback" not in view.said()


def test_without_its_packages_it_says_what_to_install(ros: None) -> None:
    done = subprocess.run([sys.executable, "-c", HIDING], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert (
        'web_view: viser is not installed: the view in the browser needs `pip install "clip_seg_ros[web]"`'
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_another_one_can_be_started_where_the_first_one_ended(ros: None, tmp_path: Path) -> None:
    first = NodeProcess("web_view", tmp_path / "first", ["port:=0"], namespace="again")
    port = int(re.search(r":(\d+)/", address_of(first))[1])
    assert first.end() == 0
    second = NodeProcess("web_view", tmp_path / "second", [f"port:={port}"], namespace="again")
    assert f":{port}/" in address_of(second)
    assert second.end() == 0
    assert "Traceback" not in second.said()
