# SPDX-License-Identifier: Apache-2.0
"""One ``referring`` process for all tests that can share it, a node to talk to it, and a picture to show it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from clip_seg_ros import resources
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene

# The tests' folders are not on Python's path, and this one holds a module that its tests share.
sys.path.append(str(Path(__file__).parent))

from ros_harness import NodeProcess, Watcher


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """rclpy in this process and the environment of every process that a test starts."""
    profile = str(resources.config_dir() / "fastdds_shm.xml")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FASTDDS_DEFAULT_PROFILES_FILE", profile)
        environment.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", profile)
        rclpy.init()
        yield
        rclpy.shutdown()


@pytest.fixture(scope="session")
def watcher(ros: None) -> Iterator[Watcher]:
    node = Watcher()
    yield node
    node.close()


@pytest.fixture
def newcomer(ros: None) -> Iterator[Node]:
    """A node with a ROS context of its own, which asks who is there now.

    A context that lives through many tests has seen nodes of the same name come and go. Should the last words of one of
    them reach it after that node has left, rmw can keep a node without topics, and answer for that one.
    """
    context = Context()
    rclpy.init(context=context)
    node = Node("newcomer", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture(scope="session")
def shared_referring(ros: None, watcher: Watcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp("referring") / "log"
    node = NodeProcess("referring", log, files=[resources.config_dir() / "referring.yaml"])
    node.wait_said("commands:")
    watcher.wait_for_node()
    yield node
    code = node.end()
    assert code == 0, "an interrupted node ends quietly"
    assert "Traceback" not in node.said(), "an interrupted node ends quietly"


@pytest.fixture(scope="session")
def weights_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded weights, to be damaged and mended."""
    return shutil.copytree(resources.weights_dir(), tmp_path_factory.mktemp("copy") / "weights")


@pytest.fixture(scope="session")
def own_watcher(ros: None) -> Iterator[Watcher]:
    node = Watcher("own")
    yield node
    node.close()


@pytest.fixture(scope="session")
def own_referring(
    own_watcher: Watcher, weights_copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    """Another ``referring`` node, in the namespace "own", whose model and weights may be changed."""
    log = tmp_path_factory.mktemp("own") / "log"
    parameters = [f"weights_dir:={weights_copy}", "image_topic:=/own/image", "depth_topic:=''"]
    node = NodeProcess("referring", log, parameters, namespace="own")
    node.wait_said("commands:")
    own_watcher.wait_for_node()
    yield node
    assert node.end() == 0, node.said()
    assert "Traceback" not in node.said(), node.said()


@pytest.fixture
def referring(shared_referring: NodeProcess, watcher: Watcher) -> NodeProcess:
    """The shared node, alive, with its defaults and nothing to look for."""
    assert shared_referring.process.poll() is None, shared_referring.said()
    watcher.say("threshold 0.5")
    watcher.say("stop")
    for messages in watcher.seen.values():
        messages.clear()
    return shared_referring


@pytest.fixture(scope="session")
def view() -> RenderedView:
    """A table with one red cup and without anything blue."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(2, required=[("red", "cup")], forbidden=[("blue", None)]))


@pytest.fixture(scope="session")
def cups() -> RenderedView:
    """A table with a red, a blue and an orange cup."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(3, required=[("red", "cup"), ("blue", "cup")], objects=(4, 5)))


@pytest.fixture(scope="session")
def example() -> RenderedView:
    """Another table than that of ``view``, with a red cup."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(40, required=[("red", "cup")]), depth=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"
