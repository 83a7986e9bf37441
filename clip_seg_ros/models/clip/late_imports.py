# SPDX-License-Identifier: Apache-2.0
"""Puts off what other libraries import for parts of theirs that are never used here.

To read CLIP's towers, open_clip imports the whole of transformers for the text towers of others, and torchvision
imports torch's compiler for one operator. That takes more than half of the time in which a node starts.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Late:
    """Stands for a member of a module, which is imported when the member is first used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _member(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._member()(*args, **options)


class _LateModule(types.ModuleType):
    def __getattr__(self, name: str) -> _Late:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Late(self.__name__, name)


@contextmanager
def put_off(*modules: str) -> Iterator[None]:
    """Lets whatever is imported within the block import members of ``modules`` only when they are first used.

    A module that has been imported already stays as it is. After the block the names mean the real modules again. The
    members that were imported within it can be called and asked for attributes; they cannot be subclassed.

    Args:
        modules: Whole names of modules, such as "transformers.modeling_outputs". A module whose submodules are
            imported within the block must be left out, or the submodules named as well.
    """
    late = [name for name in modules if name not in sys.modules]
    sys.modules.update((name, _LateModule(name)) for name in late)
    try:
        yield
    finally:
        for name in late:
            del sys.modules[name]
