"""The demonstration with the ``ros2`` command: a simulated camera above a table, the node ``referring``, and RViz.

    ros2 launch clip_seg_ros demo.launch.py seed:=3
    ros2 topic pub --once /clip_seg/command std_msgs/msg/String "{data: 'segment the red cup'}"

Every argument of ``seg.launch.py`` can be given here as well.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from clip_seg_ros.resources import config_dir, share_dir


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    segmentation = PythonLaunchDescriptionSource(str(share_dir() / "launch" / "seg.launch.py"))
    return LaunchDescription([
        DeclareLaunchArgument("seed", default_value="0", description="which scene the simulated camera sees"),
        DeclareLaunchArgument("rviz", default_value="true", choices=["true", "false"], description="show it in RViz"),
        IncludeLaunchDescription(segmentation, launch_arguments={"rviz": LaunchConfiguration("rviz")}.items()),
        OpaqueFunction(function=_camera),
    ])  # fmt: skip


def _camera(context: LaunchContext) -> list[Node]:
    text = LaunchConfiguration("seed").perform(context)
    try:
        seed = int(text)
    except ValueError:
        raise ValueError(f"seed must be a whole number, got {text!r}") from None
    return [
        Node(
            package="clip_seg_ros",
            executable="sim_camera",
            parameters=[str(config_dir() / "sim_camera.yaml"), {"seed": seed}],
            output="screen",
        )
    ]
