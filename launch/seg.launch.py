"""Segments the images of cameras: the nodes ``referring`` and ``semantic``, with RViz if wanted.

    ros2 launch clip_seg_ros seg.launch.py image_topic:=/my_camera/image_raw rviz:=true
"""

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from clip_seg_ros.config import ReferringConfig, SemanticConfig, parameters
from clip_seg_ros.resources import config_dir, share_dir

FROM_FILE = "<params_file>"
"""Default of the arguments below: the parameter keeps the value that the parameter file gives it."""
SHARED = {
    "image_topic": "colour images to segment, sensor_msgs/Image",
    "image_topics": "those of several cameras instead, with commas between: /left/image_raw,/right/image_raw",
    "camera_names": "the cameras' names, with commas between, for their outputs; by default from the topics",
    "image_transport": "how images are sent: raw, or compressed on TOPIC/compressed",
    "command_topic": "text commands, std_msgs/String",
    "device": "where the models run: auto, cpu, cuda or cuda:N",
    "precision": "what they compute in: float32, bfloat16 or float16; the halves are for GPUs",
    "autostart": "configure and activate at once; false: a lifecycle manager does",
}
"""Parameters of both nodes."""
REFERRING = {
    "model": "name of the model that segments what commands name",
    "depth_topic": "depth images aligned with the colour images, sensor_msgs/Image; empty: no positions",
    "depth_topics": "those of several cameras, with commas between",
    "camera_info_topic": "the colour camera's sensor_msgs/CameraInfo; empty: no positions",
    "camera_info_topics": "those of several cameras, with commas between",
    "rectified": "true where the images are rectified already, as image_rect is",
    "threshold": "probability above which a pixel belongs to a phrase, 0..1; -1: the model's own",
    "target_frame": "frame of the positions, by tf2; empty: the camera's optical frame",
    "initial_command": 'command to start with, such as "segment the red cup"',
}
SEMANTIC = {
    "semantic_model": "name of the model that gives every pixel a class",
    "classes": "the classes, with commas between; empty: the model's own or those of class_list",
    "class_list": "a shipped list of classes, such as ade20k",
}
"""Parameters of one node; ``semantic_model`` is its ``model``."""
OVERRIDES = {**SHARED, **REFERRING, **SEMANTIC}
# What rviz/seg.rviz shows: names relative to the namespace of the node.
RVIZ_OUTPUTS = ("overlay", "mask", "markers", "points", "semantic/overlay")
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    return LaunchDescription([
        DeclareLaunchArgument("namespace", default_value="clip_seg", description="where the nodes' topics are"),
        DeclareLaunchArgument(
            "nodes", default_value="referring", choices=["referring", "semantic", "both"], description="which to start"
        ),
        DeclareLaunchArgument(
            "params_file", default_value=str(config_dir() / "referring.yaml"), description="parameters of referring"
        ),
        DeclareLaunchArgument(
            "semantic_params_file", default_value=str(config_dir() / "semantic.yaml"), description="those of semantic"
        ),
        *(
            DeclareLaunchArgument(name, default_value=FROM_FILE, description=description)
            for name, description in OVERRIDES.items()
        ),
        DeclareLaunchArgument("rviz", default_value="false", choices=["true", "false"], description="show it in RViz"),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="how much the nodes say",
        ),
        *_shared_memory(),
        OpaqueFunction(function=_nodes),
    ])  # fmt: skip


def _shared_memory() -> list[SetEnvironmentVariable]:
    """Room for whole images in Fast DDS's shared memory, unless the user has a profile already."""
    if any(os.environ.get(name) for name in FASTDDS_VARIABLES):
        return []
    # Its name changed between ROS 2 releases.
    return [SetEnvironmentVariable(name, str(config_dir() / "fastdds_shm.xml")) for name in FASTDDS_VARIABLES]


def _nodes(context: LaunchContext) -> list[Node | LogInfo]:
    names = ("namespace", "nodes", "params_file", "semantic_params_file", "log_level", *OVERRIDES)
    value = {name: LaunchConfiguration(name).perform(context) for name in names}
    started = []
    for node, file in (("referring", "params_file"), ("semantic", "semantic_params_file")):
        if value["nodes"] not in (node, "both"):
            continue
        if not Path(value[file]).is_file():
            raise FileNotFoundError(f"{file}: there is no file {value[file]}")
        started.append(
            Node(
                package="clip_seg_ros",
                executable=node,
                namespace=value["namespace"],
                parameters=[value[file], overriding_parameters(node, value)],
                ros_arguments=["--log-level", value["log_level"]],
                output="screen",
            )
        )
    if LaunchConfiguration("rviz").perform(context) == "true":
        started.append(_rviz(value))
    return started


def _rviz(value: dict[str, str]) -> Node | LogInfo:
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return LogInfo(msg="RViz is not installed (ros-$ROS_DISTRO-rviz2): the nodes run without it")
    topics = [(f"/clip_seg/{name}", f"/{value['namespace'].strip('/')}/{name}") for name in RVIZ_OUTPUTS]
    if value["image_topic"] != FROM_FILE:
        topics.append(("/camera/color/image_raw", value["image_topic"]))
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_dir() / "rviz" / "seg.rviz")],
        remappings=topics,
    )


def overriding_parameters(node: str, arguments: dict[str, str]) -> dict[str, str | float | bool | list[str]]:
    """Returns the parameters of a node that launch arguments change, in the node's types.

    Raises:
        ValueError: an argument does not fit its parameter.
    """
    own = REFERRING if node == "referring" else SEMANTIC
    config = ReferringConfig if node == "referring" else SemanticConfig
    types = {parameter.name: parameter.type for parameter in parameters(config)}
    changed = {}
    for argument in (*SHARED, *own):
        if arguments[argument] != FROM_FILE:
            name = "model" if argument == "semantic_model" else argument
            changed[name] = _read(argument, arguments[argument], types[name])
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
