# SPDX-License-Identifier: Apache-2.0
"""The engine that runs models in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.runtime.converted import ConvertedEngine, Network
from clip_seg_ros.runtime.graphs import Size
from clip_seg_ros.runtime.onnx_graphs import OPSET, OnnxNetwork, load_onnxruntime, save_onnx

_PRECISIONS = ("float32", "int8")


class OnnxRuntimeEngine(ConvertedEngine):
    """Runs a ``PromptableSegmenter`` in ONNX Runtime.

    The model is converted once and kept in the user's cache, where the next start finds it. torch's number of threads
    counts for ONNX Runtime, too. Pixels and logits are on the CPU, on whichever device it computes.

    Args:
        model: A model with loaded weights and folded batch norms.
        precision: "float32", or "int8" if `clip-seg export` made it.
        device: "cpu", "cuda" or "cuda:N".
        cache_dir: The folder of converted models; by default in the user's cache.

    Raises:
        EngineUnavailable: A package is missing, ONNX Runtime knows no such device, or the model cannot be converted.
        ValueError: The precision or the device is unknown.
    """

    name = "onnxruntime"
    file_format = "onnx"
    # The version of ONNX Runtime does not count: all versions since 1.14 read these files.
    packages = ()

    def __init__(
        self,
        model: PromptableSegmenter,
        precision: str = "float32",
        device: str = "cpu",
        cache_dir: Path | None = None,
    ) -> None:
        if precision not in _PRECISIONS:
            raise ValueError(f'unknown precision "{precision}" for ONNX Runtime: use {" or ".join(_PRECISIONS)}')
        load_onnxruntime(device)
        self._provider = device
        super().__init__(model, precision, cache_dir)

    def _write(self, folder: Path, size: Size) -> dict[str, object]:
        for part, graph in self._graphs(size).items():
            save_onnx(graph, folder / f"{part}.onnx")
        return {"opset": OPSET}

    def _read(self, folder: Path, part: str) -> Network:
        return OnnxNetwork(folder / f"{part}.onnx", self._provider)
