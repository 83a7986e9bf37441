# SPDX-License-Identifier: Apache-2.0
"""The engine that captures a model's work on a GPU once and replays it.

In eager mode, the processor starts some hundred kernels for every image, which takes longer than the GPU works. A CUDA
graph starts all of them at once. It needs PyTorch alone, neither Triton nor TensorRT, and so runs on a Jetson, too.

A graph works on fixed memory: inputs are copied in before it is replayed, and outputs are copied out before the next
replay overwrites them. It holds for one size of its inputs, so that there are several.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.kept import noting_use
from clip_seg_ros.runtime.capturing import CAPTURING
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import Engine, EngineUnavailable

_LOG = logging.getLogger(__name__)
KEPT = 4
"""The number of graphs that are kept of each step. One takes as much memory as what it computes."""
RESTED = 32
"""After how many calls without it a graph makes room for another one. Sizes that alternate must not be captured again
and again, which takes much longer than to compute without a graph."""
REMEMBERED = 64
"""The number of sizes of which is known that they could not be captured."""
BUCKETS = (1, 2, 4, 8, 16)
"""The numbers of prompts that are captured; others are filled up, beyond the last one to a multiple of it."""
_WARM_UPS = 3

Step = Callable[[], Any]
Capture = Callable[[Step], tuple[Callable[[], None], Any]]
"""Captures a step; returns what replays it, and its output (a tensor or ``ImageFeatures``), which replays overwrite."""


def bucket(count: int) -> int:
    """Returns the number of prompts, at least ``count``, that a graph for ``count`` prompts decodes."""
    return next((size for size in BUCKETS if size >= count), -(-count // BUCKETS[-1]) * BUCKETS[-1])


class _Graph:
    """A captured step with the memory of its inputs and outputs."""

    def __init__(self, inputs: Sequence[torch.Tensor], replay: Callable[[], None], output: Any) -> None:
        self._inputs, self._replay, self._output = inputs, replay, output
        self.used = 0
        """The number of the call that used it last."""

    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._replay()
        return _mapped(self._output, torch.clone)


class _Graphs:
    """The graphs of one step, by the sizes of their inputs."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._kept: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._refused: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0
        self.fault = ""

    def find(
        self, key: Hashable, inputs: Sequence[torch.Tensor], step: Callable[[Sequence[torch.Tensor]], Any]
    ) -> _Graph | None:
        """Returns the graph of ``step`` for inputs of these sizes, captured now if there is room; or ``None``."""
        self._calls += 1
        graph = self._kept.get(key)
        if graph is None and key not in self._refused and self._has_room():
            graph = self._captured(key, inputs, step)
        if graph is not None:
            self._kept.move_to_end(key)
            graph.used = self._calls
        return graph

    def _has_room(self) -> bool:
        if len(self._kept) < KEPT:
            return True
        eldest = next(iter(self._kept))
        if self._calls - self._kept[eldest].used < RESTED:
            return False
        del self._kept[eldest]
        return True

    def _captured(
        self, key: Hashable, inputs: Sequence[torch.Tensor], step: Callable[[Sequence[torch.Tensor]], Any]
    ) -> _Graph | None:
        own = [tensor.clone() for tensor in inputs]
        try:
            graph = self._kept[key] = _Graph(own, *self._capture(lambda: step(own)))
        except RuntimeError as error:  # the driver's, or too little memory: without a graph it still works
            self.fault = f"a CUDA graph could not be captured: {str(error).splitlines()[0]}"
            _LOG.warning("%s; this size is computed without one", self.fault)
            self._refused[key] = None
            if len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)
            return None
        return graph


class CudaGraphEngine(Engine):
    """Runs a ``PromptableSegmenter`` by CUDA graphs, which are captured when a size is seen for the first time.

    Prompts that are decided alone are filled up to one of ``BUCKETS``, which changes no answer; competing prompts are
    not. Texts and example images are encoded without a graph. All threads must use the same CUDA stream, as they do
    unless torch is told otherwise.

    Args:
        model: A model with loaded weights. It is moved to the device and set to evaluation mode.
        device: "auto", "cuda" or "cuda:N".
        precision: "float16", "bfloat16" or "float32".
        capture: Captures a step; by default as a CUDA graph of the device.

    Raises:
        EngineUnavailable: There is no CUDA device.
        ValueError: The device or the precision is unknown, or the device is not available.
    """

    name = "cuda_graph"

    def __init__(
        self,
        model: PromptableSegmenter,
        device: str = "auto",
        precision: str = "float16",
        capture: Capture | None = None,
    ) -> None:
        if capture is None and (device == "cpu" or not torch.cuda.is_available()):
            raise EngineUnavailable("CUDA graphs need a CUDA device that torch sees: use another engine")
        self._eager = EagerEngine(model, device, precision)
        self.model, self.spec = self._eager.model, self._eager.spec
        self.device, self.precision = self._eager.device, precision
        # One pool for all graphs: none of them runs while another one does.
        capture = capture or _OfDevice(self.device)
        self._encoding, self._decoding = _Graphs(capture), _Graphs(capture)
        self._lock = threading.Lock()

    @property
    def fault(self) -> str:
        """Why something could not be captured and was computed without a graph; "" if nothing was refused."""
        return self._encoding.fault or self._decoding.fault

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        with self._lock, torch.inference_mode():
            graph = self._encoding.find(tuple(pixels.shape), [pixels], lambda given: self._eager.encode_image(given[0]))
            if graph is not None:
                return graph([pixels])
        return self._eager.encode_image(pixels)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return self._eager.encode_text(prompts)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        count = text.pooled.shape[0]
        filled = bucket(count) if self.spec.competition == "sigmoid" else count
        words = [None if part is None else _filled(part, filled) for part in _parts(text)]
        inputs = [*_tensors(image), *(part for part in words if part is not None)]
        key = (_mapped(image, _size), tuple(None if part is None else _size(part) for part in words))

        def step(given: Sequence[torch.Tensor]) -> torch.Tensor:
            rest = iter(given)
            features = _mapped(image, lambda _: next(rest))
            return self._eager.decode(features, TextFeatures(*(None if part is None else next(rest) for part in words)))

        with self._lock, torch.inference_mode():
            graph = self._decoding.find(key, inputs, step)
            if graph is not None:
                return graph(inputs)[:, :count]
        return self._eager.decode(image, text)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return self._eager.probabilities(logits)

    def fingerprint(self) -> str:
        return self._eager.fingerprint()

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        return self._eager.encode_example(pixels, text, text_weight)


class _OfDevice:
    """Captures steps as CUDA graphs of one device, which share their memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> tuple[Callable[[], None], Any]:
        with CAPTURING, torch.cuda.device(self._device):
            stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):  # libraries choose their kernels and allocate what they keep
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            # Other threads go on with their own work on the GPU, such as loading another model.
            recording = torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local")
            with noting_use() as used, recording:
                output = step()
        return partial(_replay, graph, used), output


def _replay(graph: torch.cuda.CUDAGraph, used: Sequence[torch.Tensor]) -> None:
    """Replays a graph that refers to the memory of ``used``, which is kept by being passed."""
    graph.replay()


def _parts(text: TextFeatures) -> tuple[torch.Tensor | None, ...]:
    return text.pooled, text.tokens, text.padding_mask


def _filled(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Repeats the last of the rows until there are ``count``."""
    missing = count - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor


def _size(tensor: torch.Tensor) -> Any:
    return tuple(tensor.shape), tensor.dtype


def _mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Applies ``change`` to a tensor, or to every tensor of features."""
    return value.mapped(change) if isinstance(value, ImageFeatures) else change(value)


def _tensors(features: ImageFeatures) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    features.mapped(keep)
    return found
