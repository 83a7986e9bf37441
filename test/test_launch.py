"""Launch files, and the files that they hand to the nodes and to RViz."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from clip_seg_ros.config import ReferringConfig, SemanticConfig, parameters
from clip_seg_ros.resources import config_dir, share_dir

CLONE = Path(__file__).parents[1]
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
HAS_LAUNCH = all(importlib.util.find_spec(name) for name in ("launch_ros", "osrf_pycommon"))
needs_launch = pytest.mark.skipif(
    not HAS_LAUNCH, reason="ROS 2's launch and launch_ros are not here; they come with a ROS 2 installation only"
)


def load(name: str) -> ModuleType:
    """Imports a launch file, as ``ros2 launch`` does."""
    spec = importlib.util.spec_from_file_location(name, CLONE / "launch" / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((CLONE / "launch").glob("*.py")), ids=lambda path: path.name)
def test_launch_files_compile(path: Path) -> None:
    code = compile(path.read_text(), str(path), "exec")

    assert "generate_launch_description" in code.co_names


@needs_launch
def test_every_argument_is_described_and_overrides_a_real_parameter() -> None:
    seg = load("seg")
    arguments = {argument.name: argument for argument in seg.generate_launch_description().get_launch_arguments()}

    own = {"namespace", "nodes", "params_file", "semantic_params_file", "rviz", "log_level"}
    assert own | set(seg.OVERRIDES) == set(arguments)
    assert all(argument.description for argument in arguments.values())
    assert set(seg.SHARED) | set(seg.REFERRING) <= {parameter.name for parameter in parameters(ReferringConfig)}
    ours = {"model" if name == "semantic_model" else name for name in (*seg.SHARED, *seg.SEMANTIC)}
    assert ours <= {parameter.name for parameter in parameters(SemanticConfig)}


@needs_launch
def test_arguments_override_the_file_only_where_they_are_given() -> None:
    seg = load("seg")
    untouched = dict.fromkeys(seg.OVERRIDES, seg.FROM_FILE)

    assert seg.overriding_parameters("referring", untouched) == {} == seg.overriding_parameters("semantic", untouched)
    given = {
        **untouched, "threshold": "1", "depth_topic": "", "autostart": "False", "image_topics": "/a/image, /b/image",
        "model": "cris-pocket", "semantic_model": "maskclip-pocket", "classes": "cup,table",
    }  # fmt: skip
    shared = {"autostart": False, "image_topics": ["/a/image", "/b/image"]}
    assert seg.overriding_parameters("referring", given) == {
        **shared, "threshold": 1.0, "depth_topic": "", "model": "cris-pocket",
    }  # fmt: skip
    assert seg.overriding_parameters("semantic", given) == {
        **shared, "model": "maskclip-pocket", "classes": ["cup", "table"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="threshold must be a number"):
        seg.overriding_parameters("referring", {**untouched, "threshold": "high"})
    with pytest.raises(ValueError, match="autostart must be true or false"):
        seg.overriding_parameters("semantic", {**untouched, "autostart": "no"})


@needs_launch
def test_the_users_fastdds_profile_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.actions import SetEnvironmentVariable

    def profiles_set() -> int:
        entities = load("seg").generate_launch_description().entities
        return sum(isinstance(entity, SetEnvironmentVariable) for entity in entities)

    for variable in FASTDDS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert profiles_set() == 2
    monkeypatch.setenv(FASTDDS_VARIABLES[1], "/some/profile.xml")
    assert profiles_set() == 0


@needs_launch
def test_without_rviz_the_nodes_start_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seg = load("seg")

    def missing(package: str) -> str:
        raise seg.PackageNotFoundError(package)

    monkeypatch.setattr(seg, "get_package_prefix", missing)

    assert "RViz is not installed" in seg._rviz({"namespace": "eyes"}).msg[0].text


@needs_launch
def test_the_demonstration_starts_camera_and_node(monkeypatch: pytest.MonkeyPatch) -> None:
    import launch
    from launch.event_handlers import OnProcessStart

    started = []
    # Ended as soon as all have started: what is tested here is the launch file.
    description = launch.LaunchDescription([
        launch.actions.RegisterEventHandler(OnProcessStart(on_start=lambda event, _: started.append(event.cmd))),
        launch.actions.IncludeLaunchDescription(
            launch.launch_description_sources.PythonLaunchDescriptionSource(str(CLONE / "launch" / "demo.launch.py")),
            launch_arguments={"rviz": "false", "seed": "4", "namespace": "eyes"}.items(),
        ),
        launch.actions.TimerAction(period=1.0, actions=[launch.actions.EmitEvent(event=launch.events.Shutdown())]),
    ])  # fmt: skip
    service = launch.LaunchService()
    service.include_launch_description(description)

    service.run()

    assert sorted(Path(command[0]).name for command in started) == ["referring", "sim_camera"]
    referring = next(command for command in started if command[0].endswith("referring"))
    assert "__ns:=/eyes" in referring


@pytest.mark.parametrize(("name", "config"), [("referring", ReferringConfig), ("semantic", SemanticConfig)])
def test_a_nodes_file_names_every_parameter_its_default_and_whether_it_is_live(name: str, config: type) -> None:
    text = (config_dir() / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)["/**"]["ros__parameters"]

    assert config.from_mapping(values) == config()
    assert list(values) == [parameter.name for parameter in parameters(config)]
    lines = {line.split(":")[0].strip(): line for line in text.splitlines() if ":" in line}
    assert all(("# live;" in lines[parameter.name]) == parameter.live for parameter in parameters(config))


def test_rviz_shows_the_topics_of_the_node_and_of_the_camera() -> None:
    displays = yaml.safe_load((share_dir() / "rviz" / "seg.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"]: display["Topic"] for display in displays if "Topic" in display}

    outputs = ("overlay", "mask", "markers", "points", "semantic/overlay")
    assert set(topics) == {*(f"/clip_seg/{name}" for name in outputs), ReferringConfig().image_topic}
    # Cameras publish best effort, which a reliable subscription never hears.
    assert topics[ReferringConfig().image_topic]["Reliability Policy"] == "Best Effort"


def test_shared_memory_holds_several_images() -> None:
    root = ElementTree.parse(config_dir() / "fastdds_shm.xml").getroot()
    segment = root.find(".//{*}segment_size")

    assert int(segment.text) >= 8 * 1920 * 1080 * 3
