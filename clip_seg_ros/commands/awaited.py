# SPDX-License-Identifier: Apache-2.0
"""Which statuses a command will get, and so when its last one has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_seg_ros.commands.parser import CommandError, parse_command


class AwaitedStatuses:
    """The statuses that a command has yet to get.

    Args:
        text: The command; the node reports what is wrong with it, if anything is.
    """

    def __init__(self, text: str) -> None:
        try:
            command = parse_command(text)
        except CommandError:
            command = None
        self._is_search = command is None or command.verb != "classes"
        self.missing = {"done"} if command is not None and command.model is not None else set()
        """What has not come yet: "found", which "not found" stands for, too, and "done"."""
        if command is not None and command.verb in ("describe", "recall"):
            self.missing.add("found")
        if command is not None and command.verb == "forget":
            self.missing.add("done")
        self.verdict = "found"
        """The worst status so far: "rejected", "failed", "not found" or, while there is none of them, "found"."""

    def take(self, status: Mapping[str, Any]) -> bool:
        """Notes a status and returns whether it was the last one.

        Args:
            status: ``{"state": its name in lower case, "prompts": the phrases understood}``.
        """
        state = status["state"]
        if state == "rejected":
            self.verdict, self.missing = state, set()
        elif state == "accepted":
            self.missing |= {"found"} if status["prompts"] and self._is_search else set()
        else:
            self.missing.discard("found" if state in ("found", "not found") else "done")
            if state == "failed" or (state == "not found" and self.verdict == "found"):
                self.verdict = state
            if state == "failed":
                self.missing.discard("found")
        return not self.missing
