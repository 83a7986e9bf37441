"""Settings as frozen dataclasses: each name, type, default, description and range in one place, checked when made.

A node declares its ROS parameters from ``parameters(ReferringConfig)`` and reads them back with ``from_mapping``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT", bound="Config")


@dataclass(frozen=True)
class Parameter:
    """All that a ROS parameter or a table in the documentation needs to know of one setting."""

    name: str
    type: type
    """``str`` or ``float``."""
    default: str | float
    description: str
    low: float | None
    """Smallest value allowed, itself included; ``None`` for text."""
    high: float | None
    """Largest value allowed, itself included; ``None`` for text."""
    live: bool
    """True where the value may change while the node runs."""


def _text(default: str, description: str, *, required: bool = False) -> Any:
    """A text setting; ``required`` refuses the empty text."""
    return field(default=default, metadata={"description": description, "required": required, "live": False})


def _number(default: float, low: float, high: float, description: str) -> Any:
    """A number from ``low`` to ``high``, both allowed, that may change while the node runs."""
    return field(default=default, metadata={"description": description, "low": low, "high": high, "live": True})


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
        return cls(**{name: _widened(value, known[name].default) for name, value in values.items()})


def parameters(config: type[Config]) -> tuple[Parameter, ...]:
    """Returns every setting of ``config`` in the order of its definition."""
    return tuple(
        Parameter(
            name=item.name,
            type=type(item.default),
            default=item.default,
            description=item.metadata["description"],
            low=item.metadata.get("low"),
            high=item.metadata.get("high"),
            live=item.metadata["live"],
        )
        for item in fields(config)
    )


def _widened(value: Any, default: Any) -> Any:
    """Makes a number of an integer where one belongs: YAML reads "threshold: 1" as an integer."""
    return float(value) if type(value) is int and type(default) is float else value


def _check(item: Field, value: Any) -> None:
    expected = type(item.default)
    if type(value) is not expected:
        raise ValueError(f"{item.name} must be a {expected.__name__}, got {value!r}")
    if expected is float:
        low, high = item.metadata["low"], item.metadata["high"]
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(f"{item.name} must lie in {low:g}..{high:g}, got {value!r}")
    elif item.metadata["required"] and not value.strip():
        raise ValueError(f"{item.name} must not be empty")


@dataclass(frozen=True)
class ReferringConfig(Config):
    """Settings of the ``referring`` node: one mask a phrase."""

    model: str = _text("clipseg-pocket", "Name of the model that segments.", required=True)
    device: str = _text("auto", "Where the model runs: auto (CUDA if there is any), cpu, cuda, cuda:N.", required=True)
    weights_dir: str = _text("", "Folder of the weight files; empty for the ones shipped with the package.")
    threshold: float = _number(0.5, 0.0, 1.0, "A pixel belongs to a phrase when its probability is greater than this.")
    min_area_fraction: float = _number(0.002, 0.0, 1.0, "Smallest object, as a share of the image's pixels.")
    depth_tolerance_s: float = _number(
        0.02, 0.0, 10.0, "Largest difference in seconds between the stamps of a colour image and its depth."
    )
    image_topic: str = _text("/camera/color/image_raw", "Colour image to segment.", required=True)
    depth_topic: str = _text(
        "/camera/depth/image_raw", "Depth image aligned with the colour image; empty to do without positions."
    )
    camera_info_topic: str = _text(
        "/camera/color/camera_info", "Intrinsics of the colour camera; empty to do without positions."
    )
    command_topic: str = _text("command", "Text commands, std_msgs/String.", required=True)
    initial_command: str = _text("", 'Command to start with, for example "segment the red cup"; empty for none.')
