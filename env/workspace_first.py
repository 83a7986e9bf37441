# SPDX-License-Identifier: Apache-2.0
"""Makes ``import clip_seg_ros`` find the built workspace even in the clone's own folder.

The messages (``clip_seg_ros.msg``) exist only in the workspace, which is on PYTHONPATH. Python puts the current folder
before PYTHONPATH for ``python -m`` and ``python -c``, so that in the clone its ``clip_seg_ros`` folder, which has no
messages, would win. Python runs ``.pth`` files before it adds the current folder: importing the (empty) package there
settles which of the two it is. The workspace's files are links to the clone's, so edits are seen all the same.
"""

import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

MODULE = "clip_seg_ros_workspace_first"


def install() -> None:
    """Puts this module into the running interpreter's site-packages, started from a ``.pth`` file."""
    site_packages = Path(sysconfig.get_path("purelib"))
    (site_packages / f"{MODULE}.py").write_text(Path(__file__).read_text())
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}\n")


if __name__ == "__main__" and "--install" in sys.argv:
    install()
elif __name__ == MODULE:
    with suppress(ModuleNotFoundError):
        import clip_seg_ros  # noqa: F401
