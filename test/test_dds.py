# SPDX-License-Identifier: Apache-2.0
"""How images travel between processes: the package's profile of Fast DDS, the user's own choice, and room for it."""

from __future__ import annotations

import pytest

from clip_seg_ros import dds
from clip_seg_ros.resources import config_dir

OURS = dict.fromkeys(dds.PROFILE_VARIABLES, str(config_dir() / "fastdds_shm.xml"))
ROOM = 2**30


@pytest.mark.parametrize(
    "environment",
    [
        {dds.PROFILE_VARIABLES[0]: "/mine.xml"},
        {dds.PROFILE_VARIABLES[1]: "/mine.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"},
    ],
)
def test_the_users_choice_is_left_alone_and_needs_no_warning(environment, monkeypatch):
    monkeypatch.setattr(dds, "free_bytes", lambda: 0)
    assert dds.variables_for_images(environment) == ({}, "")


@pytest.mark.parametrize(
    "environment", [{}, {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp", "FASTDDS_BUILTIN_TRANSPORTS": ""}]
)
def test_without_a_choice_images_get_the_profile(environment, monkeypatch):
    monkeypatch.setattr(dds, "free_bytes", lambda: ROOM)
    assert dds.variables_for_images(environment) == (OURS, "")
    # A system that keeps its shared memory elsewhere.
    monkeypatch.setattr(dds, "free_bytes", lambda: None)
    assert dds.variables_for_images(environment) == (OURS, "")


def test_a_container_without_room_is_told_what_to_do(monkeypatch):
    """With Docker's 64 MiB, the segments of a node and of a camera do not fit."""
    monkeypatch.setattr(dds, "free_bytes", lambda: 64 * 2**20)
    variables, warning = dds.variables_for_images({})
    assert variables == {}
    assert "64 MiB left" in warning
    assert "256 MiB in all" in warning
    assert "--ipc=host" in warning
    assert "--shm-size=1g" in warning


@pytest.mark.parametrize("variable", dds.PROFILE_VARIABLES)
def test_with_the_packages_profile_the_memory_of_read_messages_is_freed(variable):
    environment = {variable: OURS[variable]}
    dds.free_read_messages(environment)
    assert environment.pop("RMW_FASTRTPS_USE_QOS_FROM_XML") == "1"
    assert environment == {variable: OURS[variable]}


def test_with_another_profile_or_none_nothing_changes(tmp_path):
    (tmp_path / "mine.xml").write_text("<profiles/>")
    name = dds.PROFILE_VARIABLES[0]
    chosen = {**OURS, "RMW_FASTRTPS_USE_QOS_FROM_XML": "0"}
    for environment in ({}, {name: str(tmp_path / "mine.xml")}, {name: str(tmp_path / "missing.xml")}, chosen):
        before = dict(environment)
        dds.free_read_messages(environment)
        assert environment == before


def test_room_is_measured(tmp_path):
    assert dds.free_bytes(str(tmp_path)) > 0
    assert dds.free_bytes(str(tmp_path / "none")) is None
