# SPDX-License-Identifier: Apache-2.0
"""The formats of exported models: how a graph is written, made smaller, and run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros.runtime import onnx_graphs, openvino_engine
from clip_seg_ros.runtime.converted import Network
from clip_seg_ros.runtime.graphs import Graph
from clip_seg_ros.runtime.optional_packages import optional_package


class FileFormat(ABC):
    """One format, with the precisions in which it can be exported."""

    name: str
    suffix: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    """The packages that write it and run it."""
    key_packages: tuple[str, ...] = ()
    """Those of them on whose version the files depend."""

    @abstractmethod
    def save(self, graph: Graph, path: Path) -> None:
        """Writes ``graph`` in float32."""

    @abstractmethod
    def halve(self, source: Path, target: Path) -> None:
        """Writes a file in float32 with weights in float16; inputs and outputs stay as they are."""

    @abstractmethod
    def load(self, path: Path, precision: str) -> Network:
        """Loads a file for the CPU. Raises EngineUnavailable if it has no such precision."""

    def quantise(
        self,
        source: Path,
        target: Path,
        inputs: Sequence[Sequence[torch.Tensor]],
        attends: bool,
        smooth: bool,
    ) -> None:
        """Writes a file in float32 with its convolutions and matrix products in int8, by NNCF.

        Args:
            source: The file in float32.
            target: The file to write.
            inputs: The tensors that the graph gets for each of some images; their ranges are measured.
            attends: Whether the graph is a transformer, of which some products need more than 8 bits.
            smooth: Whether a transformer's outliers move from activations to weights (Xiao et al., ICML 2023). NNCF
                cannot do so where images and prompts are paired.

        Raises:
            EngineUnavailable: NNCF is missing.
            RuntimeError: NNCF cannot do it.
        """
        nncf = optional_package("nncf", "export")
        names = self._input_names(source)
        samples = [dict(zip(names, (tensor.numpy() for tensor in tensors))) for tensors in inputs]
        try:
            quantised = nncf.quantize(
                self._read(source),
                nncf.Dataset(samples),
                # Weights with a scale for each channel; activations that may be negative get a zero point.
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if attends else None,
                subset_size=len(samples),
                advanced_parameters=None if smooth else _unsmoothed(nncf),
            )
        except Exception as error:
            # NNCF raises errors of many kinds.
            raise RuntimeError(f"NNCF cannot make {source.name} smaller: {error}") from error
        self._write(quantised, target)

    @abstractmethod
    def _input_names(self, path: Path) -> list[str]: ...

    @abstractmethod
    def _read(self, path: Path) -> Any: ...

    @abstractmethod
    def _write(self, model: Any, path: Path) -> None: ...


class OnnxFormat(FileFormat):
    """ONNX, for ONNX Runtime and TensorRT."""

    name, suffix = "onnx", ".onnx"
    precisions = ("float32", "float16", "int8")
    packages = ("onnx", "onnxscript", "onnxruntime")

    def save(self, graph: Graph, path: Path) -> None:
        onnx_graphs.save_onnx(graph, path)

    def halve(self, source: Path, target: Path) -> None:
        optional_package("onnxruntime", "export")
        float16 = optional_package("onnxruntime.transformers.float16", "export")
        # ONNX Runtime 1.32 crashes where it loads a text tower on a processor whose norms are in halves, too.
        kept = [*float16.DEFAULT_OP_BLOCK_LIST, "LayerNormalization"]
        model = float16.convert_float_to_float16(self._read(source), keep_io_types=True, op_block_list=kept)
        self._write(model, target)

    def load(self, path: Path, precision: str) -> Network:
        return onnx_graphs.OnnxNetwork(path)

    def _input_names(self, path: Path) -> list[str]:
        return [item.name for item in self._read(path).graph.input]

    def _read(self, path: Path) -> Any:
        return optional_package("onnx", "export").load(str(path))

    def _write(self, model: Any, path: Path) -> None:
        optional_package("onnx", "export").save(model, str(path))


class OpenVINOFormat(FileFormat):
    """OpenVINO's intermediate representation: FILE.xml with FILE.bin beside it."""

    name, suffix = "openvino", ".xml"
    precisions = ("float32", "bfloat16", "float16", "int8")
    packages = key_packages = ("openvino",)

    def save(self, graph: Graph, path: Path) -> None:
        openvino_engine.save_graph(openvino_engine.to_openvino(graph), path)

    def halve(self, source: Path, target: Path) -> None:
        optional_package("openvino", "export").save_model(self._read(source), target, compress_to_fp16=True)

    def load(self, path: Path, precision: str) -> Network:
        core = optional_package("openvino", "export").Core()
        # Weights in float16 run on every processor, in float32 where it has nothing better.
        precision = "float32" if precision == "float16" else precision
        openvino_engine.require_capability(core, precision)
        return openvino_engine.compile_network(core, path, precision)

    def _input_names(self, path: Path) -> list[str]:
        return [port.any_name for port in self._read(path).inputs]

    def _read(self, path: Path) -> Any:
        return optional_package("openvino", "export").Core().read_model(path)

    def _write(self, model: Any, path: Path) -> None:
        openvino_engine.save_graph(model, path)


def _unsmoothed(nncf: Any) -> Any:
    """Returns NNCF's parameters for a quantisation that leaves outliers where they are; -1 is its sign for that."""
    quantisation = optional_package("nncf.quantization.advanced_parameters", "export")
    alphas = quantisation.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    return nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)


FORMATS: dict[str, FileFormat] = {item.name: item for item in (OnnxFormat(), OpenVINOFormat())}


def require_format(name: str, precision: str) -> FileFormat:
    """Returns the format ``name``. Raises ValueError if there is none, or not in this precision."""
    if name not in FORMATS:
        raise ValueError(f'unknown format "{name}": use {" or ".join(FORMATS)}')
    if precision not in FORMATS[name].precisions:
        raise ValueError(f"{name} is exported in {', '.join(FORMATS[name].precisions)}, not in {precision}")
    return FORMATS[name]
