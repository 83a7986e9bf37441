# SPDX-License-Identifier: Apache-2.0
"""The demonstration with the ``ros2`` command: a simulated camera above a table, the node ``referring``, RViz, and
a view in the browser.

    ros2 launch clip_seg_ros demo.launch.py seed:=3
    ros2 topic pub --once /clip_seg/command std_msgs/msg/String "{data: 'segment the red cup'}"

Every argument of ``seg.launch.py`` can be given here as well.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from clip_seg_ros.config import FOR_CLASSES, FOR_PHRASES, SimCameraConfig
from clip_seg_ros.dds import variables_for_images
from clip_seg_ros.resources import config_dir, share_dir
from clip_seg_ros.settings import parameters
from clip_seg_ros.sim.naming import pair_of


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    camera = {parameter.name: parameter for parameter in parameters(SimCameraConfig)}
    segmentation = PythonLaunchDescriptionSource(str(share_dir() / "launch" / "seg.launch.py"))
    return LaunchDescription(
        [
            GroupAction(
                scoped=True,
                actions=[
                    DeclareLaunchArgument(
                        "seed",
                        default_value="0",
                        description=f"{camera['seed'].description} ({camera['seed'].allowed})",
                    ),
                    DeclareLaunchArgument(
                        "required",
                        default_value="red cup",
                        description=f"{camera['required'].description} (with commas between)",
                    ),
                    # These were made for the simulated table, whatever else was downloaded.
                    DeclareLaunchArgument(
                        "model", default_value=FOR_PHRASES[-1], description="The model of referring."
                    ),
                    DeclareLaunchArgument(
                        "semantic_model", default_value=FOR_CLASSES[-1], description="The model of semantic."
                    ),
                    DeclareLaunchArgument(
                        "rviz", default_value="true", description="Whether RViz shows the results. (true or false)"
                    ),
                    DeclareLaunchArgument(
                        "web",
                        default_value="true",
                        description="Whether the view in the browser is served, for which the log has the address. "
                        "(true or false)",
                    ),
                    # What is wrong with the scene is told before anything runs.
                    OpaqueFunction(function=_check),
                    IncludeLaunchDescription(
                        segmentation,
                        launch_arguments={name: LaunchConfiguration(name) for name in ("rviz", "web")}.items(),
                    ),
                    OpaqueFunction(function=_camera),
                ],
            ),
        ]
    )


def _check(context: LaunchContext) -> None:
    _scene(context)


def _scene(context: LaunchContext) -> dict[str, int | list[str]]:
    """The parameters of the simulated camera that arguments change."""
    seed, required = (LaunchConfiguration(name).perform(context) for name in ("seed", "required"))
    if not (seed.isascii() and seed.isdecimal() and int(seed) < 2**31):
        raise ValueError(f"seed must be a whole number from 0 to 2147483647, got {seed!r}")
    names = [name.strip() for name in required.split(",") if name.strip()]
    for name in names:
        if pair_of(name) is None:
            raise ValueError(f"required: the simulated world has no {name!r}; name a colour and a kind, as in red cup")
    # ROS 2 knows no empty list.
    return {"seed": int(seed), "required": names or [""]}


def _camera(context: LaunchContext) -> list[Node]:
    return [
        Node(
            package="clip_seg_ros",
            executable="sim_camera",
            parameters=[str(config_dir() / "sim_camera.yaml"), _scene(context)],
            additional_env=variables_for_images(context.environment)[0],
            output="screen",
        )
    ]
