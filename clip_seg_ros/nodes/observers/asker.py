# SPDX-License-Identifier: Apache-2.0
"""Puts questions to the nodes for ``clip-seg mcp``: a process that reads them from stdin, as lines of JSON.

A question is ``{"number": n, "ask": name, "with": arguments}``, with the name and the arguments of a method of
``Questions``. The answer is a line on stdout, ``{"number": n, "answer": values}``, ``{"number": n, "why_not": text}``
or ``{"number": n, "nobody": {"topic": topic, "others": [topics]}}``. Many questions may be under way at once.
``{"number": n, "ask": "forget"}`` gives up a question, which then has no answer. The process ends with its input.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clip_seg_ros.nodes.observers.asking import GivenUp, Nobody, Unanswered
from clip_seg_ros.nodes.observers.observing import observing
from clip_seg_ros.nodes.observers.questions import Questions

_AT_ONCE = 32
"""The number of questions that are under way at once; others wait for them."""
_KINDS = ("command", "describe", "find", "segment", "look", "recall")


def answer_all(questions: Questions, lines: Iterable[str], reply: Callable[[dict[str, Any]], None]) -> None:
    """Answers questions, many at once, until there are no more lines."""
    under_way: dict[int, threading.Event] = {}
    one_line = threading.Lock()

    def answer(request: dict[str, Any], given_up: threading.Event) -> None:
        number = request["number"]
        try:
            told = _answer(questions, request, given_up)
        except GivenUp:
            return
        finally:
            under_way.pop(number, None)
        with one_line:
            reply({"number": number} | told)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            for line in lines:
                request = json.loads(line)
                if request["ask"] == "forget":
                    if (event := under_way.get(request["number"])) is not None:
                        event.set()
                    continue
                under_way[request["number"]] = given_up = threading.Event()
                threads.submit(answer, request, given_up)
        finally:
            questions.end()


def _answer(questions: Questions, request: dict[str, Any], given_up: threading.Event) -> dict[str, Any]:
    try:
        if request["ask"] not in _KINDS:
            return {"why_not": f"there is no question {request['ask']!r}"}
        return {"answer": getattr(questions, request["ask"])(given_up, **request["with"])}
    except Nobody as nobody:
        return {"nobody": {"topic": nobody.topic, "others": nobody.others}}
    except Unanswered as why:
        return {"why_not": str(why)}
    except GivenUp:
        raise
    except Exception as error:  # whatever it is, the caller waits for an answer
        traceback.print_exc()
        return {"why_not": f"the question failed: {type(error).__name__}: {error}"}


def main() -> int:
    """Runs the asker as a process until its input ends, or SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="asker", description="For clip-seg mcp.")
    parser.add_argument("--namespace", default="clip_seg")
    parser.add_argument("--topic", default="command")
    parser.add_argument("--use-sim-time", action="store_true")
    args = parser.parse_args()
    # Whoever started it may be killed, which sends SIGTERM; what Fast DDS shares must be removed then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with observing(lambda: Questions(args.namespace, args.topic, args.use_sim_time)) as (questions, reply):
        answer_all(questions, sys.stdin, reply)
    return 0


if __name__ == "__main__":
    sys.exit(main())
