# SPDX-License-Identifier: Apache-2.0
"""The lines of `clip-seg say` and `clip-seg watch`, and what they refuse; test_talker.py talks to nodes."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from clip_seg_ros.tools.talking import Changes, nobody, objects_lines, seconds, topic_name
from domains import own_domain_environment

# Nodes of other tests may be alive in this run's domain.
ENVIRONMENT = own_domain_environment()


def seen(*objects: dict, camera: str = "", prompts: tuple[str, ...] = ("cup",)) -> dict:
    return {"event": "objects", "camera": camera, "prompts": list(prompts), "frame": "lens", "objects": list(objects)}


def cup(x: float = 10.0, y: float = 20.0, position: list[float] | None = None, number: int = 1) -> dict:
    return {"prompt": "cup", "id": number, "score": 0.9, "centroid_px": [x, y], "position_m": position}


def test_objects_are_lines() -> None:
    assert objects_lines(seen(cup(position=[0.1, 0.0, 0.75]), camera="left")) == [
        "objects (left): cup #1, score 0.90, at pixel (10, 20), (0.100, 0.000, 0.750) m in lens"
    ]
    assert objects_lines(seen(cup())) == ["objects: cup #1, score 0.90, at pixel (10, 20)"]
    assert objects_lines(seen()) == ["objects: none of cup"]
    assert objects_lines(seen(prompts=())) == ["objects: none"]


def test_only_changes_are_told() -> None:
    changes = Changes()
    assert changes.is_new(seen(cup()))
    assert not changes.is_new(seen(cup(x=12.0)))
    assert changes.is_new(seen(cup(x=60.0)))
    assert not changes.is_new(seen(cup(x=60.0)))
    assert changes.is_new(seen(cup(x=60.0), camera="right"))
    assert changes.is_new(seen(cup(x=60.0, position=[0.0, 0.0, 1.0])))
    assert changes.is_new(seen(cup(x=60.0, position=[0.0, 0.0, 1.1])))
    assert changes.is_new(seen())
    assert not changes.is_new(seen())
    assert changes.is_new(seen(prompts=("ball",))), "asked for something else meanwhile"
    assert changes.is_new(seen()), "asked for something else meanwhile"


def test_who_is_elsewhere_is_named() -> None:
    event = {"topic": "/clip_seg/status", "others": ["/left/clip_seg/status"]}
    assert "--namespace left/clip_seg" in nobody(event, "7")
    assert "domain 7" in nobody(event, "7")
    alone = nobody({"topic": "/clip_seg/status", "others": []}, None)
    assert "ROS domain 0" in alone
    assert "clip_seg_ros.nodes.referring" in alone


@pytest.mark.parametrize("text", ["", "a b", "1a", "a//b", "a/", "\u00e4"])
def test_names_that_ros_has_not(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        topic_name(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


@pytest.mark.parametrize(("command", "code"), [(["say", "stop"], 3), (["watch", "--once"], 3)])
def test_where_no_node_runs_both_say_so_plainly(command: list[str], code: int) -> None:
    pytest.importorskip("rclpy")
    run = subprocess.run(
        [sys.executable, "-m", "clip_seg_ros.tools.cli", *command], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert run.returncode == code, run.stderr
    assert run.stderr.startswith(f"clip-seg {command[0]}: no node answers on /clip_seg/status")
    assert not run.stdout
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["say"], ["say", "--timeout", "0", "x"], ["watch", "--namespace", "a b"]])
def test_wrong_arguments(command: list[str], capsys: pytest.CaptureFixture) -> None:
    from clip_seg_ros.tools.cli import main

    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "usage: clip-seg" in capsys.readouterr().err
