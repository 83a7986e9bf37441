# SPDX-License-Identifier: Apache-2.0
"""Segments the images of cameras: the nodes ``referring`` and ``semantic``, if wanted with RViz or in the browser.

    ros2 launch clip_seg_ros seg.launch.py image_topic:=/my_camera/image_raw rviz:=true

Included into another launch file it changes nothing there: neither its arguments nor its environment.
"""

import os
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, LogInfo, OpaqueFunction
from launch.logging import launch_config
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from clip_seg_ros.config import CameraTopics, ReferringConfig, SemanticConfig, WebViewConfig
from clip_seg_ros.dds import variables_for_images
from clip_seg_ros.parameter_file import parameters_of, sections
from clip_seg_ros.resources import config_dir
from clip_seg_ros.rviz_layout import Shown, layout
from clip_seg_ros.settings import OWN as OWN_VALUE
from clip_seg_ros.settings import parameters
from clip_seg_ros.tools.view import TOKEN_VARIABLE
from clip_seg_ros.viewer.needed import missing_package

FROM_FILE = "<params_file>"
"""Default of the arguments below: the parameter keeps the value that the parameter file gives it."""
SHARED = (
    "image_topic",
    "image_topics",
    "camera_names",
    "image_transport",
    "command_topic",
    "device",
    "engine",
    "precision",
    "download",
    "allow_model_paths",
    "autostart",
)
"""Parameters of both nodes."""
REFERRING = (
    "model",
    "depth_topic",
    "depth_topics",
    "camera_info_topic",
    "camera_info_topics",
    "rectified",
    "threshold",
    "target_frame",
    "remember",
    "memory_file",
    "initial_command",
    "refine_edges",
    "separate_touching",
)
SEMANTIC = ("semantic_model", "classes", "class_list")
"""Parameters of one node; ``semantic_model`` is its ``model``."""
OVERRIDES = (*SHARED, *REFERRING, *SEMANTIC)
"""Arguments that are parameters of the nodes, which ``clip_seg_ros/config.py`` describes."""
_WEB = {parameter.name: parameter for parameter in parameters(WebViewConfig)}
OWN = {
    "namespace": ("clip_seg", "The namespace of the nodes, below the one that a launch file has pushed."),
    "nodes": ("referring", "The nodes to start: referring, semantic or both."),
    "params_file": (
        str(config_dir() / "referring.yaml"),
        "The parameter file of referring, whose values hold where no argument is given.",
    ),
    "semantic_params_file": (str(config_dir() / "semantic.yaml"), "The parameter file of semantic, likewise."),
    "use_sim_time": (
        FROM_FILE,
        "Whether the nodes and RViz take the time from /clock, of a recording or a simulation. (true or false)",
    ),
    "rviz": ("false", "Whether RViz shows the results. (true or false)"),
    "rviz_fixed_frame": (
        "",
        "The frame of RViz's 3D view. If it is empty, it is target_frame, or else the frame in rviz/seg.rviz.",
    ),
    "web": ("false", "Whether the view in the browser is served, for which the log has the address. (true or false)"),
    "web_host": (_WEB["host"].default, _WEB["host"].description),
    "web_port": (str(_WEB["port"].default), f"{_WEB['port'].description} ({_WEB['port'].allowed})"),
    "web_token": (
        _WEB["token"].default,
        f"{_WEB['token'].description} {TOKEN_VARIABLE} of the environment does so, too, in no list of processes.",
    ),
    "log_level": ("info", "The least severity that the nodes log: debug, info, warn, error or fatal."),
}
"""Arguments that are no parameters of a node: name -> default, description."""
CHOICES = {
    "nodes": ("referring", "semantic", "both"),
    "log_level": ("debug", "info", "warn", "error", "fatal"),
}
CONFIGS: dict[str, type[ReferringConfig] | type[SemanticConfig]] = {
    "referring": ReferringConfig,
    "semantic": SemanticConfig,
}
WRITTEN: dict[type, str] = {bool: "true or false", tuple: "with commas between"}
"""How an argument of a type is written, where its range does not say it."""
FILES = {"referring": "params_file", "semantic": "semantic_params_file"}
DEFAULTS = {"download": True}
"""Parameters whose defaults are others than a node's, unless the user's own file names them."""


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    own = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in OWN.items()
    ]
    overrides = [
        DeclareLaunchArgument(name, default_value=FROM_FILE, description=described(name)) for name in OVERRIDES
    ]
    # The group keeps the defaults from the launch file that includes this one: other packages have arguments of the
    # same names.
    return LaunchDescription([GroupAction([*own, *overrides, OpaqueFunction(function=start)], scoped=True)])


def described(argument: str) -> str:
    """Returns the description of the parameter that an argument sets, and how the argument is written."""
    node = "semantic" if argument in SEMANTIC else "referring"
    (parameter,) = (each for each in parameters(CONFIGS[node]) if each.name == parameter_of(argument))
    written = WRITTEN.get(parameter.type, parameter.allowed)
    notes = [*([] if argument in SHARED else [f"for {node}"]), *filter(None, [written])]
    return " ".join([parameter.description, *([f"({'; '.join(notes)})"] if notes else [])])


def parameter_of(argument: str) -> str:
    """Returns the name of the parameter that an argument sets."""
    return "model" if argument == "semantic_model" else argument


def start(context: LaunchContext) -> list[Node | LogInfo]:
    """Returns the nodes that the arguments ask for.

    Raises:
        ValueError: an argument is wrong.
        FileNotFoundError: a file of parameters is missing.
    """
    value = {name: LaunchConfiguration(name).perform(context).strip() for name in (*OWN, *OVERRIDES)}
    value["log_level"] = value["log_level"].lower()
    for name, choices in CHOICES.items():
        if value[name] not in choices:
            raise ValueError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value[name]!r}")
    shows, serves = (_read(name, value[name], bool) for name in ("rviz", "web"))
    pushed = context.launch_configurations.get("ros_namespace", None)
    # "/" and "" both mean no namespace.
    namespace = make_namespace_absolute(prefix_namespace(pushed, value["namespace"]) or "/")
    environment, warning = variables_for_images(context.environment)
    started: list[Node | LogInfo] = [LogInfo(msg=f"[WARNING] {warning}")] if warning else []
    told = {}
    for node in CONFIGS:
        if value["nodes"] in (node, "both"):
            told[node], notes = parameters_told(node, value, namespace)
            started += [LogInfo(msg=f"[WARNING] {note}") for note in notes]
            started.append(_node(node, value, environment))
    if serves:
        started.append(_web(value, environment))
    return [*started, _rviz(value, namespace, told, environment)] if shows else started


def _node(name: str, value: dict[str, str], environment: dict[str, str]) -> Node:
    return Node(
        package="clip_seg_ros",
        executable=name,
        namespace=value["namespace"],
        parameters=[*_defaults(name, value), *filter(None, [{**overriding_parameters(name, value), **_time(value)}])],
        ros_arguments=["--log-level", value["log_level"]],
        additional_env=environment,
        # A loaded robot needs longer than the five seconds of launch to end what is under way.
        sigterm_timeout=LaunchConfiguration("sigterm_timeout", default="15"),
        output="screen",
    )


def _web(value: dict[str, str], environment: dict[str, str]) -> Node | LogInfo:
    """The view in the browser, which finds cameras and topics by itself.

    Raises:
        ValueError: an argument is wrong.
    """
    port = value["web_port"]
    if not (port.isascii() and port.isdecimal() and int(port) <= _WEB["port"].high):
        raise ValueError(f"web_port must be a whole number from {_WEB['port'].allowed}, got {port!r}")
    try:
        WebViewConfig(token=_text_of_token(value))
    except ValueError as error:
        raise ValueError(f"web_{error}" if value["web_token"] else f"{TOKEN_VARIABLE}: {error}") from None
    if missing := missing_package():
        return LogInfo(msg=f"[WARNING] {missing}; the nodes run without it")
    return Node(
        package="clip_seg_ros",
        executable="web_view",
        namespace=value["namespace"],
        parameters=[{"host": value["web_host"], "port": int(port), **_token(value), **_time(value)}],
        ros_arguments=["--log-level", value["log_level"]],
        additional_env=environment,
        output="screen",
    )


def _token(value: dict[str, str]) -> dict[str, ParameterValue]:
    # Said to be text, because launch takes digits for a number.
    return {"token": ParameterValue(token, value_type=str)} if (token := _text_of_token(value)) else {}


def _text_of_token(value: dict[str, str]) -> str:
    return value["web_token"] or os.environ.get(TOKEN_VARIABLE, "")


def _defaults(node: str, value: dict[str, str]) -> list[str | dict[str, bool]]:
    """Returns the file and ``DEFAULTS``, of which the later one counts: the user's own file, or the defaults."""
    file = value[FILES[node]]
    return [file, DEFAULTS] if file == OWN[FILES[node]][0] else [DEFAULTS, file]


def _time(value: dict[str, str]) -> dict[str, Any]:
    text = value["use_sim_time"]
    return {} if text == FROM_FILE else {"use_sim_time": _read("use_sim_time", text, bool)}


def parameters_told(node: str, value: dict[str, str], namespace: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the parameters that a node will be told by its file and by the arguments, and what is odd about them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no file of parameters, or an argument does not fit its parameter.
    """
    argument, file = FILES[node], Path(value[FILES[node]]).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {value[argument]}")
    name = f"{namespace.rstrip('/')}/{node}"
    of_file = parameters_of(sections(file), name)
    notes = []
    if of_file is None:
        notes.append(
            f"{argument}: {file} says nothing to {name}, which starts with its defaults. Is it the file of another "
            "package, whose launch file has an argument of this name?"
        )
    return {**(of_file or {}), **overriding_parameters(node, value)}, notes


def _rviz(
    value: dict[str, str], namespace: str, told: dict[str, dict[str, Any]], environment: dict[str, str]
) -> Node | LogInfo:
    """RViz with the displays of these cameras; ``told`` are the parameters of the nodes that start."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return LogInfo(
            msg="[WARNING] RViz is not installed (sudo apt install ros-$ROS_DISTRO-rviz2): the nodes run without it"
        )
    file = Path(launch_config.log_dir) / f"clip_seg{namespace.rstrip('/').replace('/', '_')}.rviz"
    file.write_text(yaml.safe_dump(layout(shown(value, namespace, told)), sort_keys=False), encoding="utf-8")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(file)],
        parameters=[*filter(None, [_time(value)])],
        additional_env=environment,
    )


def shown(value: dict[str, str], namespace: str, told: dict[str, dict[str, Any]]) -> Shown:
    """Returns what RViz is to show; the first of the nodes says which cameras there are.

    Raises:
        ValueError: the lists of topics and names do not fit each other.
    """
    node, parameters_of_node = next(iter(told.items()))
    known = {parameter.name for parameter in parameters(CONFIGS[node])}
    config = CONFIGS[node].from_mapping({name: told for name, told in parameters_of_node.items() if name in known})

    def absolute(topic: str) -> str:
        if topic.startswith("~"):
            topic = node + topic[1:]
        return topic if topic.startswith("/") or not topic else f"{namespace.rstrip('/')}/{topic}"

    return Shown(
        cameras=[
            CameraTopics(camera.name, *map(absolute, (camera.image, camera.depth, camera.camera_info)))
            for camera in config.cameras()
        ],
        namespace=namespace,
        referring="referring" in told,
        semantic="semantic" in told,
        compressed=config.image_transport == "compressed",
        fixed_frame=value["rviz_fixed_frame"] or getattr(config, "target_frame", ""),
    )


def overriding_parameters(node: str, arguments: dict[str, str]) -> dict[str, str | float | bool | list[str]]:
    """Returns the parameters of a node that launch arguments change, in the node's types.

    Raises:
        ValueError: an argument does not fit its parameter.
    """
    own = REFERRING if node == "referring" else SEMANTIC
    known = {parameter.name: parameter for parameter in parameters(CONFIGS[node])}
    changed = {}
    for argument in (*SHARED, *own):
        if arguments[argument] != FROM_FILE:
            parameter = known[parameter_of(argument)]
            text = arguments[argument]
            # A number of ROS cannot be a word.
            is_own = parameter.low == OWN_VALUE and text.lower() == "auto"
            changed[parameter.name] = OWN_VALUE if is_own else _read(argument, text, parameter.type)
    return changed


def _read(argument: str, text: str, kind: type) -> str | float | bool | list[str]:
    if kind is tuple:
        return [part.strip() for part in text.split(",")]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{argument} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{argument} must be a number, got {text!r}") from None
