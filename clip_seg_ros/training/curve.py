# SPDX-License-Identifier: Apache-2.0
"""The loss over the steps of a training: running means for the progress bar, ``curve.jsonl``, and TensorBoard.

A resumed run writes each point only once: points after the step at which it resumes are removed, because these steps
are run again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

CURVE_NAME = "curve.jsonl"
_MEMORY = 0.98


class LossMeans:
    """Means of the terms of the loss: a running one for the bar, and one since the last point of the curve."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.running: dict[str, float] = dict(state.get("running", {}))
        """Running means over about the last fifty steps."""
        self._sums: dict[str, float] = dict(state.get("sums", {}))
        self._count: int = state.get("count", 0)

    def add(self, terms: Mapping[str, float]) -> None:
        """Adds the terms of one step."""
        self._count += 1
        for name, value in terms.items():
            self.running[name] = _MEMORY * self.running.get(name, value) + (1 - _MEMORY) * value
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """Returns the means of the terms since the last call, and starts again."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that a resumed run needs to continue exactly."""
        return {"running": dict(self.running), "sums": dict(self._sums), "count": self._count}


class Curve:
    """Writes the points of one stage's curve.

    Each line of ``curve.jsonl`` is ``{"stage", "step", "learning_rate", "loss", "terms": {name: value}}``, with the
    number of the last step that the means include, counted from 0; ``add_score`` adds lines with the scores of
    validations. If TensorBoard is installed, the same points
    are written for it to a folder with the stage's name.

    Args:
        folder: The folder, which is created if necessary.
        stage: Name of the stage.
        first: The step at which the stage starts or resumes.
        finished: Names of the earlier stages, whose points stay.
    """

    def __init__(self, folder: Path, stage: str, first: int, finished: Collection[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stage = stage
        path = folder / CURVE_NAME

        def stays(point: dict[str, Any]) -> bool:
            return point["stage"] in finished or (point["stage"] == stage and point["step"] < first)

        _keep_points(path, stays)
        self._file = path.open("a", encoding="utf-8")
        self._board = _open_board(folder / stage, first)

    def add(self, step: int, learning_rate: float, terms: Mapping[str, float]) -> None:
        """Writes the point of ``step``, which then survives a kill."""
        loss = sum(terms.values())
        point = {"stage": self._stage, "step": step, "learning_rate": learning_rate, "loss": loss, "terms": dict(terms)}
        self._file.write(json.dumps(point) + "\n")
        self._file.flush()
        if self._board is not None:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("learning_rate", learning_rate, step)
            for name, value in terms.items():
                self._board.add_scalar(f"terms/{name}", value, step)

    def add_score(self, step: int, score: float) -> None:
        """Writes the score of a validation after ``step``, as a line with ``score`` instead of a loss."""
        self._file.write(json.dumps({"stage": self._stage, "step": step, "score": score}) + "\n")
        self._file.flush()
        if self._board is not None:
            self._board.add_scalar("score", score, step)

    def flush(self) -> None:
        """Writes the points that TensorBoard's writer still buffers; call it before a state is saved."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Writes the remaining points and closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Returns the points of a ``curve.jsonl``; an incomplete last line after a kill is left out.

    Raises:
        OSError: The file cannot be read.
    """
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return points


def _keep_points(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    if not path.exists():
        return
    kept = [json.dumps(point) + "\n" for point in read_curve(path) if keep(point)]
    beside = path.with_suffix(".part")
    beside.write_text("".join(kept), encoding="utf-8")
    os.replace(beside, path)


def _open_board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            f"TensorBoard is not installed (pip install tensorboard): the curve goes to {CURVE_NAME} alone",
            stacklevel=2,
        )
        return None
    # Each stage has its own folder, because purging removes everything after a step, of all stages in a folder.
    return SummaryWriter(str(folder), purge_step=first)
