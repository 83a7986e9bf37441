# SPDX-License-Identifier: Apache-2.0
"""Which addresses are of this machine alone."""

from __future__ import annotations

import ipaddress

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Returns whether an address or a name means this machine alone; any name but "localhost" may be another's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
