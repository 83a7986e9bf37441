# SPDX-License-Identifier: Apache-2.0
"""What the tools of ``clip-seg mcp`` answer. The descriptions are read by assistants; the package mcp is needed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

_XYZ = "x, y and z in metres, in the frame that `frame` names"
Metres = Annotated[list[float], Field(min_length=3, max_length=3)]
Frame = Annotated[
    str,
    Field(
        description="name of the coordinate frame of all positions in this answer. In a camera's optical frame (its "
        "name ends with `optical_frame`) x points to the right of the picture, y down and z away from the camera. In "
        "other frames of ROS, such as `map` or `base_link`, z points up"
    ),
]
Age = Annotated[float, Field(description="how many seconds ago the picture was taken in which this was seen")]


class Thing(BaseModel):
    """One thing that was found in a picture."""

    phrase: str = Field(description="the phrase that found it")
    score: float = Field(description="how sure the model is, 0 to 1")
    box_px: list[int] | None = Field(
        description="x_min, y_min, x_max, y_max in pixels of the camera's image; null for a thing from memory"
    )
    centroid_px: list[float] | None = Field(description="x and y of its middle, in pixels; null for one from memory")
    area_px: int | None = Field(description="the number of its pixels; null for one from memory")
    position_m: Metres | None = Field(
        description=f"the middle of its visible surface: {_XYZ}; null where the camera measures no depth"
    )
    size_m: Metres | None = Field(
        description="the sides of its visible surface's box in metres, the longest first; null where it is not known"
    )


class Segmented(BaseModel):
    """The things of one picture."""

    message: str = Field(description="what was found of each phrase, and cautions, in words")
    phrases: list[str] = Field(description="the phrases as they were understood")
    things: list[Thing] = Field(description="all things that the phrases name, the empty list if there are none")
    frame: Frame
    age_s: Age
    camera: str = Field(description="the camera that saw them; empty where there is only one")


class Found(BaseModel):
    """Where a thing is, or that it was not found in time."""

    found: bool
    message: str = Field(
        description="what was found, or how many images were looked at in vain, and cautions, in words"
    )
    thing: Thing | None = Field(description="the best of the things that fit; null if none was found")
    frame: Frame
    age_s: Age | None
    from_memory: bool = Field(description="true: it is not in view now, but was seen so many seconds ago")
    camera: str = Field(description="the camera that saw it; empty where there is only one")


class Remembered(BaseModel):
    """A thing that was seen before, whether or not it is in view now."""

    id: int = Field(description="the same for the same thing as long as it is remembered")
    phrase: str = Field(description="the phrase that found it")
    score: float = Field(description="how sure the model was at the last sighting, 0 to 1")
    sightings: int = Field(description="the number of images in which it was found")
    first_seen_s_ago: float
    last_seen_s_ago: float
    position_m: Metres = Field(description=f"the middle of its visible surface at the last sighting: {_XYZ}")
    size_m: Metres | None = Field(description="the sides of its visible surface's box in metres, the longest first")
    camera: str = Field(description="the camera that saw it last; empty where there is only one")


class Recalled(BaseModel):
    """What is remembered."""

    message: str = Field(description="what is remembered, in words")
    frame: Frame
    things: list[Remembered] = Field(description="the best first; the empty list if nothing is remembered")


class Described(BaseModel):
    """What one picture holds."""

    message: str = Field(description="the things with their scores, 0 to 1, and their numbers, in words")
    names: list[str] = Field(description="the names of the things, each of which `find` and `segment` understand")


class Status(BaseModel):
    """One answer of the node to a command."""

    state: Literal["accepted", "found", "not found", "done"]
    message: str = Field(description="the node's own words")


class Said(BaseModel):
    """What became of a command."""

    state: Literal["accepted", "found", "not found", "done"] = Field(
        description="that of the last status. accepted: it is in force, and nothing else was asked"
    )
    message: str = Field(description="the node's own words in the last status")
    phrases: list[str] = Field(description="the phrases as they were understood")
    found: list[str] = Field(description="those of them that the image holds")
    statuses: list[Status] = Field(description="all statuses, the first one first")


class Looked(BaseModel):
    """What is said of a picture."""

    frame: str = Field(description="the camera's frame")
    age_s: Age
    width_px: int = Field(description="width of the picture that comes with this, in pixels")
    height_px: int
