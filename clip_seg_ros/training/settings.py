# SPDX-License-Identifier: Apache-2.0
"""Reads settings from the mappings of a YAML file, with an error message in one sentence."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from clip_seg_ros.data.suggestions import did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

Settings = TypeVar("Settings")
_UNIONS = (types.UnionType, typing.Union)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class SettingsError(ValueError):
    """The settings cannot be used; the message is for the user who wrote them."""


class RecipeSettings:
    """The base of the dataclasses of a method's own settings, which stand below ``recipe`` in a YAML file."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Reads the mapping of a YAML file. Raises SettingsError on unknown names and on values that do not fit."""
        return read_settings(cls, values, "recipe")


def read_settings(kind: type[Settings], values: Any, where: str = "") -> Settings:
    """Makes an object of a dataclass, and of the dataclasses inside it, from values of YAML.

    Lists become tuples. Whole numbers become floats if the field is one, and so does text such as "1e-4", which YAML
    does not read as a number.

    Args:
        kind: The dataclass.
        values: A mapping from the names of its fields.
        where: The name of the mapping in the file, such as "recipe.train"; "" for the whole file.

    Raises:
        SettingsError: A name is unknown or missing, a value has the wrong type, or the dataclass refuses it.
    """
    place = where or "the file"
    if not isinstance(values, Mapping):
        raise SettingsError(f"{place} must hold names and values, such as `steps: 2000`, not {_shown(values)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            hint = did_you_mean(name, fields) or f"; it knows {', '.join(fields)}"
            raise SettingsError(f"{place} has no setting {name!r}{hint}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{place} lacks {name}")
    hints = typing.get_type_hints(kind)
    read = {name: _read(value, hints[name], f"{where}.{name}".lstrip(".")) for name, value in values.items()}
    try:
        return kind(**read)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}" if where else str(error)) from error


def require_steps(settings: Any) -> None:
    """Raises ValueError unless ``steps`` and ``batch`` of ``settings`` are at least 1 and its rate is above 0."""
    for name in ("steps", "batch"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if not settings.learning_rate > 0:
        raise ValueError(f"learning_rate must be more than 0, got {settings.learning_rate}")


def _read(value: Any, wanted: Any, where: str) -> Any:
    """Converts ``value`` to the annotation ``wanted``."""
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return read_settings(wanted, value, where)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in _UNIONS:
        if value is None and type(None) in arguments:
            return None
        return _read(value, next(member for member in arguments if member is not type(None)), where)
    if wanted is Any or (origin is not None and isinstance(origin, type) and issubclass(origin, Mapping)):
        if wanted is not Any and not isinstance(value, Mapping):
            raise SettingsError(f"{where} must hold names and values, not {_shown(value)}")
        return value
    if origin is tuple:
        return _read_list(value, arguments, where)
    if origin is Literal:
        if value not in arguments:
            hint = did_you_mean(value, map(str, arguments))
            raise SettingsError(f"{where} must be {' or '.join(map(str, arguments))}, not {_shown(value)}{hint}")
        return value
    return _read_plain(value, wanted, where)


def _read_list(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"{where} must be a list, such as [1, 2], not {_shown(value)}")
    kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(value):
        raise SettingsError(f"{where} must be a list of {len(kinds)} values, not of {len(value)}")
    return tuple(_read(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _read_plain(value: Any, wanted: type, where: str) -> Any:
    # The comparison is exact, because True is an int, too.
    if type(value) is wanted:
        return value
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise SettingsError(f"{where} must be {_WORDS.get(wanted, wanted.__name__)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    return "empty" if value is None else f"{value!r}"
