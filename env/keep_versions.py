"""Prints, as pip constraints, the versions of the named packages that this interpreter already has."""

import sys
from importlib.metadata import PackageNotFoundError, version


def main(names: list[str]) -> None:
    """Prints one ``name==version`` line for each of ``names`` that is installed."""
    for name in names:
        try:
            print(f"{name}=={version(name)}")
        except PackageNotFoundError:
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
