# SPDX-License-Identifier: Apache-2.0
"""Converts a model in a process of its own: ``python -m clip_seg_ros.runtime.conversion FILE NICENESS``.

A conversion is Python from beginning to end. In a thread of a node it would make every answer wait for seconds, and
what it imports would keep 80 MB for as long as the node lives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from pickle import PicklingError

import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.runtime.engine import Engine, EngineUnavailable
from clip_seg_ros.runtime.graphs import Size

_NICENESS = 10
"""A tenth of the time of others on a busy machine. At 19, a command for another model waited for minutes behind it."""
_LOOK_S = 0.2
"""How often to see whether this program still wants the result, in seconds."""


def convert_elsewhere(
    engine: type[Engine], model: PromptableSegmenter, precision: str, cache_dir: Path | None, size: Size
) -> None:
    """Puts a model that is converted for pixels of ``size`` (h, w) into the cache.

    The other process has one thread and ends with this program. Its priority is low, so that a node goes on answering,
    unless the main thread waits: a program can do nothing else until then, and the time that others leave on a busy
    machine is next to none.

    Args:
        engine: The engine that is to run it.
        model: The model, on the CPU in float32.
        precision: A precision of the engine.
        cache_dir: The folder of converted models; ``None`` for that in the user's cache.
        size: (h, w) of the pixels.

    Raises:
        EngineUnavailable: This program ends.
        OSError: There is no room for a copy of the model, or no process can be started.
        RuntimeError: The conversion failed, or this is the other process.
    """
    if getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None) == __name__:
        raise RuntimeError("this is the process that converts")
    with tempfile.TemporaryDirectory(prefix="clip_seg_ros_conversion_") as folder:
        request = Path(folder) / "request.pt"
        try:
            torch.save((engine, model, precision, cache_dir, size), request)
        except (PicklingError, AttributeError, TypeError) as error:
            raise RuntimeError(f"the model cannot be sent to another process: {error}") from error
        # Wherever this process found its modules, the other one finds them, too.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        niceness = "0" if threading.current_thread() is threading.main_thread() else str(_NICENESS)
        errors = Path(folder) / "errors.log"
        with errors.open("w") as output:
            # Not in a session of its own: Linux would then give it as much time as all of this program's threads.
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(request), niceness],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
            )
        if _outcome(child) != 0:
            lines = errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"the process that converts ended with code {child.returncode}: {lines[-1]}")


def _outcome(child: subprocess.Popen[bytes]) -> int:
    """Returns the exit code of ``child``. Raises EngineUnavailable, and kills it, if this program ends first."""
    while True:
        try:
            return child.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            # Python waits for its threads at the end, and this may be one of them.
            if not threading.main_thread().is_alive():
                child.kill()
                child.wait()
                raise EngineUnavailable("the program ends") from None


def main(path: str, niceness: str) -> None:
    """Converts what the file ``path`` of ``convert_elsewhere`` asks for, at a priority lower by ``niceness``."""
    os.nice(int(niceness))
    torch.set_num_threads(1)
    # The program that started this one wrote it, in a folder that nobody else can write.
    engine, model, precision, cache_dir, size = torch.load(path, weights_only=False)
    # A program that ends at once does not tidy up, and the file is as large as the model.
    Path(path).unlink()
    engine(model, precision, cache_dir=cache_dir).prepare(size)


if __name__ == "__main__":
    main(*sys.argv[1:])
