# SPDX-License-Identifier: Apache-2.0
"""Serves the page of the viewer, from a thread of its own."""

from __future__ import annotations

from clip_seg_ros.viewer.source import Source

PORT = 8088
"""The port where nobody names another one."""


class ViewServer:
    """Shows a source to any number of browsers.

    Args:
        source: What is shown; it is started and stopped with the server.
        host: Address to listen on; one that other machines reach needs a token.
        port: Its port; 0 for any that is free.
        token: What the address must hold; ``None``: none on loopback, and a random one elsewhere.
    """

    def __init__(self, source: Source, host: str = "127.0.0.1", port: int = PORT, token: str | None = None) -> None:
        self._source, self._host, self._port, self._token = source, host, port, token

    def start(self) -> str:
        """Starts source and server; returns the address to open in a browser, with its token.

        Raises:
            OSError: The address is not of this machine, or the port is taken.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Ends both."""
