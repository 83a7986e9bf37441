"""Segments what a sentence names in the images of a camera: the node ``referring``, with RViz if wanted.

    ros2 launch clip_seg_ros seg.launch.py image_topic:=/my_camera/image_raw rviz:=true
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from clip_seg_ros.resources import config_dir, share_dir

FROM_FILE = "<params_file>"
"""Default of the arguments below: the parameter keeps the value that the parameter file gives it."""
OVERRIDES = {
    "image_topic": "colour images to segment, sensor_msgs/Image",
    "depth_topic": "depth images aligned with them, sensor_msgs/Image; empty: no positions",
    "camera_info_topic": "the colour camera's sensor_msgs/CameraInfo; empty: no positions",
    "command_topic": "text commands, std_msgs/String",
    "model": "name of the model that segments",
    "device": "where it runs: auto, cpu, cuda or cuda:N",
    "threshold": "probability above which a pixel belongs to a phrase, 0..1",
}
# What rviz/seg.rviz shows: names relative to the namespace of the node.
RVIZ_OUTPUTS = ("overlay", "mask", "markers")
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    return LaunchDescription([
        DeclareLaunchArgument("namespace", default_value="clip_seg", description="where the node's topics are"),
        DeclareLaunchArgument(
            "params_file", default_value=str(config_dir() / "referring.yaml"), description="parameters of the node"
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
            description="how much the node says",
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


def _nodes(context: LaunchContext) -> list[Node]:
    value = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("namespace", "params_file", "log_level", *OVERRIDES)
    }
    if not Path(value["params_file"]).is_file():
        raise FileNotFoundError(f"params_file: there is no file {value['params_file']}")
    referring = Node(
        package="clip_seg_ros",
        executable="referring",
        namespace=value["namespace"],
        parameters=[value["params_file"], overriding_parameters(value)],
        ros_arguments=["--log-level", value["log_level"]],
        output="screen",
    )
    topics = [(f"/clip_seg/{name}", f"/{value['namespace'].strip('/')}/{name}") for name in RVIZ_OUTPUTS]
    if value["image_topic"] != FROM_FILE:
        topics.append(("/camera/color/image_raw", value["image_topic"]))
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_dir() / "rviz" / "seg.rviz")],
        remappings=topics,
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [referring, rviz]


def overriding_parameters(arguments: dict[str, str]) -> dict[str, str | float]:
    """Returns the node parameters that launch arguments change, in the node's types.

    Raises:
        ValueError: ``threshold`` is no number.
    """
    changed: dict[str, str | float] = {
        name: arguments[name] for name in OVERRIDES if arguments[name] != FROM_FILE
    }
    if "threshold" in changed:
        try:
            changed["threshold"] = float(changed["threshold"])
        except ValueError:
            raise ValueError(f"threshold must be a number from 0 to 1, got {changed['threshold']!r}") from None
    return changed
