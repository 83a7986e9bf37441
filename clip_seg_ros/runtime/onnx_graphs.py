# SPDX-License-Identifier: Apache-2.0
"""Writes graphs as ONNX files, and runs such files in ONNX Runtime."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.graphs import Graph
from clip_seg_ros.runtime.optional_packages import optional_package

OPSET = 18
"""The version of ONNX's operators: that which torch writes without a conversion, and which TensorRT 10 reads."""
_ERRORS_ONLY = 3


def save_onnx(graph: Graph, path: Path) -> None:
    """Writes ``graph`` as an ONNX file, with its names of inputs, outputs and open dimensions.

    Weights of more than 1.5 GB get a file of their own beside it.

    Raises:
        EngineUnavailable: A package that writes ONNX is missing.
        RuntimeError: The graph cannot be expressed in ONNX.
    """
    for package in ("onnx", "onnxscript"):
        optional_package(package, "export")
    with warnings.catch_warnings():
        # About classes of torch that torch itself still uses.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            program = torch.onnx.export(
                graph.program,
                input_names=list(graph.input_names),
                output_names=list(graph.output_names),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            # torch raises errors of many kinds, most of them of modules that are its own.
            raise RuntimeError(f"torch {torch.__version__} cannot express the model in ONNX: {error}") from error
    _name_dimensions(program.model, graph)
    program.save(path)


class OnnxNetwork:
    """An ONNX file in ONNX Runtime. It is safe to use from several threads.

    Args:
        path: The file.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        EngineUnavailable: ONNX Runtime is not installed, or knows no such device.
        RuntimeError: The file cannot be read.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        runtime = load_onnxruntime(device)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait busily would take the processor from the other graph, and from all else on a robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers_of(device))
        except Exception as error:
            # Its errors have no common class besides Exception.
            raise RuntimeError(f"ONNX Runtime cannot load {path}: {error}") from error
        self._names = [item.name for item in self._session.get_inputs()]

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        arrays = (tensor.detach().contiguous().numpy() for tensor in tensors)
        return [torch.from_numpy(array) for array in self._session.run(None, dict(zip(self._names, arrays)))]


def load_onnxruntime(device: str) -> Any:
    """Imports ONNX Runtime.

    Raises:
        EngineUnavailable: It is not installed, or knows no such device.
        ValueError: ``device`` is neither "cpu" nor "cuda" nor "cuda:N".
    """
    wanted = providers_of(device)[0][0]
    runtime = optional_package("onnxruntime", "onnxruntime")
    if wanted not in runtime.get_available_providers():
        raise EngineUnavailable(
            f"this ONNX Runtime does not compute on {device}, it has {', '.join(runtime.get_available_providers())}: "
            "type `pip install onnxruntime-gpu`, on a Jetson take the vendor's onnxruntime, or use cpu"
        )
    return runtime


def providers_of(device: str) -> list[tuple[str, dict[str, int]]]:
    """Returns ONNX Runtime's names of what computes on a device, the first one first, with their options.

    CUDA leaves to the CPU what it cannot do. Raises ValueError for an unknown device.
    """
    match = re.fullmatch(r"(cpu)|cuda(?::(\d{1,2}))?", device)
    if match is None:
        raise ValueError(f'unknown device "{device}" for ONNX Runtime: use cpu, cuda or cuda:N')
    cpu: tuple[str, dict[str, int]] = ("CPUExecutionProvider", {})
    return [cpu] if match[1] else [("CUDAExecutionProvider", {"device_id": int(match[2] or 0)}), cpu]


def _name_dimensions(model: Any, graph: Graph) -> None:
    """Gives open dimensions the names of ``graph`` in an ``onnx_ir.Model``, where torch numbers them."""
    names = {}
    for value, shape in zip(model.graph.inputs, graph.input_shapes):
        names.update({str(found): side for found, side in zip(value.shape, shape) if isinstance(side, str)})
    values = [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
    for value in values:
        for axis, side in enumerate(value.shape or ()):
            if str(side) in names:
                value.shape[axis] = names[str(side)]
