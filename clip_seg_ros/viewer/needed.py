# SPDX-License-Identifier: Apache-2.0
"""The packages that serve the view in the browser, which need not be installed."""

from __future__ import annotations

import importlib.util

_PACKAGES = ("starlette", "uvicorn", "websockets", "viser")
_HOW = (
    'the view in the browser needs `pip install "clip_seg_ros[web]"`, or in a clone `pip install ".[web]"`, or where '
    f"colcon has built the package `pip install {' '.join(_PACKAGES)}`"
)


def missing_package() -> str:
    """Returns what is not installed and what to type, as a sentence without a full stop; empty if all is there."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: {_HOW}" if missing else ""
