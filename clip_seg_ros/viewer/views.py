# SPDX-License-Identifier: Apache-2.0
"""What the viewer shows: one answered image of a camera, and the things in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import CameraIntrinsics, OrientedBox


@dataclass(frozen=True)
class Thing:
    """An object that a phrase names in one image."""

    prompt: str
    id: int
    """1..255, the value of its pixels in ``View.labels``; 0 for what other things relate to and nobody asked for."""
    score: float
    """0..1."""
    box_px: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max) in the image; the maxima are exclusive."""
    centroid_px: tuple[float, float]
    """(x, y)."""
    area_px: int
    position_m: tuple[float, float, float] | None = None
    """(x, y, z) in ``View.frame``; ``None`` without depth."""
    box_m: OrientedBox | None = None
    """The box around its visible part in ``View.frame``; ``None`` without depth."""


@dataclass(frozen=True)
class View:
    """One image of a camera with what was found in it. Parts that nobody looks at may be missing."""

    camera: str
    """Name of the camera; empty where there is only one."""
    stamp_ns: int
    """When the image was taken, by the clock of its source."""
    arrived_s: float
    """When the image reached this process, by ``time.monotonic()``."""
    rgb: np.ndarray
    """(H, W, 3) uint8; never changed."""
    prompts: tuple[str, ...] = ()
    """The phrases that were asked, found or not."""
    things: tuple[Thing, ...] = ()
    labels: np.ndarray | None = None
    """(H, W) uint8, the id of the thing that each pixel belongs to, 0 where there is none."""
    confidence: np.ndarray | None = None
    """(H, W) float32, the highest probability over the phrases; only where ``Wanted.confidence`` asks for it."""
    frame: str = ""
    """Name of the frame of positions; ``"camera"`` or an optical frame has x right, y down, z forward."""
    cloud: PointCloud | None = None
    """The visible points of the things in ``frame``; only where ``Wanted.space`` asks for it."""
    surroundings: PointCloud | None = None
    """Points of all that the depth shows, a few thousand at most, in ``frame``; ids are 0. Like ``cloud``."""
    intrinsics: CameraIntrinsics | None = None
    camera_pose: np.ndarray | None = None
    """(4, 4) float64, from the optical frame to ``frame``; ``None``: positions are in the optical frame itself."""
    table: tuple[float, float, float, float] | None = None
    """(a, b, c, d) of the plane a x + b y + c z + d = 0 on which things stand, in ``frame``, its unit normal up."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth saying of this image as plain values, each of which may be missing.

    ``latency_ms`` until it was answered, the ``name`` of its file, its ``position`` such as "2 of 7", the ``model``
    that answered, a ``caution`` about it, and ``relations``, texts on how things lie.
    """


@dataclass(frozen=True)
class Wanted:
    """What somebody looks at now. Whatever nobody looks at need not be made, sent or even subscribed to."""

    cameras: frozenset[str] = frozenset()
    """Cameras whose pictures are looked at; empty: nobody looks."""
    confidence: bool = False
    space: bool = False
    """Whether the view in 3D is open."""


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be used."""

    name: str
    licence: str
    megabytes: int
    """Size of its weights."""
    is_here: bool
    """Whether its weights are on this machine."""
    page: str = ""
    """Where its weights come from, for people; never loaded by the viewer."""
