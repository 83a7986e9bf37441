# SPDX-License-Identifier: Apache-2.0
"""What behaves as a CUDA graph does, on the CPU: it works on fixed memory, which every replay overwrites."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from clip_seg_ros.models.base import ImageFeatures


class StandIn:
    """Captures steps; ``captured`` counts them, and ``replays`` how often each was replayed."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.captured = 0
        self.replays: list[int] = []
        self._pause_s = pause_s
        self._replaying = threading.Lock()

    def __call__(self, step: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        number, output = self.captured, copied(step())
        self.captured += 1
        self.replays.append(0)

        def replay() -> None:
            assert self._replaying.acquire(blocking=False), "two replays at once"
            self.replays[number] += 1
            for old, new in zip(tensors_of(output), tensors_of(step())):
                old.fill_(float("nan"))
                time.sleep(self._pause_s)
                old.copy_(new)
            self._replaying.release()

        return replay, output


def copied(value: Any) -> Any:
    return value.mapped(torch.clone) if isinstance(value, ImageFeatures) else value.clone()


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors of features in their order, or the tensor itself."""
    if isinstance(value, torch.Tensor):
        return [value]
    found: list[torch.Tensor] = []
    value.mapped(lambda tensor: found.append(tensor) or tensor)
    return found
