# SPDX-License-Identifier: Apache-2.0
"""Imports point one way, ROS stays in nodes/, and everything else works without it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs" / "tools"))

import draw_imports

PACKAGE = Path(__file__).parents[1] / "clip_seg_ros"
# What each part may import, itself included. A part is a folder or a top-level module of the package.
CORE = {
    "types",
    "settings",
    "config",
    "commands",
    "resources",
    "dds",
    "rviz_layout",
    "parameter_file",
}
MODELS = CORE | {"models"}
ZOO = MODELS | {"zoo"}
RUNTIME = ZOO | {"runtime"}
PIPELINE = RUNTIME | {"pipeline"}
WORLD = {"types", "config", "resources", "sim", "sources", "data"}
ANNOTATION = PIPELINE | WORLD | {"annotation"}
EVALUATION = ANNOTATION | {"evaluation"}
TRAINING = EVALUATION | {"training"}
ALLOWED = {
    "types": set(),
    "api": PIPELINE,
    "settings": set(),
    "config": CORE,
    "commands": CORE,
    "resources": CORE,
    "dds": CORE,
    "rviz_layout": CORE,
    "parameter_file": CORE,
    "models": MODELS,
    "zoo": ZOO,
    "runtime": RUNTIME,
    "pipeline": PIPELINE,
    "sim": WORLD,
    "sources": WORLD,
    "data": WORLD,
    "annotation": ANNOTATION,
    "evaluation": EVALUATION,
    "training": TRAINING,
    "tools": TRAINING | {"viewer", "tools"},
    "viewer": ANNOTATION | {"viewer"},
    "nodes": PIPELINE | {"sim", "sources", "viewer", "nodes"},
}
MESSAGES = ("msg", "srv", "action")
"""Made by the build."""
# The only file or folder that may import a library.
ONLY_IMPORTER = {
    "open_clip": "models/clip/backbone.py",
    "mujoco": "sim/",
    # They report that they are imported unless optional_package imports them.
    **dict.fromkeys(("openvino", "openvino_telemetry", "onnxruntime", "nncf"), "runtime/optional_packages.py"),
}
ROS = {
    "rclpy",
    "launch",
    "launch_ros",
    "cv_bridge",
    "tf2_ros",
    "tf2_msgs",
    "builtin_interfaces",
    "std_msgs",
    "sensor_msgs",
    "geometry_msgs",
    "visualization_msgs",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "action_msgs",
    "vision_msgs",
    "rcl_interfaces",
    "unique_identifier_msgs",
    "rosidl_runtime_py",
    "ament_index_python",
}
NO_ROS = {"numpy", "cv2", "torch", "rosbags"}
"""What nodes/ import besides ROS, this package and Python's own modules."""
WITH_AN_EXTRA = {
    **{f"clip_seg_ros.tools.{name}": "mcp" for name in ("mcp_answers", "mcp_serving", "mcp_tools")},
    **{f"clip_seg_ros.viewer.{name}": "viser" for name in ("space_nodes", "space_proxy", "space_scene")},
}
"""Modules that only one command imports, and the package that it needs, which tells people how to install it."""
WITHOUT_ROS = """
import importlib, importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN or name.split(".")[1:2] in (["msg"], ["srv"], ["action"]):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hide())
failed = []
for name in MODULES:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
sys.exit("\\n".join(failed) or 0)
"""


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path, source: str | None = None) -> set[str]:
    """Every dotted name that ``path`` imports, anywhere in it, relative imports resolved."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # "from clip_seg_ros import types" names a module as well.
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def faults(path: Path, source: str | None = None) -> list[str]:
    """What ``path`` imports although it must not."""
    part, where = part_of(path), path.relative_to(PACKAGE).as_posix()
    found = []
    for name in sorted(imported_modules(path, source)):
        top, _, rest = name.partition(".")
        ours = rest.split(".")[0]
        # The bare, empty package may be named.
        if top == "clip_seg_ros" and ours not in ("", *MESSAGES) and ours not in ALLOWED[part]:
            found.append(f"{where} imports {name}: {part} may use {', '.join(sorted(ALLOWED[part])) or 'nothing'}")
        if (top in ROS or (top == "clip_seg_ros" and ours in MESSAGES)) and part != "nodes":
            found.append(f"{where} imports {name}: only nodes/ may import ROS")
        if top in ONLY_IMPORTER and not where.startswith(ONLY_IMPORTER[top]):
            found.append(f"{where} imports {name}: only {ONLY_IMPORTER[top]} may")
        if top == "torch" and part in CORE | {"sim"}:
            found.append(f"{where} imports {name}: {part} must work without torch")
    return found


def test_every_part_has_a_rule() -> None:
    parts = {part_of(path) for path in python_files()} - {"__init__"}

    assert parts == set(ALLOWED)


@pytest.mark.parametrize("path", [path for path in python_files() if part_of(path) != "__init__"], ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert not faults(path)


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("models/clipseg/model.py", "from clip_seg_ros.pipeline.predictor import Predictor"),
        ("models/clipseg/model.py", "def f():\n    from ...pipeline import predictor"),
        ("models/clipseg/model.py", "import open_clip.model"),
        ("runtime/openvino_engine.py", "def f():\n    from openvino.frontend import FrontEndManager"),
        ("pipeline/overlay.py", "from clip_seg_ros import nodes"),
        ("pipeline/overlay.py", "from sensor_msgs.msg import Image"),
        ("pipeline/model_host.py", "from lifecycle_msgs.msg import State"),
        ("tools/cli.py", "from clip_seg_ros.msg import CommandStatus"),
        ("config.py", "import torch"),
    ],
)
def test_a_wrong_import_is_noticed(where: str, source: str) -> None:
    assert faults(PACKAGE / where, source)


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not draw_imports.circles(draw_imports.module_graph())


@pytest.mark.parametrize("folder", sorted({path.parent.parent.name for path in PACKAGE.glob("*/*/__init__.py")}))
def test_rooms_of_one_folder_import_one_way(folder: str) -> None:
    rooms = draw_imports.room_graph(draw_imports.module_graph(), folder)

    assert rooms
    assert not draw_imports.circles(rooms)


@pytest.mark.parametrize("how", ["import package.b.two", "if TYPE_CHECKING:\n    from package.b import two"])
def test_a_circle_is_noticed(tmp_path: Path, how: str) -> None:
    package = tmp_path / "package"
    for folder in ("a", "b"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "a" / "one.py").write_text(how)
    (package / "b" / "two.py").write_text("from package.a.one import something")

    assert draw_imports.circles(draw_imports.module_graph(package)) == [["a.one", "b.two"]]


def test_the_picture_of_the_imports_is_up_to_date() -> None:
    shown, now = draw_imports.DRAWING.read_text(), draw_imports.draw(draw_imports.module_graph())

    assert shown == now, "the folders or their imports have changed: run python docs/tools/draw_imports.py"


def test_all_of_ros_that_the_nodes_import_is_known_as_ros() -> None:
    paths = [path for path in python_files() if part_of(path) == "nodes"]
    found = {name.partition(".")[0] for path in paths for name in imported_modules(path)}

    assert found - set(sys.stdlib_module_names) - NO_ROS - {"clip_seg_ros"} <= ROS


def test_the_package_itself_imports_nothing() -> None:
    # Which of two __init__.py files wins, ours or that of the messages, must not matter.
    assert (PACKAGE / "__init__.py").read_text() == ""


def test_every_folder_of_modules_has_an_init_file() -> None:
    # Python imports the others all the same, but pip does not install them.
    folders = {path.parent for path in python_files()}

    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_everything_but_the_nodes_imports_without_ros() -> None:
    missing = {name for name, extra in WITH_AN_EXTRA.items() if importlib.util.find_spec(extra) is None}
    modules = {module_name(path) for path in python_files() if part_of(path) != "nodes"} - missing
    program = f"MODULES = {sorted(modules)!r}\nHIDDEN = {ROS!r}\n{WITHOUT_ROS}"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")

    assert result.returncode == 0, result.stderr


def test_messages_and_code_are_found_together_in_every_folder(tmp_path: Path) -> None:
    pytest.importorskip("clip_seg_ros.msg", reason="the messages exist only in a built workspace")
    program = "import clip_seg_ros.msg, clip_seg_ros.types"

    for folder in (tmp_path, PACKAGE.parent):
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder)
        assert result.returncode == 0, f"in {folder}: {result.stderr}"
