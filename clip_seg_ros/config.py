# SPDX-License-Identifier: Apache-2.0
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
    """``str``, ``float``, ``int``, ``bool``, or ``tuple`` for a list of texts."""
    default: str | float | int | bool | tuple[str, ...]
    description: str
    low: float | None
    """Smallest value allowed, itself included; ``None`` where there is no range."""
    high: float | None
    """Largest value allowed, itself included; ``None`` where there is no range."""
    live: bool
    """True where the value may change while the node runs."""


def _text(
    default: str, description: str, *, required: bool = False, live: bool = False, choices: tuple[str, ...] = ()
) -> Any:
    """A text setting; ``required`` refuses the empty text, ``choices`` all others."""
    metadata = {"description": description, "required": required, "live": live, "choices": choices}
    return field(default=default, metadata=metadata)


def _texts(description: str, *, blanks: bool = False, live: bool = False) -> Any:
    """A list of texts that is empty by default; an empty text in it counts for nothing, unless ``blanks`` keeps it."""
    return field(default=(), metadata={"description": description, "live": live, "blanks": blanks})


def _switch(default: bool, description: str, *, live: bool = True) -> Any:
    return field(default=default, metadata={"description": description, "live": live})


OWN = -1.0
"""Stands for the value that the model brings, where a setting has one."""


def _number(default: float, low: float, high: float, description: str, *, own: bool = False) -> Any:
    """A number from ``low`` to ``high``, both allowed, that may change while the node runs; whole where they are.

    With ``own``, ``OWN`` below that range is allowed too.
    """
    metadata = {"description": description, "low": low, "high": high, "live": True, "own": own}
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
    """Returns every setting of ``config`` in the order of its definition."""
    return tuple(
        Parameter(
            name=item.name,
            type=type(item.default),
            default=item.default,
            description=item.metadata["description"],
            low=OWN if item.metadata.get("own") else item.metadata.get("low"),
            high=item.metadata.get("high"),
            live=item.metadata["live"],
        )
        for item in fields(config)
    )


def _widened(value: Any, item: Field) -> Any:
    """Makes a number of an integer where one belongs, as YAML reads "threshold: 1", and a tuple of a list.

    ROS knows no type of an empty list, so that a list of one empty text stands for it.
    """
    if type(value) is int and type(item.default) is float:
        return float(value)
    if type(item.default) is tuple and isinstance(value, (list, tuple)):
        if item.metadata["blanks"] and len(value) > 1:
            return tuple(value)
        return tuple(text for text in value if text != "")
    return value


def _check(item: Field, value: Any) -> None:
    expected, metadata = type(item.default), item.metadata
    if type(value) is not expected:
        raise ValueError(f"{item.name} must be a {_TYPE_NAMES.get(expected, expected.__name__)}, got {value!r}")
    if expected in (float, int):
        low, high = metadata["low"], metadata["high"]
        own = metadata["own"]
        if not low <= value <= high and not (own and value == OWN):  # also refuses NaN
            or_own = f", or be {OWN:g} for the model's own" if own else ""
            raise ValueError(f"{item.name} must lie in {low:g}..{high:g}{or_own}, got {value!r}")
    elif expected is tuple:
        if not all(isinstance(text, str) for text in value):
            raise ValueError(f"{item.name} must be a list of texts, got {value!r}")
    elif expected is str:
        if metadata["required"] and not value.strip():
            raise ValueError(f"{item.name} must not be empty")
        if metadata["choices"] and value not in metadata["choices"]:
            raise ValueError(f"{item.name} must be {' or '.join(metadata['choices'])}, got {value!r}")


_TYPE_NAMES = {tuple: "list of texts", int: "whole number"}


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera; an empty one is done without."""

    name: str
    """Put before the names of the outputs; empty where there is only one camera."""
    image: str
    depth: str = ""
    camera_info: str = ""


@dataclass(frozen=True)
class SegmentationConfig(Config):
    """Settings that both nodes have."""

    model: str = _text(
        "clipseg-pocket",
        "Name of the model that segments; a new one is loaded beside the old.",
        required=True,
        live=True,
    )
    device: str = _text("auto", "Where the model runs: auto (CUDA if there is any), cpu, cuda, cuda:N.", required=True)
    precision: str = _text(
        "float32", "What the model computes in; the halves are for GPUs.", choices=("float32", "bfloat16", "float16")
    )
    weights_dir: str = _text("", "Folder of the weight files; empty for the ones shipped with the package.")
    allow_model_paths: bool = _switch(
        False, "Whether the parameter model may change to a weight file outside the folders of weights.", live=False
    )
    image_topic: str = _text("/camera/color/image_raw", "Colour image to segment.", required=True)
    image_topics: tuple[str, ...] = _texts("Colour images of several cameras, instead of image_topic.")
    camera_names: tuple[str, ...] = _texts(
        "Names of the cameras of image_topics, for their outputs; by default from the topics."
    )
    image_transport: str = _text(
        "raw", "How images are sent: raw, or compressed on TOPIC/compressed.", choices=("raw", "compressed")
    )
    command_topic: str = _text("command", "Text commands, std_msgs/String.", required=True)
    initial_command: str = _text("", 'Command to start with, for example "segment the red cup"; empty for none.')
    max_rate_hz: float = _number(0.0, 0.0, 1000.0, "Most images a second of each camera that are answered; 0 for all.")
    autostart: bool = _switch(True, "Configure and activate at once, without a lifecycle manager.", live=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cameras()

    def cameras(self) -> tuple[CameraTopics, ...]:
        """The cameras that there are, with different names.

        Raises:
            ValueError: The lists of topics and names do not fit each other.
        """
        if not self.image_topics:
            return (self._camera("", self.image_topic, None),)
        names = self.camera_names or tuple(_camera_name(topic) for topic in self.image_topics)
        if len(names) != len(self.image_topics):
            counts = f"{len(names)} names for {len(self.image_topics)}"
            raise ValueError(f"camera_names must name each of image_topics, got {counts}")
        if len(set(names)) != len(names):
            raise ValueError(f"cameras must have different names, got {', '.join(names)}: set camera_names")
        return tuple(self._camera(*named, index) for index, named in enumerate(zip(names, self.image_topics)))

    def _camera(self, name: str, image: str, index: int | None) -> CameraTopics:
        """One camera; ``index`` is its place in the lists, ``None`` where there are none."""
        return CameraTopics(name, image)


def _camera_name(topic: str) -> str:
    """Returns the first part of a topic: "left" of "/left/color/image_raw"."""
    return topic.strip("/").split("/")[0]


@dataclass(frozen=True)
class ReferringConfig(SegmentationConfig):
    """Settings of the ``referring`` node: one mask a phrase."""

    threshold: float = _number(
        OWN,
        0.0,
        1.0,
        "A pixel belongs to a phrase when its probability is greater than this, 0..1; -1 for the model's own value.",
        own=True,
    )
    min_area_fraction: float = _number(0.002, 0.0, 1.0, "Smallest object, as a share of the image's pixels.")
    depth_topic: str = _text(
        "/camera/depth/image_raw", "Depth image aligned with the colour image; empty to do without positions."
    )
    depth_topics: tuple[str, ...] = _texts(
        "Depth images of the cameras of image_topics, in the same order; an empty one for a camera without.",
        blanks=True,
    )
    camera_info_topic: str = _text(
        "/camera/color/camera_info", "Intrinsics of the colour camera; empty to do without positions."
    )
    camera_info_topics: tuple[str, ...] = _texts(
        "Intrinsics of the cameras of image_topics, in the same order; an empty one for a camera without.",
        blanks=True,
    )
    rectified: bool = _switch(
        False, "The images are rectified already: camera_info's P describes them, without distortion, and not K and D."
    )
    depth_tolerance_s: float = _number(
        0.02, 0.0, 10.0, "Largest difference in seconds between the stamps of a colour image and its depth."
    )
    target_frame: str = _text("", "Frame of the positions, by tf2; empty for the camera's optical frame.")
    max_points: int = _number(20000, 1, 1000000, "Most points of one object in the point cloud.")
    smoothing: float = _number(
        0.9, 0.0, 0.99, "How much of the past a mask keeps where the picture is still; 0 = none."
    )
    hysteresis: float = _number(
        0.05, 0.0, 0.5, "A pixel enters a mask this much above the threshold and leaves it this much below."
    )
    track_age_s: float = _number(
        2.0, 0.0, 60.0, "An object out of sight keeps its id for so long; 0 = ids count an image's objects."
    )
    things: tuple[str, ...] = _texts(
        "What \"what do you see?\" asks about, or a class list's name; empty for the model's own words.", live=True
    )

    @property
    def asked_threshold(self) -> float | None:
        """The threshold that the user asks for, 0..1; ``None`` for the model's own."""
        return None if self.threshold == OWN else self.threshold

    def cameras(self) -> tuple[CameraTopics, ...]:
        for name in ("depth_topics", "camera_info_topics"):
            given, wanted = len(getattr(self, name)), len(self.image_topics)
            if given not in (0, wanted):
                raise ValueError(f"{name} must have one topic for each of image_topics, got {given} for {wanted}")
        return super().cameras()

    def _camera(self, name: str, image: str, index: int | None) -> CameraTopics:
        if index is None:
            return CameraTopics(name, image, self.depth_topic, self.camera_info_topic)
        parts = (part[index] if part else "" for part in (self.depth_topics, self.camera_info_topics))
        return CameraTopics(name, image, *parts)


@dataclass(frozen=True)
class SemanticConfig(SegmentationConfig):
    """Settings of the ``semantic`` node: one class a pixel."""

    model: str = _text(
        "denseclip-pocket",
        "Name of the model that segments; a new one is loaded beside the old.",
        required=True,
        live=True,
    )
    classes: tuple[str, ...] = _texts("Classes to tell apart; empty for the model's own or those of class_list.")
    class_list: str = _text("", "A shipped list of classes, such as ade20k, for models without a list of their own.")
    min_confidence: float = _number(
        0.0, 0.0, 1.0, "A pixel stays unlabelled (255) where no class is as probable as this."
    )
    min_area_fraction: float = _number(0.002, 0.0, 1.0, "Smallest object, as a share of the image's pixels.")
