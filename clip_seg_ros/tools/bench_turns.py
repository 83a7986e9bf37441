# SPDX-License-Identifier: Apache-2.0
"""Times several sides in turns, so that other work on the machine disturbs all of them alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.tools.bench_models import CACHED, TEXTS, TRANSFORMERS, Request, Side, encoded, logits_file

_WARM_UPS = 2


class BenchError(Exception):
    """A measurement failed; the message is written for the user."""


@dataclass
class Measured:
    """What was measured of one side."""

    texts_s: list[float] = field(default_factory=list)
    """The times of an image and its prompts with their texts, in seconds."""
    cached_s: list[float] = field(default_factory=list)
    """The same without the texts, which are those of the image before; empty for transformers."""
    report: Mapping[str, float] = field(default_factory=dict)
    """"load_s", "peak_bytes" and "threads"."""

    @property
    def ms(self) -> float:
        """The median time with texts, in milliseconds."""
        return 1e3 * statistics.median(self.texts_s)

    @property
    def cached_ms(self) -> float:
        """The median time without texts, in milliseconds."""
        return 1e3 * statistics.median(self.cached_s or self.texts_s)

    @property
    def spread(self) -> float:
        """The distance between the quartiles of the times with texts, as a share of their median."""
        low, middle, high = np.percentile(self.texts_s, (25, 50, 75))
        return float((high - low) / middle)


class _Process:
    """A side in a process of its own."""

    def __init__(self, request: Request) -> None:
        self._side = request.side
        command = [sys.executable, "-m", "clip_seg_ros.tools.bench_models", "serve", encoded(request)]
        self._errors = Path(request.folder) / f"{request.side}.log"
        # What engines keep of random weights goes with the bench.
        env = {**os.environ, "XDG_CACHE_HOME": os.path.abspath(request.folder)}
        pipe = subprocess.PIPE
        with self._errors.open("w") as errors:
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=env)
        if "unavailable" in (reply := self._reply()):
            self.end()
            raise EngineUnavailable(reply["unavailable"])

    def ask(self, what: str) -> float:
        return self._say(what)["seconds"]

    def finish(self) -> dict[str, float]:
        return self._say("finish")

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self._child.kill()
        self._child.communicate()

    def _say(self, word: str) -> dict[str, float]:
        with suppress(BrokenPipeError):  # the missing reply says why
            self._child.stdin.write(f"{word}\n")
            self._child.stdin.flush()
        return self._reply()

    def _reply(self) -> dict:
        # Libraries write lines of their own.
        for line in self._child.stdout:
            if line.startswith("{"):
                return json.loads(line)
        code = self._child.wait()
        last = (self._errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"the side {self._side} failed with exit code {code}: {last}")


def open_side(request: Request) -> Side:
    """Starts a side; raises EngineUnavailable or ``BenchError`` if that fails."""
    return _Process(request)


def in_turns(requests: Sequence[Request], repeats: int) -> tuple[dict[str, Measured], dict[str, str]]:
    """Times all sides ``repeats`` times, one after the other and again.

    Returns:
        What was measured of each side, and why the others cannot be had; both by the side's name.

    Raises:
        BenchError: One of them failed.
    """
    sides: dict[str, Side] = {}
    missing: dict[str, str] = {}
    try:
        for request in requests:
            try:
                sides[request.side] = side = open_side(request)
            except EngineUnavailable as error:
                missing[request.side] = str(error)
                continue
            for _ in range(_WARM_UPS):
                side.ask(TEXTS)
        measured = {name: Measured() for name in sides}
        names = list(sides)
        for turn in range(repeats):
            # Nobody always follows the same one.
            for name in names[turn % len(names) :] + names[: turn % len(names)] if names else ():
                measured[name].texts_s.append(sides[name].ask(TEXTS))
                if name != TRANSFORMERS:
                    measured[name].cached_s.append(sides[name].ask(CACHED))
        for name, side in sides.items():
            measured[name].report = side.finish()
        return measured, missing
    finally:
        for side in sides.values():
            getattr(side, "end", lambda: None)()


def mask_iou(expected: Request, found: Request) -> float:
    """Returns the mean IoU of the masks of two sides.

    Random weights know no object, so that a mask is the half of the pixels with the larger logits. It has a long border
    on which logits are near the limit: for masks of objects, the same error changes fewer pixels.
    """
    right, other = np.load(logits_file(expected)), np.load(logits_file(found))
    middle = np.median(right, axis=(1, 2), keepdims=True)
    first, second = right > middle, other > middle
    return float(np.mean((first & second).sum(axis=(1, 2)) / np.maximum((first | second).sum(axis=(1, 2)), 1)))


def difference(expected: Request, found: Request) -> float:
    """Returns the largest difference of the logits of two sides. Raises BenchError if their shapes differ."""
    first, second = np.load(logits_file(expected)), np.load(logits_file(found))
    if first.shape != second.shape:
        raise BenchError(f"the logits of the two sides have the shapes {first.shape} and {second.shape}")
    return float(np.abs(first - second).max())
