# SPDX-License-Identifier: Apache-2.0
"""Launch files, and the files that they hand to the nodes and to RViz."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from clip_seg_ros import dds
from clip_seg_ros.config import FOR_CLASSES, FOR_PHRASES
from clip_seg_ros.resources import config_dir
from clip_seg_ros.settings import parameters
from launching import CLONE, include, load, needs_launch, run, told

SENTENCE = re.compile(r"[A-Z-].+\.( \(.+\))?", re.DOTALL)
"""What --show-args says of an argument: sentences, and how it is written."""


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transports of the user's choice, and room for images in shared memory."""
    for variable in (*dds.CHOICES, "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(dds, "free_bytes", lambda: 2**30)


@pytest.mark.parametrize("path", sorted((CLONE / "launch").glob("*.py")), ids=lambda path: path.name)
def test_launch_files_compile(path: Path) -> None:
    code = compile(path.read_text(), str(path), "exec")

    assert "generate_launch_description" in code.co_names


@needs_launch
@pytest.mark.parametrize("name", ["seg", "demo"])
def test_every_argument_is_described(name: str) -> None:
    declared = load(name).generate_launch_description().get_launch_arguments()
    arguments = {argument.name: argument for argument in declared}

    seg = load("seg")
    assert set(seg.OWN) | set(seg.OVERRIDES) | ({"seed", "required"} if name == "demo" else set()) == set(arguments)
    assert [name for name, argument in arguments.items() if not SENTENCE.fullmatch(argument.description)] == []


@needs_launch
def test_every_argument_of_a_node_is_a_parameter_and_described_as_such() -> None:
    seg = load("seg")
    arguments = {"referring": (*seg.SHARED, *seg.REFERRING), "semantic": (*seg.SHARED, *seg.SEMANTIC)}

    for node, names in arguments.items():
        descriptions = {parameter.name: parameter.description for parameter in parameters(seg.CONFIGS[node])}
        for name in names:
            assert seg.described(name).startswith(descriptions[seg.parameter_of(name)]), name
    assert seg.described("threshold").endswith(" (for referring; -1, or 0 to 1)")
    assert seg.described("autostart").endswith(" (true or false)")
    assert seg.described("classes").endswith(" (for semantic; with commas between)")


@needs_launch
def test_arguments_override_the_file_only_where_they_are_given() -> None:
    seg = load("seg")
    untouched = dict.fromkeys(seg.OVERRIDES, seg.FROM_FILE)

    assert seg.overriding_parameters("referring", untouched) == {} == seg.overriding_parameters("semantic", untouched)
    given = {
        **untouched,
        "threshold": "1",
        "depth_topic": "",
        "autostart": "False",
        "image_topics": "/a/image, /b/image",
        "model": "cris-pocket",
        "semantic_model": "maskclip-pocket",
        "classes": "cup,table",
        "allow_model_paths": "true",
    }
    shared = {"autostart": False, "allow_model_paths": True, "image_topics": ["/a/image", "/b/image"]}
    assert seg.overriding_parameters("referring", given) == {
        **shared,
        "threshold": 1.0,
        "depth_topic": "",
        "model": "cris-pocket",
    }
    assert seg.overriding_parameters("semantic", given) == {
        **shared,
        "model": "maskclip-pocket",
        "classes": ["cup", "table"],
    }
    assert seg.overriding_parameters("referring", {**untouched, "threshold": "auto"}) == {"threshold": -1.0}
    with pytest.raises(ValueError, match="threshold must be a number"):
        seg.overriding_parameters("referring", {**untouched, "threshold": "high"})
    with pytest.raises(ValueError, match="autostart must be true or false"):
        seg.overriding_parameters("semantic", {**untouched, "autostart": "no"})


@needs_launch
def test_a_launch_file_that_includes_it_is_not_changed(plain_environment: None) -> None:
    left = run(include({"nodes": "both", "threshold": "0.25"}), programs=2)

    assert sorted(left.commands) == ["referring", "semantic"]
    assert told(left.commands["referring"])["threshold"] == 0.25
    # Only what was said in the include itself, and no default of an argument.
    assert left.configurations == {"nodes": "both", "threshold": "0.25"}
    assert not set(dds.CHOICES) & set(left.environment)
    for environment in left.environments.values():
        assert {environment[name] for name in dds.PROFILE_VARIABLES} == {str(config_dir() / "fastdds_shm.xml")}


@needs_launch
@pytest.mark.parametrize("choice", [*dds.CHOICES, "RMW_IMPLEMENTATION"])
def test_the_users_transports_are_respected(choice: str, plain_environment: None) -> None:
    from launch.actions import GroupAction, SetEnvironmentVariable

    value = "rmw_cyclonedds_cpp" if choice == "RMW_IMPLEMENTATION" else "LARGE_DATA"
    # In a launch file, as well as in the shell.
    left = run(GroupAction([SetEnvironmentVariable(choice, value), include({})], scoped=True))
    environment = left.environments["referring"]

    assert {name: environment[name] for name in (*dds.CHOICES, "RMW_IMPLEMENTATION") if name in environment} == {
        choice: value
    }


@needs_launch
def test_arguments_of_the_same_name_of_another_package_are_kept_apart_as_documented(tmp_path: Path) -> None:
    """What docs/robots.md says to do beside Nav2, whose arguments have the same names."""
    from launch.actions import GroupAction, SetLaunchConfiguration

    theirs = tmp_path / "nav2_params.yaml"
    theirs.write_text("amcl:\n  ros__parameters:\n    alpha1: 0.2\n")
    nav2 = {"namespace": "robot", "params_file": str(theirs), "autostart": "false", "log_level": "warn"}
    set_theirs = [SetLaunchConfiguration(*pair) for pair in nav2.items()]

    apart = run(*set_theirs, GroupAction([include({})], scoped=True, forwarding=False))
    assert "__ns:=/clip_seg" in apart.commands["referring"]
    assert "info" in apart.commands["referring"]
    assert told(apart.commands["referring"])["autostart"] is True
    assert apart.configurations == nav2


@needs_launch
def test_a_robot_of_several_has_its_own_namespace_and_tf_as_documented() -> None:
    from launch.actions import GroupAction
    from launch_ros.actions import PushRosNamespace, SetRemap

    robot = [PushRosNamespace("robot1"), SetRemap("/tf", "/robot1/tf"), include({})]
    command = run(GroupAction(robot, scoped=True)).commands["referring"]

    assert "__ns:=/robot1/clip_seg" in command
    assert "/tf:=/robot1/tf" in command


@needs_launch
def test_a_parameter_file_of_another_package_is_told(tmp_path: Path) -> None:
    seg = load("seg")
    theirs, ours = tmp_path / "nav2_params.yaml", tmp_path / "ours.yaml"
    theirs.write_text("amcl:\n  ros__parameters:\n    alpha1: 0.2\n")
    ours.write_text("clip_seg:\n  referring:\n    ros__parameters:\n      threshold: 0.3\n")
    value = dict.fromkeys(seg.OVERRIDES, seg.FROM_FILE)

    _, notes = seg.parameters_told("referring", {**value, "params_file": str(theirs)}, "/clip_seg")
    assert len(notes) == 1
    assert "says nothing to /clip_seg/referring" in notes[0]
    assert seg.parameters_told("referring", {**value, "params_file": str(ours)}, "/clip_seg") == (
        {"threshold": 0.3},
        [],
    )
    with pytest.raises(FileNotFoundError, match="params_file: there is no file"):
        seg.parameters_told("referring", {**value, "params_file": str(tmp_path / "none.yaml")}, "/clip_seg")


@needs_launch
def test_weights_may_be_fetched_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("/**:\n  ros__parameters:\n    download: false\n")

    def downloads(**arguments: str) -> bool:
        return told(run(include(arguments)).commands["referring"])["download"]

    assert downloads()
    assert downloads(nodes="referring", device="cpu")
    assert not downloads(download="false")
    assert not downloads(params_file=str(own))
    assert downloads(params_file=str(own), download="true")


@needs_launch
def test_simulated_time_is_for_all_nodes_and_left_alone_by_default() -> None:
    from launch_ros.actions import SetParameter

    on = run(include({"nodes": "both", "use_sim_time": "true"}), programs=2)
    assert [told(command)["use_sim_time"] for command in on.commands.values()] == [True, True]
    # Neither an argument of ours: the launch file around it may have said so for all its nodes.
    around = run(SetParameter("use_sim_time", True), include({})).commands["referring"]
    assert told(around).get("use_sim_time", None) is True or "use_sim_time:=true" in " ".join(around).lower()
    assert "use_sim_time" not in told(run(include({})).commands["referring"])


@needs_launch
@pytest.mark.parametrize(
    ("pushed", "argument", "namespace"),
    [
        ("", "clip_seg", "/clip_seg"),
        ("", "/", "/"),
        ("robot1", "clip_seg", "/robot1/clip_seg"),
        ("robot1", "/a/b", "/a/b"),
    ],
)
def test_rviz_shows_the_topics_of_the_nodes(
    pushed: str, argument: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch import LaunchContext

    seg, said = load("seg"), []
    monkeypatch.setattr(seg, "_rviz", lambda value, *rest: said.append(seg.shown(value, *rest[:2])) or "rviz")
    context = LaunchContext()
    context.launch_configurations.update({name: default for name, (default, _) in seg.OWN.items()})
    context.launch_configurations.update(dict.fromkeys(seg.OVERRIDES, seg.FROM_FILE))
    context.launch_configurations.update(
        rviz="true", nodes="both", namespace=argument, image_topics="left/image,/right/image", target_frame="map"
    )
    if pushed:
        context.launch_configurations["ros_namespace"] = f"/{pushed}"

    assert seg.start(context)[-1] == "rviz"

    (shown,) = said
    assert (shown.namespace, shown.referring, shown.semantic, shown.fixed_frame) == (namespace, True, True, "map")
    left = f"{namespace.rstrip('/')}/left/image"
    assert [(camera.name, camera.image) for camera in shown.cameras] == [("left", left), ("right", "/right/image")]


@needs_launch
def test_without_rviz_the_nodes_start_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seg = load("seg")

    def missing(package: str) -> str:
        raise seg.PackageNotFoundError(package)

    monkeypatch.setattr(seg, "get_package_prefix", missing)

    assert "RViz is not installed" in seg._rviz({}, "/", {}, {}).msg[0].text


@needs_launch
def test_the_demonstration_starts_camera_and_node() -> None:
    quiet = {"rviz": "false", "web": "false"}
    left = run(include(quiet | {"seed": "4", "namespace": "eyes"}, "demo"), programs=2)

    assert sorted(left.commands) == ["referring", "sim_camera"]
    assert "__ns:=/eyes" in left.commands["referring"]
    assert told(left.commands["sim_camera"])["seed"] == 4
    # What the node says to try.
    assert told(left.commands["sim_camera"])["required"] == ["red cup"]
    # The weights of the simulated table, whatever else was downloaded.
    assert told(left.commands["referring"])["model"] == FOR_PHRASES[-1]
    named = run(include(quiet | {"nodes": "both", "model": "cris-pocket"}, "demo"), programs=3)
    assert told(named.commands["referring"])["model"] == "cris-pocket"
    assert told(named.commands["semantic"])["model"] == FOR_CLASSES[-1]


@needs_launch
@pytest.mark.parametrize(("argument", "text"), [("seed", "x"), ("seed", "-1"), ("required", "red giraffe")])
def test_a_wrong_scene_is_told_before_anything_runs(argument: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    left = run(include({"rviz": "false", "web": "false", argument: text}, "demo"), programs=0)

    assert left.code == 1
    assert left.commands == {}
    (error,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert argument in error
    assert repr(text) in error


def test_shared_memory_holds_several_images() -> None:
    root = ElementTree.parse(config_dir() / "fastdds_shm.xml").getroot()
    segment = root.find(".//{*}segment_size")

    assert int(segment.text) >= 8 * 1920 * 1080 * 3
