# SPDX-License-Identifier: Apache-2.0
"""Settings as frozen dataclasses: each name, type, default, description and range in one place, checked when made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar, cast

ConfigT = TypeVar("ConfigT", bound="Config")

OWN = -1.0
"""Stands for the value that the model brings, where a setting has one."""


@dataclass(frozen=True)
class Parameter:
    """All that a ROS parameter, a launch argument or a table in the documentation needs to know of one setting."""

    name: str
    type: type
    """``str``, ``float``, ``int``, ``bool``, or ``tuple`` for a list of texts."""
    default: str | float | int | bool | tuple[str, ...]
    description: str
    low: float | None
    """Smallest value allowed, itself included; ``None`` where there is no range."""
    high: float | None
    """Largest value allowed, itself included; ``None`` where there is no range."""
    allowed: str
    """The values allowed, for people: "raw or compressed", "-1, or 0 to 1"; empty where any of the type is."""
    live: bool
    """True where the value may change while the node runs."""
    at_start: bool
    """True where only whoever starts the node sets the value, and it never changes afterwards."""


def text(
    default: str,
    description: str,
    *,
    required: bool = False,
    live: bool = False,
    at_start: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A text setting; ``required`` refuses the empty text, ``choices`` all others."""
    metadata = {"description": description, "required": required, "live": live, "choices": choices}
    return field(default=default, metadata={**metadata, "at_start": at_start})


def texts(description: str, *, blanks: bool = False, live: bool = False, longest: int | None = None) -> Any:
    """A list of texts that is empty by default; an empty text in it counts for nothing, unless ``blanks`` keeps it.

    With ``longest``, texts with more characters are refused.
    """
    metadata = {"description": description, "live": live, "blanks": blanks, "longest": longest}
    return field(default=(), metadata=metadata)


def switch(default: bool, description: str, *, live: bool = True, at_start: bool = False) -> Any:
    return field(default=default, metadata={"description": description, "live": live, "at_start": at_start})


def number(default: float, low: float, high: float, description: str, *, own: bool = False, live: bool = True) -> Any:
    """A number from ``low`` to ``high``, both allowed; a whole one where ``default`` is.

    With ``own``, ``OWN`` below that range is allowed too.
    """
    metadata = {"description": description, "low": low, "high": high, "live": live, "own": own}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """What all settings share: checks on construction, and construction from a mapping."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item, getattr(self, item.name))

    @classmethod
    def from_mapping(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """Builds from names and values, as YAML or ROS parameters give them; what is not named keeps its default.

        Raises:
            ValueError: A name is unknown, or a value has the wrong type or lies out of range.
        """
        known = {item.name: item for item in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}; the known ones are {', '.join(sorted(known))}")
        return cls(**{name: _widened(value, known[name]) for name, value in values.items()})


def parameters(config: type[Config]) -> tuple[Parameter, ...]:
    """Returns every setting of ``config`` in the order of its definition.

    Raises:
        TypeError: A field was not made with one of the functions of this module.
    """
    for item in fields(config):
        if "description" not in item.metadata:
            raise TypeError(f"{config.__name__}.{item.name} must be made with text(), texts(), number() or switch()")
    return tuple(
        Parameter(
            name=item.name,
            type=type(item.default),
            # Every field of a Config has one.
            default=cast(Any, item.default),
            description=item.metadata["description"],
            low=OWN if item.metadata.get("own") else item.metadata.get("low"),
            high=item.metadata.get("high"),
            allowed=_allowed(item.metadata),
            live=item.metadata["live"],
            at_start=item.metadata.get("at_start", False),
        )
        for item in fields(config)
    )


def _allowed(metadata: Mapping[str, Any]) -> str:
    if "low" in metadata:
        span = f"{_plain(metadata['low'])} to {_plain(metadata['high'])}"
        return f"{_plain(OWN)}, or {span}" if metadata["own"] else span
    return _either(metadata.get("choices", ()))


def _either(choices: Sequence[str]) -> str:
    """Joins texts as people do: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), *choices[-1:])))


def _plain(value: float) -> str:
    """Writes a number as people do: 1000000 and 0.1, not 1e+06."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _widened(value: Any, item: Field) -> Any:
    """Makes a number of an integer where one belongs, as YAML reads "threshold: 1", and a tuple of a list.

    ROS knows no type of an empty list, so that a list of one empty text stands for it; rclpy reads "[]" in a file as no
    value at all.
    """
    if value is None and type(item.default) is tuple:
        return ()
    if type(value) is int and type(item.default) is float:
        return float(value)
    if type(item.default) is tuple and isinstance(value, (list, tuple)):
        if item.metadata["blanks"] and len(value) > 1:
            return tuple(value)
        return tuple(each for each in value if each != "")
    return value


def _check(item: Field, value: Any) -> None:
    expected, given, metadata = type(item.default), type(value), item.metadata
    if given is not expected:
        raise ValueError(f"{item.name} must be a {_TYPE_NAMES.get(expected, expected.__name__)}, got {value!r}")
    if expected in (float, int):
        low, high = metadata["low"], metadata["high"]
        own = metadata["own"]
        if not low <= value <= high and not (own and value == OWN):  # also refuses NaN
            or_own = f", or be {_plain(OWN)} for the model's own" if own else ""
            raise ValueError(f"{item.name} must lie in {_plain(low)}..{_plain(high)}{or_own}, got {value!r}")
    elif expected is tuple:
        if not all(isinstance(each, str) for each in value):
            raise ValueError(f"{item.name} must be a list of texts, got {value!r}")
        limit, got = metadata["longest"], max(map(len, value), default=0)
        if limit is not None and got > limit:
            raise ValueError(f"a text of {item.name} has at most {limit} characters, got one of {got}")
    elif expected is str:
        if metadata["required"] and not value.strip():
            raise ValueError(f"{item.name} must not be empty")
        if metadata["choices"] and value not in metadata["choices"]:
            raise ValueError(f"{item.name} must be {_either(metadata['choices'])}, got {value!r}")


_TYPE_NAMES = {tuple: "list of texts", int: "whole number"}
