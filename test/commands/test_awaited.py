# SPDX-License-Identifier: Apache-2.0
"""When the last status of a command has come."""

from __future__ import annotations

import pytest

from clip_seg_ros.commands.awaited import AwaitedStatuses


def status(state: str, prompts: tuple[str, ...] = ()) -> dict:
    return {"state": state, "prompts": list(prompts)}


@pytest.mark.parametrize(
    ("text", "answers", "verdict"),
    [
        ("segment the cup", [("accepted", ("cup",)), ("found", ("cup",))], "found"),
        ("segment the cup", [("accepted", ("cup",)), ("not found", ("cup",))], "not found"),
        ("segment the cup", [("rejected", ())], "rejected"),
        ("nonsense using", [("rejected", ())], "rejected"),
        ("stop", [("accepted", ())], "found"),
        ("use cris", [("accepted", ()), ("done", ())], "found"),
        ("use cris", [("accepted", ()), ("failed", ())], "failed"),
        ("segment the cup using cris", [("accepted", ("cup",)), ("found", ("cup",)), ("done", ())], "found"),
        ("segment the cup using cris", [("accepted", ("cup",)), ("done", ()), ("not found", ("cup",))], "not found"),
        ("what do you see?", [("accepted", ()), ("found", ("cup",))], "found"),
        ("what do you see?", [("accepted", ()), ("failed", ())], "failed"),
        ("classes: cup, table", [("accepted", ("cup", "table"))], "found"),
    ],
)
def test_the_last_answer_of_a_command_is_known(text: str, answers: list, verdict: str) -> None:
    awaited = AwaitedStatuses(text)
    assert [awaited.take(status(*each)) for each in answers] == [False] * (len(answers) - 1) + [True]
    assert awaited.verdict == verdict
