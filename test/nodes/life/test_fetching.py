# SPDX-License-Identifier: Apache-2.0
"""A node that nobody told a model fetches the published weights from a hub, while the embedded model serves."""

import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from clip_seg_ros.config import FOR_PHRASES
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import STATUS
from clip_seg_ros.nodes.life import fetching
from clip_seg_ros.tools.local_hub import HubHandler, address, served
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS
from narrow_clipseg import write_narrow_clipseg
from ros_harness import running_referring, wait_until

PUBLISHED, EMBEDDED = FOR_PHRASES
HUB = PUBLIC_WEIGHTS[PUBLISHED].hub


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_clipseg(tmp_path_factory.mktemp("hub") / HUB.files[0], PUBLISHED)


class Gated(HubHandler):
    """Sends the end of a file only once ``gate`` is open."""

    gate: threading.Event

    def send(self, source) -> None:
        # huggingface_hub writes pieces of 10 MB.
        self.wfile.write(source.read(os.fstat(source.fileno()).st_size - 1000))
        self.wfile.flush()
        self.gate.wait(120)
        super().send(source)


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
def gate(home: Path, published: Path, monkeypatch: pytest.MonkeyPatch):
    """Lets the hub send the end of the file."""
    gate = threading.Event()
    files = {address(HUB.repository, HUB.files[0]): published}
    with served(type("Bound", (Gated,), {"files": files, "gate": gate})) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield gate
        gate.set()


@contextmanager
def fetching_node(log: Path):
    """A node that may fetch, who watches it, and what it says of that, from the first word on."""
    parameters = ["download:=true", "image_topic:=/fetch/image", "depth_topic:=''"]
    # huggingface_hub reads the variables of ``home`` when it is imported.
    with running_referring(log, "fetch", parameters, fresh=True) as (node, watcher):
        # This one also receives what was said before it came.
        heard = watcher.hear(CommandStatus, "status", STATUS)
        yield node, watcher, lambda: [status for status in heard if status.command == fetching.COMMAND]


def is_done(statuses) -> CommandStatus | None:
    return next((status for status in statuses() if status.state == CommandStatus.DONE), None)


def test_it_is_fetched_and_takes_over(ros, log, gate):
    with fetching_node(log) as (_, watcher, statuses):
        heard = watcher.hear(DiagnosticArray, "/diagnostics", 10)
        first = wait_until(statuses, "the node to begin")[0]
        assert first.state == CommandStatus.ACCEPTED
        for words in (
            f"fetching {PUBLISHED}",
            "about 603 MB",
            HUB.repository,
            "grant no licence",
            f"{EMBEDDED} serves",
        ):
            assert words in first.message

        def fetched():
            values = [pair for message in heard[:] for status in message.status for pair in status.values]
            return [pair.value for pair in values if pair.key == "being fetched" and " 0 of" not in pair.value]

        assert "603 MB have arrived" in wait_until(fetched, "the progress in the diagnostics")[0]
        assert EMBEDDED in watcher.say("segment the red cup").message, "it serves meanwhile"
        gate.set()
        last = wait_until(lambda: is_done(statuses), "the end")
        assert last.message == f"{PUBLISHED} serves now"
        assert {status.command_id for status in statuses()} == {first.command_id}
        assert watcher.say("segment the red cup").message == "looking for red cup"
        assert watcher.get_text("referring", "model") == "auto"


def test_whoever_chose_another_model_keeps_it(ros, log, gate):
    with fetching_node(log) as (_, watcher, statuses):
        wait_until(statuses, "the node to begin")
        chosen = watcher.say("use maskclip")
        assert watcher.outcome(chosen.command_id).state == CommandStatus.DONE
        gate.set()
        last = wait_until(lambda: is_done(statuses), "the end")
        assert last.message == f"{PUBLISHED} is there now: type `use {PUBLISHED}` to have it serve"
        assert watcher.get_text("referring", "model") == "maskclip-pocket"


def test_a_damaged_file_is_replaced_while_the_embedded_model_serves(ros, log, home, gate):
    file = home / "weights" / f"{PUBLISHED}.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"damaged")
    with fetching_node(log) as (node, watcher, statuses):
        heard = watcher.hear(DiagnosticArray, "/diagnostics", 10)
        assert f"{PUBLISHED} could not be loaded: " in node.said()
        assert f"{EMBEDDED} on cpu" in node.said()

        def of_model():
            found = [status for message in heard[:] for status in message.status]
            return [status for status in found if status.name == "fetch/referring: model"]

        status = wait_until(of_model, "diagnostics")[0]
        assert status.level == DiagnosticStatus.WARN
        assert "could not be loaded" in status.message
        gate.set()
        wait_until(lambda: is_done(statuses), "the end")
        wait_until(lambda: of_model()[-1].level == DiagnosticStatus.OK, "the fault to be gone")


def test_without_a_network_the_embedded_model_serves_on(ros, log, home):
    with fetching_node(log) as (_, watcher, statuses):
        last = wait_until(lambda: statuses()[-1:] and statuses()[-1].state and statuses()[-1], "it")
        assert last.state == CommandStatus.FAILED
        for words in (
            f"{PUBLISHED} was not fetched: ",
            "gives no answer",
            "and wait for the next attempt; or fetch the file",
            f"{EMBEDDED} serves on, and this node tries again by itself in 1 min",
        ):
            assert words in last.message
        assert "command again" not in last.message, "nobody typed one"
        assert EMBEDDED in watcher.say("segment the red cup").message


@dataclass
class Record:
    """Keeps what a node would publish."""

    said: list[tuple[str, int, str]] = field(default_factory=list)
    count: int = 0

    def next_id(self) -> int:
        self.count += 1
        return self.count

    def accept(self, command_id: int, text: str, note: str) -> None:
        self.said.append(("accept", command_id, note))

    def fail(self, command_id: int, text: str, note: str) -> None:
        self.said.append(("fail", command_id, note))


@pytest.fixture
def fetch(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Begins to fetch, and tells what was said and what took over."""
    record, taken, faults = Record(), [], FaultLog(lambda line: None)
    one = fetching.Fetching(record, faults, lambda: EMBEDDED, lambda number, text, name: taken.append(name))

    def start() -> tuple[Record, list[str], FaultLog]:
        one.start(PUBLISHED)
        return record, taken, faults

    start.stop = one.stop
    yield start
    one.stop()


def test_it_is_tried_again_until_the_network_is_there(fetch: Callable, published: Path, monkeypatch):
    monkeypatch.setattr(fetching, "PAUSES_S", (0.1,))
    record, taken, faults = fetch()
    wait_until(lambda: [each for each in record.said if each[0] == "fail"], "a failure")
    files = {address(HUB.repository, HUB.files[0]): published}
    with served(type("Bound", (HubHandler,), {"files": files})) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        wait_until(lambda: taken == [PUBLISHED], "the weights")
    assert not faults.standing()
    assert record.said[0][:2] == ("accept", 1)
    assert record.said[-1][1] == record.count > 1, "each attempt has an id"


def test_stopping_ends_the_process(fetch: Callable, gate):
    _, taken, _ = fetch()
    wait_until(downloads, "the process")
    fetch.stop()
    assert not downloads()
    assert not taken


def downloads() -> list[Path]:
    """The processes that this one has started to download."""
    lines = [path.read_bytes() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")]
    own = [Path("/proc", pid) for line in lines for pid in line.decode().split()]
    return [folder for folder in own if b"weights\0download" in (folder / "cmdline").read_bytes()]
