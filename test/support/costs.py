# SPDX-License-Identifier: Apache-2.0
"""What a model does on a device, found without one: its kernels, its operations, and where it waits for the host.

Models stand on the device "meta", which knows shapes and has no memory, so that those of public size take no time.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.zoo.build import MODEL_KINDS

META = torch.device("meta")
_ALLOCATIONS = ("aten::empty", "aten::new_empty", "aten::_unsafe_view", "aten::_reshape_alias")
_HOST_DATA = (
    torch.tensor,
    torch.as_tensor,
    torch.from_numpy,
    torch.Tensor.new_tensor,
    torch.Tensor.cpu,
    torch.Tensor.item,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
)
_WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2")


def on_meta(config: Mapping[str, Any]) -> PromptableSegmenter:
    """Builds the model of a configuration on the device "meta", ready for inference as ``Predictor`` makes it."""
    with META:
        model = MODEL_KINDS[config.get("kind", "clipseg")]("public", config).eval()
    fold_batch_norms(model)
    for module in model.modules():
        if type(module) is torch.nn.Conv2d:
            module.to(memory_format=torch.channels_last)
    return model


def pixels_on_meta(*shape: int) -> torch.Tensor:
    """Returns pixels in the memory format of the engines."""
    return torch.empty(shape, device=META).contiguous(memory_format=torch.channels_last)


def text_on_meta(width: int, prompts: int, tokens: tuple[int, int] | None = None) -> TextFeatures:
    """Returns the features of prompts; ``tokens`` are (L, C)."""
    pooled = torch.empty(prompts, width, device=META)
    if tokens is None:
        return TextFeatures(pooled)
    mask = torch.empty(prompts, tokens[0], dtype=torch.bool, device=META)
    return TextFeatures(pooled, torch.empty(prompts, *tokens, device=META), mask)


def launches(run: Callable[[], object]) -> Counter[str]:
    """Counts the kernels that ``run`` starts, by name; views start none, and an attention is one."""
    run()  # the first run makes what is kept
    with torch.no_grad(), _FusedAttention(), _Launches() as mode:
        run()
    return mode.kernels


def gflops(run: Callable[[], object]) -> float:
    """Returns the operations of matrix products and convolutions in ``run``, in thousand millions."""
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        run()
    return mode.get_total_flops() / 1e9


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Fails where a device would wait for the host: at copies, and where the host must know a value."""
    with torch.inference_mode(), _NoData(), _NoCopies():
        yield


class _NoCopies(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name().split(".")[0]
        assert name not in _WAITS, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        # A single number of the host is an argument of a kernel, unless it is copied.
        copies = name in ("aten::_to_copy", "aten::copy_")
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and (copies or tensor.ndim > 0):
                assert tensor.device == META, f"{name} uses a tensor {tuple(tensor.shape)} of the host"
        return result


class _NoData(TorchFunctionMode):
    """Notices what no dispatch shows: tensors that are made of the host's values, and values that it asks for."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in _HOST_DATA, f"{func.__name__} takes values from the host or to it"
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            for index in args[1] if isinstance(args[1], tuple) else (args[1],):
                mask = isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
                assert not mask, "a mask as an index waits for the device"
                assert not isinstance(index, list | np.ndarray), f"the index {index} comes from the host"
        return func(*args, **(kwargs or {}))


class _Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        views = any(part.alias_info is not None and not part.alias_info.is_write for part in func._schema.returns)
        if not views and not func.name().startswith(_ALLOCATIONS):
            self.kernels[func.name()] += 1
        return func(*args, **(kwargs or {}))


class _FusedAttention(TorchFunctionMode):
    """Attention as one kernel with the memory layout of the fused ones, which "meta" does not have."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, value = args[0], args[2]
        batch, heads, count, _ = query.shape
        return torch.zeros(batch, count, heads, value.shape[3], dtype=query.dtype, device=query.device).transpose(1, 2)
