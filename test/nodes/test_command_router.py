from __future__ import annotations

from pathlib import Path

import pytest

from clip_seg_ros.nodes.command_router import example_command


@pytest.mark.parametrize(
    ("namespace", "topic", "typed"),
    [
        ("/clip_seg", "/clip_seg/command", 'clip-seg say "segment the red cup"'),
        ("/left/clip_seg", "/left/clip_seg/command", 'clip-seg say --namespace /left/clip_seg "segment the red cup"'),
        ("/clip_seg", "/robot/heard", 'clip-seg say --topic /robot/heard "segment the red cup"'),
    ],
)
def test_the_example_is_a_command_that_the_machine_has(
    namespace: str, topic: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert example_command(namespace, topic) == typed
    (tmp_path / "ros2").touch(mode=0o755)
    expected = f"ros2 topic pub --once {topic} std_msgs/msg/String \"{{data: 'segment the red cup'}}\""
    assert example_command(namespace, topic) == expected
