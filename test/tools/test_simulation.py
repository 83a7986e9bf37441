# SPDX-License-Identifier: Apache-2.0
"""What the demo and the benchmark of the nodes share."""

import pytest

from clip_seg_ros import resources
from clip_seg_ros.commands.parser import CommandError
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment, things_named

VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
OURS = str(resources.config_dir() / "fastdds_shm.xml")


def test_things_are_those_of_the_world():
    assert things_named("find the red cup and the giraffe") == ["red cup"]
    assert things_named("find the cup left of the blue box") == ["cup", "blue box"]
    with pytest.raises(CommandError, match="names nothing to look for"):
        things_named("stop")


def test_a_python_without_ros_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoRos, match=r"the demo runs ROS 2 nodes, .* Source the built workspace"):
        check_ros("the demo")


@pytest.mark.parametrize("mine", [None, "/mine.xml"])
def test_the_profile_is_the_users_unless_it_is_chosen(monkeypatch, mine):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if mine:
        monkeypatch.setenv(VARIABLES[1], mine)
    assert [environment().get(name) for name in VARIABLES] == ([None, mine] if mine else [OURS, OURS])
    assert [environment(profile=True)[name] for name in VARIABLES] == [OURS, OURS]
    assert not set(VARIABLES) & set(environment(profile=False))


def test_what_runs_at_the_same_time_is_not_heard(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    assert 1 <= int(environment()["ROS_DOMAIN_ID"]) <= 100
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    assert environment()["ROS_DOMAIN_ID"] == "7"
