# SPDX-License-Identifier: Apache-2.0
"""Points the CMake files of the ROS 2 wheels at this interpreter's headers and NumPy.

The wheels' exported targets name two folders of the machine that built them; CMake refuses targets whose folders do not
exist. Run once, with the environment's own interpreter, after the wheels are installed.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

PYTHON_HEADERS = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
NUMPY_HEADERS = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_?core/include")


def rewrite(text: str) -> str:
    """Returns a CMake file's ``text`` with both folders replaced."""
    text = PYTHON_HEADERS.sub(lambda _: sysconfig.get_path("include"), text)
    return NUMPY_HEADERS.sub(lambda _: numpy.get_include(), text)


def main() -> int:
    """Rewrites every CMake file below the environment's ``share``; returns 1 when there is none."""
    files = list(Path(sys.prefix, "share").glob("**/*.cmake"))
    for path in files:
        text = path.read_text()
        if "/opt/python/" in text:
            path.write_text(rewrite(text))
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main())
