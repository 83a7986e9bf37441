# SPDX-License-Identifier: Apache-2.0
"""The public face: what it offers, and that its example is true."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

from clip_seg_ros import api
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene


def test_the_example_of_the_docstring_runs() -> None:
    with SceneRenderer() as renderer:
        rgb = renderer.render(sample_scene(2, required=[("red", "cup")], forbidden=[("blue", None)])).rgb
    example = doctest.DocTestParser().get_doctest(api.__doc__, vars(api) | {"rgb": rgb}, "api", api.__file__, 0)
    assert len(example.examples) == 5

    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)

    assert result == doctest.TestResults(failed=0, attempted=5)


def test_all_names_are_there_in_order_and_explained() -> None:
    assert api.__all__ == sorted(api.__all__)
    public = {name for name, value in vars(api).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(api.__all__), "a name is imported and not offered, or the other way round"
    assert [name for name in api.__all__ if not inspect.getdoc(getattr(api, name))] == []


def test_a_program_of_its_own_can_import_it_from_any_folder(tmp_path: Path) -> None:
    program = "from clip_seg_ros.api import *; print(Predictor.__name__, parse_command('find the red cup').prompts)"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)

    assert (result.stdout, result.returncode) == ("Predictor ('red cup',)\n", 0), result.stderr
