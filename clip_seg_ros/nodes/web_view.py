# SPDX-License-Identifier: Apache-2.0
"""The ``web_view`` node: shows in the browser what a node ``referring`` finds, and takes commands there."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early

    early.begin()

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from clip_seg_ros.config import WebViewConfig
from clip_seg_ros.nodes.common.parameters import ConfigParameters
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.observers.asking import Asking
from clip_seg_ros.nodes.observers.ros_source import RosSource
from clip_seg_ros.pipeline.memory import EVERY_S, give_back
from clip_seg_ros.viewer.needed import missing_package

_NICENESS = 10
"""Whoever looks gets what the node that answers leaves of a busy processor."""


class WebViewNode(Asking):
    """Serves the view until it is finished.

    Raises:
        RuntimeError: A package for it is not installed, or the port is taken.
    """

    def __init__(self) -> None:
        super().__init__("clip_seg", "command", None, "web_view")
        config = ConfigParameters(self, WebViewConfig).config
        if missing := missing_package():
            raise RuntimeError(missing)
        # Not at the top: it need not be installed, and takes long to import.
        from clip_seg_ros.viewer.serving import ViewServer

        self._server = ViewServer(RosSource(self), config.host, config.port, config.token or None)
        try:
            address = self._server.start()
        except OSError as error:
            raise RuntimeError(_why_not(error, config)) from error
        self.get_logger().info(f"the view in the browser: {address}")
        # Pictures of many sizes come and go.
        self.create_timer(EVERY_S, give_back)

    def finish(self) -> None:
        """Ends the server, and with it what it shows; callbacks must still run."""
        self.end()
        self._server.stop()


def _why_not(error: OSError, config: WebViewConfig) -> str:
    """Returns why nothing can be served, and what to do."""
    where = f"port {config.port} of {config.host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken, perhaps by another web_view: set the parameter port, to 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"{where} is not for every user: set the parameter port to 1024 or more"
    why = error.strerror or str(error)
    return f"{where} cannot be listened on: {why}; set the parameter host to an address of this machine"


def _give_way() -> None:
    """Lets every other process have the processor first."""
    os.nice(_NICENESS)
    if os.getsid(0) == os.getpid():
        # Linux shares the processor out among sessions before it looks at processes, and this one leads its own.
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")


def main() -> int:
    """Runs the node as a process."""
    _give_way()
    return run_node("web_view", WebViewNode, finish=WebViewNode.finish, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
