# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from clip_seg_ros.tools.cli import COMMANDS, main


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())  # long lines are wrapped
    assert all(name in said and text in said for name, text in COMMANDS.items())


@pytest.mark.parametrize("argv", [[], ["dance"]])
def test_no_command_is_a_wrong_command(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "usage: clip-seg" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_needs_neither_torch_nor_ros(arguments):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'open_clip', 'mujoco', 'rclpy'])); "
        f"from clip_seg_ros.tools.cli import main; main({arguments!r})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "usage: clip-seg" in run.stdout, run.stderr


def test_ctrl_c_while_a_command_is_imported_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["train", "recipe.yaml"]) == 130
    assert capsys.readouterr().err == "clip-seg: stopped\n"
