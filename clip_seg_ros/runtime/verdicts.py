# SPDX-License-Identifier: Apache-2.0
"""What was measured of the engines of a model on this machine, kept in the user's cache.

An engine is measured once for the same weights, versions and processor, because it takes seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.runtime.agreement import Agreement

_LOG = logging.getLogger(__name__)
FORMAT = 3
"""To be raised when the gate measures something else; what was measured before then counts no more."""
KEPT = 100
"""The number of files that are kept, one for each model, machine and set of versions."""
_VERSIONS = ("torch", "openvino", "onnxruntime")
_PROCESSOR = ("model name", "vendor_id", "cpu family", "model", "flags", "features", "cpu part", "cpu implementer")


@dataclass(frozen=True)
class Verdict:
    """How an engine compares with the eager engine in float32."""

    agreement: Agreement
    speedup: float
    """The time of the eager engine in float32 divided by that of this engine, for the same image and prompts."""


class Verdicts:
    """The verdicts on the engines of one model on one device of this machine.

    Args:
        fingerprint: Identifies the weights.
        device: The device of the model.
        folder: The folder of the files; by default in the user's cache.
    """

    def __init__(self, fingerprint: str, device: torch.device, folder: Path | None = None) -> None:
        key = hashlib.sha256(json.dumps([FORMAT, fingerprint, _machine(device)]).encode()).hexdigest()[:24]
        self._path = (folder or verdicts_dir()) / f"{key}.json"
        self._known = _read(self._path)

    def find(self, engine: str) -> Verdict | None:
        """Returns what was measured of an engine with its precision; ``None`` if nothing was."""
        return self._known.get(engine)

    def keep(self, engine: str, verdict: Verdict) -> None:
        """Stores what was measured of an engine. If that fails, it will be measured again."""
        self._known[engine] = verdict
        content = json.dumps({name: asdict(each) for name, each in self._known.items()}, indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, suffix=".part", delete=False) as file:
                file.write(content + "\n")
            os.replace(file.name, self._path)
            _drop_oldest(self._path.parent)
        except OSError as error:
            _LOG.info("what was measured of engines cannot be kept: %s", error)


def verdicts_dir() -> Path:
    """Returns the folder of all verdicts, which may not exist yet."""
    return resources.user_cache_dir() / "verdicts"


def _read(path: Path) -> dict[str, Verdict]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: _verdict(values) for name, values in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _LOG.info("%s is damaged (%s): engines are measured again", path, error)
        return {}


def _verdict(values: Any) -> Verdict:
    agreement = Agreement(**{name: float(value) for name, value in values["agreement"].items()})
    return Verdict(agreement, float(values["speedup"]))


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-KEPT]:
        with suppress(OSError):  # removed meanwhile
            path.unlink()


def _machine(device: torch.device) -> dict[str, Any]:
    """Returns what the speed and the rounding of an engine depend on."""
    found: dict[str, Any] = {name: _version(name) for name in _VERSIONS}
    if device.type == "cuda":
        return {**found, "device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {**found, "device": _processor(), "threads": torch.get_num_threads()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> list[str]:
    """Returns what Linux says of the first processor core without what changes, such as its present frequency."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return [platform.machine(), platform.processor()]
    lines = [line for line in first.splitlines() if line.partition(":")[0].strip().lower() in _PROCESSOR]
    return [platform.machine(), *lines]
