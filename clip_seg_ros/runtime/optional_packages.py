# SPDX-License-Identifier: Apache-2.0
"""Imports the packages of other runtimes, which need not be installed, without what they would tell their makers.

ONNX Runtime since 1.29, OpenVINO and NNCF report their use over the network by default, OpenVINO even that it was
imported. Nothing that this package starts may do so, which is why they are imported here alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from clip_seg_ros.runtime.engine import EngineUnavailable

# What must be set before ONNX Runtime is first imported: its name since 1.29, and that of the builds before.
_SILENT_VARIABLES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
_REPORTER = "openvino_telemetry"
"""The package through which OpenVINO and NNCF report; both do without if it cannot be imported."""

ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""An environment variable that limits the instructions of oneDNN, which PyTorch uses, too. OpenVINO heeds it only in
part: it failed, or answered with empty tensors."""
_WITH_ONEDNN = ("openvino", "nncf")


def has_package(name: str) -> bool:
    """Returns whether a package is installed, without importing it."""
    return importlib.util.find_spec(name) is not None


def optional_package(name: str, extra: str) -> ModuleType:
    """Imports a package that may be missing.

    Args:
        name: Name of the module, such as "openvino".
        extra: The extra of this package that installs it.

    Raises:
        EngineUnavailable: It is not installed, cannot be imported, or would not work in this environment.
    """
    if name in _WITH_ONEDNN and (limit := os.environ.get(ONEDNN_LIMIT)):
        raise EngineUnavailable(
            f"{ONEDNN_LIMIT}={limit} is set, with which OpenVINO chooses kernels that its oneDNN then refuses: unset it"
        )
    os.environ.update(dict.fromkeys(_SILENT_VARIABLES, "1"))
    # This is Python's own sign for a module that is not to be imported.
    sys.modules.setdefault(_REPORTER, None)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise EngineUnavailable(
            f"{name} cannot be imported ({error}): type `pip install clip_seg_ros[{extra}]`, or in a clone "
            f"`pip install .[{extra}]`"
        ) from error
    if name == "onnxruntime":
        # In case another part of the program imported it before.
        module.disable_telemetry_events()
    return module
