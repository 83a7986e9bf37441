# SPDX-License-Identifier: Apache-2.0
"""Questions to the nodes, many at once: a process that uses ROS, and what it answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import check_ros, shared_memory
from clip_seg_ros.tools.talking import nobody

_NAME = "asker"


class NoAnswer(Exception):
    """A question has no answer; the message says why, and what to do if something can be done."""


class Questioner:
    """Runs the process ``nodes.observers.asker`` while its block lasts, and starts it again should it end.

    It must be used on the main thread alone, by as many tasks of asyncio as one likes.

    Args:
        what: Command that needs ROS, for the message if there is none.
        arguments: Arguments of the process.

    Raises:
        NoRos: This Python cannot run the process.
    """

    def __init__(self, what: str, arguments: Sequence[str]) -> None:
        check_ros(what)
        self._folder = tempfile.TemporaryDirectory(prefix="clip_seg_ask_")
        self._children = ChildProcesses(Path(self._folder.name), shared_memory(os.environ))
        self._arguments = list(arguments)
        self._stdin: IO[str] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[dict[str, Any]]] = {}

    def __enter__(self) -> Questioner:
        self._start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._children.stop()
        self._folder.cleanup()

    def _start(self) -> None:
        child = self._children.start(_NAME, "clip_seg_ros.nodes.observers.asker", self._arguments, talks=True)
        self._stdin = child.stdin
        threading.Thread(target=self._read, args=(child.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        try:
            for line in stream:
                answer = json.loads(line)
                if (future := self._waiting.pop(answer["number"], None)) is not None:
                    future.set_result(answer)
        except ValueError:  # the pipe was closed, or a line was cut at the end
            pass
        for number in list(self._waiting):
            if (future := self._waiting.pop(number, None)) is not None:
                future.set_exception(NoAnswer("the process that speaks with ROS has ended: ask again"))

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._children.check()
        except ChildDied:
            self._children.stop(_NAME)
            self._start()
        print(json.dumps(request), file=self._stdin, flush=True)

    async def ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        """Puts a question, the name of a method of ``nodes.observers.questions.Questions``, and returns its answer.

        A task that is cancelled gives up its question.

        Raises:
            NoAnswer: There is no node to answer, or it cannot.
        """
        number = next(self._numbers)
        future = self._waiting[number] = concurrent.futures.Future()
        try:
            self._send({"number": number, "ask": question, "with": arguments})
            answer = await asyncio.wrap_future(future)
        except OSError as error:
            raise NoAnswer(f"the process that speaks with ROS has ended: {error}") from error
        except asyncio.CancelledError:
            self._send({"number": number, "ask": "forget"})
            raise
        finally:
            self._waiting.pop(number, None)
        if "nobody" in answer:
            raise NoAnswer(nobody(answer["nobody"], os.environ.get("ROS_DOMAIN_ID")))
        if "why_not" in answer:
            raise NoAnswer(answer["why_not"])
        return answer["answer"]
