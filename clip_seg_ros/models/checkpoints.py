# SPDX-License-Identifier: Apache-2.0
"""Weight files: safetensors with their configuration inside and their SHA-256 beside them.

A file whose checksum does not match ``SHA256SUMS`` in its folder is refused, and a module loads either all keys or
none. Each refusal is a ``WeightsError`` with one sentence that says what is wrong and what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

FORMAT = "clip_seg_ros/1"
SUMS_NAME = "SHA256SUMS"
_REMEDY = (
    "restore it from the package or the repository, or make it again with `clip-seg train`, `clip-seg weights "
    "download` or `clip-seg weights convert`"
)


class WeightsError(Exception):
    """Weights that cannot be used; the message is written for the person at the terminal."""


def load_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a weight file after checking it against ``SHA256SUMS`` beside it.

    Returns:
        The tensors on the CPU, with all floating-point tensors as float32, and the configuration.

    Raises:
        WeightsError: The file is missing, not listed, damaged, or in another format.
    """
    if not path.is_file():
        raise WeightsError(f"the weight file {path} does not exist: {_REMEDY}")
    _verify(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"the weight file {path} cannot be read ({error}): {_REMEDY}") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise WeightsError(f'the weight file {path} has format "{found}", but "{FORMAT}" is needed: {_REMEDY}')
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"the weight file {path} holds no readable configuration: {_REMEDY}") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, config


def is_weight_file(path: Path) -> bool:
    """Returns whether this package wrote the file ``path``, by its metadata or by ``SHA256SUMS`` beside it.

    A damaged file counts, too.

    Raises:
        WeightsError: There is a ``SHA256SUMS`` that cannot be read.
    """
    if path.suffix != ".safetensors":
        return False
    sums_path = path.with_name(SUMS_NAME)
    if sums_path.is_file() and path.name in _read_sums(sums_path):
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_strict(module: nn.Module, tensors: Mapping[str, torch.Tensor], origin: str, assign: bool = False) -> None:
    """Loads ``tensors`` into ``module``, all keys or none.

    Args:
        module: The module that receives the weights.
        tensors: The complete ``state_dict`` of the module.
        origin: Where the tensors come from, for the error message.
        assign: Whether the module takes the tensors themselves instead of copies.

    Raises:
        WeightsError: Keys are missing, unexpected or of another shape; the message lists all of them.
    """
    wanted = module.state_dict()
    faults = [f"{key} is missing" for key in wanted if key not in tensors]
    faults += [f"{key} is unexpected" for key in tensors if key not in wanted]
    faults += [
        f"{key} is {tuple(tensors[key].shape)} and should be {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if faults:
        raise WeightsError(f"the weights of {origin} do not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(tensors, assign=assign)


def save_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], half: bool = True
) -> None:
    """Writes a weight file atomically: a reader sees the old file or the new one, never a part.

    Call ``update_sums`` on the folder when all its files are written, or ``update_sum`` on this file.

    Args:
        path: Path of the file; its folder is created if necessary.
        tensors: A ``state_dict``.
        config: The configuration, as plain values for JSON.
        half: Whether to store matrices and kernels as float16. Vectors and scalars keep their type; among them are the
            variances of batch norms, which float16 would round to 0.

    Raises:
        ValueError: A tensor holds NaN or infinity, or does so as float16.
    """
    stored = {}
    for key, value in tensors.items():
        value = value.detach().cpu()
        if half and value.is_floating_point() and value.ndim >= 2:
            value = value.half()
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{key} holds values that cannot be stored as {value.dtype}")
        stored[key] = value.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # save_file would make a file that only its owner may read.
        content = save(stored, metadata={"format": FORMAT, "config": json.dumps(config)})
        with partial.open("wb") as file:
            file.writelines(_in_order(content))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _in_order(content: bytes) -> tuple[bytes, memoryview]:
    """Sorts the metadata in the header of a safetensors file, whose order differs from run to run.

    The same weights then have the same checksum. Offsets count from the end of the header, so that its length may
    change.

    Returns:
        The new header, and the unchanged rest, which may be gigabytes and is not copied.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(content)[8 + length :]


def update_sums(folder: Path) -> None:
    """Writes ``SHA256SUMS`` for all weight files in ``folder``, in the format of ``sha256sum``."""
    _write_sums(folder, {path.name: sha256(path) for path in folder.glob("*.safetensors")})


def update_sum(path: Path) -> None:
    """Writes the line of one weight file into ``SHA256SUMS`` beside it; lines of other files stay as they are.

    Raises:
        WeightsError: There is a ``SHA256SUMS`` that cannot be read.
    """
    sums_path = path.with_name(SUMS_NAME)
    listed = _read_sums(sums_path) if sums_path.exists() else {}
    _write_sums(path.parent, listed | {path.name: sha256(path)})


def _write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    partial = folder / f".{SUMS_NAME}.{os.getpid()}"
    partial.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")
    os.replace(partial, folder / SUMS_NAME)


def _read_sums(sums_path: Path) -> dict[str, str]:
    try:
        lines = sums_path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{sums_path}, which proves the weights, cannot be read: {_REMEDY}") from error
    # A line is "<digest>  <name>", or "<digest> *<name>" if sha256sum read in binary mode.
    return {name.strip().lstrip("*"): digest for digest, _, name in (line.partition(" ") for line in lines)}


def _verify(path: Path) -> None:
    listed = _read_sums(path.with_name(SUMS_NAME))
    if path.name not in listed:
        raise WeightsError(f"the weight file {path} is not listed in {SUMS_NAME} beside it: {_REMEDY}")
    if sha256(path) != listed[path.name].lower():
        size = path.stat().st_size
        raise WeightsError(f"the weight file {path} ({size} bytes) was cut short or changed (SHA-256): {_REMEDY}")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
