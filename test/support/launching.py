# SPDX-License-Identifier: Apache-2.0
"""Runs launch files until their programs have started."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

CLONE = Path(__file__).parents[2]
HAS_LAUNCH = all(importlib.util.find_spec(name) for name in ("launch_ros", "osrf_pycommon"))
needs_launch = pytest.mark.skipif(
    not HAS_LAUNCH, reason="ROS 2's launch and launch_ros are not here; they come with a ROS 2 installation only"
)
PATIENCE_S = 120.0


@dataclass
class Run:
    """What a launch started, and what it left in the launch file that included it."""

    commands: dict[str, list[str]] = field(default_factory=dict)
    """Name of the program -> its command line."""
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of the program -> the environment that it was given."""
    configurations: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 0


def load(name: str) -> ModuleType:
    """Imports a launch file, as ``ros2 launch`` does."""
    spec = importlib.util.spec_from_file_location(name, CLONE / "launch" / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def include(arguments: dict[str, str], name: str = "seg") -> Any:
    """The action that includes a launch file."""
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(CLONE / "launch" / f"{name}.launch.py"))
    return IncludeLaunchDescription(source, launch_arguments=arguments.items())


def run(*actions: Any, programs: int = 1) -> Run:
    """Runs the actions as a launch file until so many programs have started: what is tested is the launch file."""
    import launch
    from launch.event_handlers import OnProcessStart

    result = Run()
    shutdown = launch.actions.EmitEvent(event=launch.events.Shutdown())

    def note(event: Any, context: Any) -> Any:
        name = Path(event.cmd[0]).name
        result.commands[name] = event.cmd
        result.environments[name] = dict(os.environ if event.env is None else event.env)
        return shutdown if len(result.commands) == programs else None

    def note_what_is_left(context: Any) -> None:
        result.configurations.update(context.launch_configurations)
        result.environment.update(context.environment)

    service = launch.LaunchService()
    service.include_launch_description(
        launch.LaunchDescription(
            [
                launch.actions.RegisterEventHandler(OnProcessStart(on_start=note)),
                *actions,
                launch.actions.OpaqueFunction(function=note_what_is_left),
                launch.actions.TimerAction(period=PATIENCE_S, actions=[shutdown]),
            ]
        )
    )
    result.code = service.run()
    return result


class ParameterLoader(yaml.SafeLoader):
    """Reads the lists that launch_ros writes as Python's tuples, as rcl does."""


ParameterLoader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))


def told(command: list[str]) -> dict[str, Any]:
    """The parameters of a command line's files, those of later files over those of earlier ones."""
    files = [command[index + 1] for index, word in enumerate(command) if word == "--params-file"]
    sections = [section for file in files for section in yaml.load(Path(file).read_text(), ParameterLoader).values()]
    return {name: value for section in sections for name, value in section["ros__parameters"].items()}
