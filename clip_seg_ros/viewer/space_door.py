# SPDX-License-Identifier: Apache-2.0
"""What one must know to look at the scene in 3D where viser serves it."""

from __future__ import annotations

from typing import NamedTuple

KEY_HEADER = "Clip-Seg-Key"
VIEWER_HEADER = "Clip-Seg-Viewer"
"""Headers of the handshake with viser: the key, and the name of the viewer."""


class Door(NamedTuple):
    """Where viser listens on loopback, and what it asks for."""

    port: int
    key: str
    """Only the server of the viewer knows it."""
