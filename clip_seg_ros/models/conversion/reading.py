# SPDX-License-Identifier: Apache-2.0
"""Reads published weight files: safetensors, PyTorch's pickles and OpenAI's TorchScript archives."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clip_seg_ros.models.checkpoints import WeightsError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""The keys under which training programs store the weights beside their own records."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads every tensor of a weight file on the CPU, by name.

    Containers are unwrapped: ``{"state_dict": ...}``, the prefix "module." that data-parallel training adds to
    every key, and groups of tensors, whose names are joined with a slash ("proj/weight").
    Pickles are read only with ``weights_only=True``, so that a file can contain data but no program. Besides PyTorch's
    own types, NumPy's scalars are allowed, because training programs store their scores as such.

    A folder of the Hugging Face hub stands for all of its safetensors files, among which large weights are divided.

    Raises:
        WeightsError: There is no such file, or it cannot be read safely as a weight file.
    """
    if path.is_dir():
        parts = sorted(path.glob("*.safetensors"))
        if not parts:
            raise WeightsError(f"the folder {path} holds no .safetensors file")
        return {key: value for part in parts for key, value in read_tensors(part).items()}
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}")
    content = _read(path)
    if isinstance(content, torch.Tensor):
        return {"": content}
    while isinstance(content, Mapping):
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = _flatten(content) if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name: it is no model's weight file")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def published_config(path: Path) -> dict[str, Any] | None:
    """Returns the values of the ``config.json`` in the folder ``path`` or beside the file; ``None`` if there is none.

    Raises:
        WeightsError: It cannot be read.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read ({error}): download it again") from error
    return values if isinstance(values, dict) else None


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read as safetensors ({error}): download it again") from error
    try:
        if _is_torchscript(path):
            return torch.jit.load(path, map_location="cpu").state_dict()
        with _numpy_scalars_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged, and is not read, because such a pickle can run any "
            f"program ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} cannot be read ({error}): download it again") from error


def _numpy_scalars_allowed() -> AbstractContextManager:
    # PyTorch before 2.6 cannot be given the name that NumPy before 2 wrote, and refuses such a file.
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        return nullcontext()
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}
    return torch.serialization.safe_globals([np.dtype, *kinds, *((scalar, name) for name in names)])


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    tensors = {}
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            tensors[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            tensors.update(_flatten(value, f"{prefix}{key}/"))
    return tensors
