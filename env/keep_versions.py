# SPDX-License-Identifier: Apache-2.0
"""Prints, as pip constraints, the versions of the named packages that this interpreter already has."""

import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def main(names: list[str]) -> None:
    """Prints one ``name==version`` line for each of ``names`` that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            print(f"{name}=={version(name)}")


if __name__ == "__main__":
    main(sys.argv[1:])
