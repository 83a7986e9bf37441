# SPDX-License-Identifier: Apache-2.0
"""Asks a node what somebody points at: its mask and position, the name that fits best, and what it is closest to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, RegionOfInterest

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.observers.asking import Asking
from clip_seg_ros.nodes.observers.seen_things import same_thing, thing_of
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.sources.image_decoding import samples
from clip_seg_ros.srv import Segment, SegmentAt
from clip_seg_ros.viewer.source import Pointed, Refused
from clip_seg_ros.viewer.space_around import closest
from clip_seg_ros.viewer.views import Thing, View
from clip_seg_ros.zoo.embedded_files import EMBEDDED_FILES

_PATIENCE_S = 15.0
"""The time in seconds that the node may take to find the thing."""
_NAMING_S = 10.0
"""The time in seconds that names may take on a slow machine; without an answer, the thing has none."""
_LEAST_IOU = 0.4
"""The least intersection over union of a thing's mask and that of its name."""
_AT_ONCE, _MOST_NAMES = 16, 48
"""How many names the node takes at once, and how many are tried at most."""


class Pointing:
    """Asks one node.

    Args:
        node: Node that asks.
        clients: Returns the client of a service of the node that answers, by its type and name.
        given_up: Set when nobody wants an answer any more.
    """

    def __init__(self, node: Asking, clients: Any, given_up: threading.Event) -> None:
        self._node, self._clients, self._given_up = node, clients, given_up

    def point(
        self,
        camera: str,
        spot_px: Sequence[float],
        teach_as: str,
        view: View | None,
        config: ReferringConfig,
        model: str,
    ) -> Pointed:
        """Returns the thing at a point or in a box, as ``Source.point`` does.

        Args:
            camera: Name of the camera.
            spot_px: Two numbers for a point, four for a box.
            teach_as: Its name from now on; empty: none.
            view: The newest answered image of the camera.
            config: The parameters of the node.
            model: Name of the model that serves.

        Raises:
            Refused: The node refuses, or does not answer.
        """
        answer: SegmentAt.Response = self._call(SegmentAt, "segment_at", _request(camera, spot_px, teach_as))
        if answer is None:
            raise Refused(f"the node did not say within {_PATIENCE_S:g} s what is there: it may be busy; try again")
        if not answer.success:
            raise Refused(answer.message)
        mask = samples(answer.mask, "u1") > 0
        same = None if view is None else same_thing(mask, view.labels, view.things, _LEAST_IOU)
        name = answer.object.prompt if teach_as.strip() else same.prompt if same else ""
        if not name and view is not None and view.rgb.shape[:2] == mask.shape:
            name = self._name_of(mask, view.rgb, config, model)
        thing = replace(thing_of(answer.object), prompt=name, id=0)
        others = [] if view is None or view.frame != answer.position_frame else view.things
        taught = f'; "{name}" now means it' if teach_as.strip() else ""
        return Pointed(
            message=f"{name or 'a thing'}{_place(thing, answer)}{taught}",
            thing=thing,
            frame=answer.position_frame,
            labels=mask,
            nearest=closest(thing.position_m, [other for other in others if other.id and other is not same]),
        )

    def _name_of(self, mask: np.ndarray, rgb: np.ndarray, config: ReferringConfig, model: str) -> str:
        """Returns the name that fits a mask (H, W) of an image best; empty if none does."""
        deadline_s = time.monotonic() + _NAMING_S
        best = ""
        for names in _questions(config, model):
            best = self._best_of(names, mask, rgb, deadline_s) or best
        if best in KINDS and model in EMBEDDED_FILES and not config.things:
            best = self._best_of([f"{color} {best}" for color in COLORS], mask, rgb, deadline_s) or best
        return best

    def _best_of(self, names: Sequence[str], mask: np.ndarray, rgb: np.ndarray, deadline_s: float) -> str:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0.0:
            return ""
        request = Segment.Request(image=fill_image(Image(), rgb, "rgb8"), prompts=list(names))
        answer: Segment.Response | None = self._call(Segment, "segment", request, left_s)
        if answer is None or not answer.success:
            return ""
        found = same_thing(mask, samples(answer.labels, "u1"), [*map(thing_of, answer.objects)], _LEAST_IOU)
        return found.prompt if found else ""

    def _call(self, kind: type, name: str, request: Any, patience_s: float = _PATIENCE_S) -> Any:
        client = self._clients(kind, name)
        if not self._node.meet(client.service_is_ready, self._given_up):
            raise Refused(f"there is no service {client.srv_name}: only an active node `referring` offers it")
        return self._node.call(client, request, patience_s, self._given_up)


def _request(camera: str, spot_px: Sequence[float], teach_as: str) -> SegmentAt.Request:
    request = SegmentAt.Request(camera=camera, teach_as=teach_as)
    if not all(map(math.isfinite, spot_px)) or len(spot_px) not in (2, 4):
        raise Refused("point at a spot with two numbers, or around a thing with four")
    if len(spot_px) == 2:
        request.x, request.y = map(float, spot_px)
        return request
    x_min, y_min, x_max, y_max = (max(0, round(value)) for value in spot_px)
    if x_max <= x_min or y_max <= y_min:
        raise Refused("the box is empty: draw it around the thing")
    request.box = RegionOfInterest(x_offset=x_min, y_offset=y_min, width=x_max - x_min, height=y_max - y_min)
    return request


def _questions(config: ReferringConfig, model: str) -> Iterator[Sequence[str]]:
    """Yields the names that are tried, so many together as the node takes."""
    names: Sequence[str] = config.things
    if len(names) == 1 and names[0] in class_list_names():
        names = class_list(names[0])
    if not names and model in EMBEDDED_FILES:
        names = KINDS
    for first in range(0, min(len(names), _MOST_NAMES), _AT_ONCE):
        yield names[first : first + _AT_ONCE]


def _place(thing: Thing, answer: SegmentAt.Response) -> str:
    if thing.position_m is None:
        return ", where is not known without depth"
    if answer.position_frame == answer.mask.header.frame_id:
        return f", {math.hypot(*thing.position_m):.3f} m away"
    return f", at ({', '.join(f'{value:.3f}' for value in thing.position_m)}) m in {answer.position_frame}"
