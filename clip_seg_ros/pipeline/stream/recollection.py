# SPDX-License-Identifier: Apache-2.0
"""Remembers the objects that a moving camera saw: what they are called, where they are and when they were seen.

Everything is kept in a frame that does not move with the camera. In each image,

1. the objects that are found are assigned to the remembered ones of the same or a nested name, one to one, by where
   they are, by whether they cover the surface that was seen before, and by their colours;
2. a remembered object that was asked for and not found, and through whose place the camera looks at something behind
   it, is gone from there. If an object of its name and colours was found elsewhere, it has moved there;
3. otherwise it is forgotten. What is hidden, out of view or not asked for is kept;
4. what is left of the found objects is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clip_seg_ros.commands.meaning import covers, related
from clip_seg_ros.pipeline.space.fixed_frame import inverse, moved_points, rigid
from clip_seg_ros.pipeline.space.free_space import Sighting, look_for
from clip_seg_ros.pipeline.space.oriented_box import MIN_POINTS
from clip_seg_ros.pipeline.stream.remembered import BestView, RememberedObject, best_view, worth_of
from clip_seg_ros.pipeline.stream.things import SURFACE_POINTS, Thing, evenly, is_same, is_whole, things_of
from clip_seg_ros.pipeline.stream.tracking import best_pairs, unlikeness
from clip_seg_ros.types import CameraFrame, ObjectRegion, vector3

PLACE_WEIGHT, COVER_WEIGHT, LOOKS_WEIGHT = 0.4, 0.4, 0.2
MAX_COST = 0.75
"""The cost from which an object is not the remembered one. It lies in 0..1."""
LEAST_SIZE_M = 0.03
"""Smaller things are assigned as if they had this size, because of the errors of depth and of transforms."""
MAX_UNLIKENESS = 0.7
"""The Hellinger distance of the colours up to which an object elsewhere may be the one that is gone."""
FREE_SHARE, IN_VIEW_SHARE = 0.3, 0.4
"""Share of the surface in view that must be seen through before an object counts as gone, and share of the surface that
must be in view. The first is far below 1, because the foot of a thing is no farther from the camera than the table that
is seen in its place; of things that are there, 0.04 were seen through at most."""
STILL_FREE_SHARE = 0.1
"""Share of the surface that may be seen through if an object stayed where it was."""
PART_SHARE = 0.4
"""Share of the surface in plain view that a region must cover to say where the object is. It is less than one half, so
that two objects that were once seen as one can part."""
PLAIN_SHARE = 0.35
"""Share of the surface that is seen where it was if an object is in plain view."""
LOOKS_GAIN = 0.3


@dataclass(frozen=True)
class Noticed:
    """What one image changed, as ids of remembered objects."""

    ids: tuple[int | None, ...]
    """The object of each region, in their order; ``None`` for a region without a position."""
    new: frozenset[int]
    moved: frozenset[int]
    """Those that were found at another place after their own was seen empty."""
    forgotten: frozenset[int]
    """Those that are gone, or that had to make room."""


class ObjectMemory:
    """Keeps the objects that were seen, in a fixed frame. Use it from one thread.

    A stamp that lies before the last one, as after a recording starts over, forgets nothing: objects keep the time of
    the image that showed them last, whatever it is, and ages are never negative. Which object was seen least recently
    follows from the order of the images and not from their stamps.

    Args:
        max_objects: The largest number of objects; beyond it, the least recently seen are forgotten.

    Raises:
        ValueError: ``max_objects`` is less than 1.
    """

    def __init__(self, max_objects: int = 256) -> None:
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self.max_objects = max_objects
        self._objects: dict[int, RememberedObject] = {}  # the least recently seen first
        self._next_id = 1

    @classmethod
    def holding(cls, objects: Iterable[RememberedObject], next_id: int = 1, max_objects: int = 256) -> ObjectMemory:
        """Makes a memory that holds ``objects``, the least recently seen first; new ids begin at ``next_id``."""
        memory = cls(max_objects)
        memory._objects = {item.id: item for item in objects}
        memory._next_id = max([next_id, *(id + 1 for id in memory._objects)])
        memory._make_room()
        return memory

    @property
    def next_id(self) -> int:
        """The id that the next new object gets."""
        return self._next_id

    def __len__(self) -> int:
        return len(self._objects)

    def what_was_seen(self, doubtful: bool = False) -> list[RememberedObject]:
        """Returns the objects, the most recently seen first.

        Args:
            doubtful: Whether to include those that are ``RememberedObject.is_doubtful``. They are kept, because further
                sightings may confirm them.
        """
        return [item for item in reversed(self._objects.values()) if doubtful or not item.is_doubtful]

    def recall(self, phrase: str, doubtful: bool = False) -> list[RememberedObject]:
        """Returns the objects that a phrase asks for, the one with the best score first.

        "cup" recalls what was found as "red cup", too. "red cup" does not recall what was found as "cup", because
        nobody asked whether it is red.

        Args:
            phrase: The phrase.
            doubtful: As in ``what_was_seen``.
        """
        found = [item for item in self.what_was_seen(doubtful) if covers(phrase, item.phrase)]
        return sorted(found, key=lambda item: -item.score)

    def forget(self, id: int) -> bool:
        """Forgets one object; returns whether it was remembered."""
        return self._objects.pop(id, None) is not None

    def clear(self) -> None:
        """Forgets everything; ids are not used again."""
        self._objects.clear()

    def see(
        self,
        frame: CameraFrame,
        camera_to_fixed: np.ndarray,
        regions: Sequence[ObjectRegion],
        asked: Iterable[str],
        features: Mapping[int, np.ndarray] | None = None,
    ) -> Noticed:
        """Takes in one image.

        Args:
            frame: The image. Without depth or intrinsics, nothing is found to be gone.
            camera_to_fixed: (4, 4), the transform from the camera's optical frame to the fixed frame at the image's
                stamp, metres.
            regions: What was found in the image, with positions in the optical frame. Those without are left out.
            asked: All phrases that were asked about the image, those that found nothing included.
            features: (D,) arrays by the ids of regions, if the model gives any.

        Raises:
            ValueError: The transform is not rigid, or a region or the intrinsics are of another size than the image.
        """
        to_fixed = rigid(camera_to_fixed)
        things = things_of(frame, to_fixed, regions, features or {})
        known = list(self._objects.values())
        sights = _sights(known, frame, inverse(to_fixed))
        pairs = {column: row for row, column in best_pairs(_costs(known, sights, things), MAX_COST)}
        asked = tuple(dict.fromkeys(asked))
        unseen = [row for row in range(len(known)) if row not in pairs.values()]
        missing = [row for row in unseen if any(covers(phrase, known[row].phrase) for phrase in asked)]
        gone = [row for row in missing if _is_empty(sights[row])]
        fresh = [column for column in range(len(things)) if column not in pairs]
        moves = best_pairs(_move_costs([known[row] for row in gone], [things[column] for column in fresh]), 1.0)
        moved = {fresh[column]: gone[row] for row, column in moves}
        ids: dict[int, int] = {}
        for column, thing in enumerate(things):
            row = pairs.get(column, moved.get(column))
            was = None if row is None else known[row]
            if was is not None and sights[row].share(sights[row].free) <= STILL_FREE_SHARE:
                thing = _completed(thing, was, sights[row])
            ids[thing.region.id] = self._keep(thing, was, frame)
        lost = {known[row].id for row in gone} - {known[row].id for row in moved.values()}
        for id in lost:
            del self._objects[id]
        for row in set(missing) - set(gone):
            if sights[row].share(sights[row].there) >= PLAIN_SHARE:
                self._objects[known[row].id] = replace(known[row], missed=known[row].missed + 1)
        lost |= self._make_room()
        new = frozenset(ids.values()) - {item.id for item in known} - lost
        of_region = _with_doubles(regions, things, ids)
        return Noticed(of_region, new, frozenset(known[row].id for row in moved.values()), frozenset(lost))

    def _keep(self, thing: Thing, was: RememberedObject | None, frame: CameraFrame) -> int:
        """Writes down a sighting; returns the object's id."""
        stamp = frame.stamp_ns
        looks, view = thing.looks, _better_view(was, thing.region, frame.rgb)
        if was is None:
            id, first_ns, phrase = self._next_id, stamp, thing.phrase
            self._next_id += 1
        else:
            id, first_ns = was.id, min(was.first_ns, stamp)
            phrase = thing.phrase if covers(was.phrase, thing.phrase) else was.phrase
            looks = was.looks + np.float32(LOOKS_GAIN) * (looks - was.looks)
            self._objects.pop(id)
        self._objects[id] = RememberedObject(
            id=id,
            phrase=phrase,
            position_m=thing.position_m,
            box_m=thing.box_m,
            first_ns=first_ns,
            last_ns=stamp,
            sightings=1 if was is None else was.sightings + 1,
            whole=is_whole(thing.region) + (0 if was is None else was.whole),
            missed=0 if was is None else was.missed,
            score=thing.region.score,
            surface_m=thing.surface_m,
            looks=looks,
            view=view,
            features=thing.features if thing.features is not None or was is None else was.features,
        )
        return id

    def _make_room(self) -> set[int]:
        """Forgets the least recently seen objects beyond the largest number; returns their ids."""
        over = list(self._objects)[: max(0, len(self._objects) - self.max_objects)]
        for id in over:
            del self._objects[id]
        return set(over)


def _with_doubles(
    regions: Sequence[ObjectRegion], things: Sequence[Thing], ids: Mapping[int, int]
) -> tuple[int | None, ...]:
    """Returns the object of every region, those included that are another region under another name."""

    def of(region: ObjectRegion) -> int | None:
        if region.id in ids or region.position_m is None:
            return ids.get(region.id)
        return next((ids[thing.region.id] for thing in things if is_same(region, thing.region)), None)

    return tuple(of(region) for region in regions)


def _sights(known: Sequence[RememberedObject], frame: CameraFrame, to_camera: np.ndarray) -> list[Sighting]:
    """Returns what the image shows at the surface of each remembered object."""
    counts = [len(item.surface_m) for item in known]
    points = np.concatenate([np.empty((0, 3), np.float32), *(item.surface_m for item in known)])
    if frame.depth_m is None or frame.intrinsics is None:
        nothing = np.zeros(len(points), np.bool_)
        whole = Sighting(np.zeros((len(points), 2), np.int64), nothing, nothing, nothing)
    else:
        whole = look_for(moved_points(to_camera, points), frame.depth_m, frame.intrinsics)
    ends = np.cumsum(counts)
    return [whole.part(slice(end - count, end)) for count, end in zip(counts, ends.tolist())]


def _costs(known: Sequence[RememberedObject], sights: Sequence[Sighting], things: Sequence[Thing]) -> np.ndarray:
    """Returns the cost of assigning each thing to each remembered object, infinite for other names and out of reach."""
    costs = np.full((len(known), len(things)), np.inf)
    for row, (item, sight) in enumerate(zip(known, sights, strict=True)):
        for column, thing in enumerate(things):
            away = float(np.linalg.norm(np.subtract(item.position_m, thing.position_m)))
            reach = max(LEAST_SIZE_M, item.size_m, thing.size_m)
            if away <= reach and related(item.phrase, thing.phrase):
                costs[row, column] = (
                    PLACE_WEIGHT * away / reach
                    + COVER_WEIGHT * (1.0 - _covered(sight, sight.inside, thing.region))
                    + LOOKS_WEIGHT * unlikeness(item.looks, thing.looks)
                )
    return costs


def _is_empty(sight: Sighting) -> bool:
    """Returns whether the place of an object is seen to be empty."""
    in_view = sight.share(sight.inside)
    return in_view >= IN_VIEW_SHARE and sight.share(sight.free) >= FREE_SHARE * in_view


def _completed(thing: Thing, was: RememberedObject, sight: Sighting) -> Thing:
    """Completes a thing that stayed where it was by what is known of its surface.

    If its region is only a part of what is seen of the remembered surface, this surface says where it is.
    """
    # The other sides of an object are hidden now, but they would be seen through if it were gone.
    parts = thing.surface_m, was.surface_m[~sight.free]
    whole = replace(thing, surface_m=np.concatenate([evenly(part, SURFACE_POINTS) for part in parts]))
    if np.count_nonzero(sight.there) < MIN_POINTS or _covered(sight, sight.there, thing.region) >= PART_SHARE:
        return whole
    return replace(whole, position_m=vector3(np.median(was.surface_m[sight.there], axis=0)), box_m=was.box_m)


def _covered(sight: Sighting, points: np.ndarray, region: ObjectRegion) -> float:
    """Returns the share of some points (N,) of a surface that a region covers; one half if there are none."""
    rows, columns = sight.pixels[points].T
    if len(rows) == 0:
        return 0.5
    x_min, y_min, x_max, y_max = region.box_px
    near = (columns >= x_min) & (columns < x_max) & (rows >= y_min) & (rows < y_max)
    return float(np.count_nonzero(region.inside[rows[near] - y_min, columns[near] - x_min])) / len(rows)


def _move_costs(gone: Sequence[RememberedObject], things: Sequence[Thing]) -> np.ndarray:
    """Returns the cost of taking each new thing for each object that is gone from its place: how little alike they are.

    It is infinite for other names and colours.
    """
    costs = np.full((len(gone), len(things)), np.inf)
    for row, item in enumerate(gone):
        for column, thing in enumerate(things):
            unlike = unlikeness(item.looks, thing.looks)
            if unlike <= MAX_UNLIKENESS and related(item.phrase, thing.phrase):
                costs[row, column] = unlike
    return costs


def _better_view(was: RememberedObject | None, region: ObjectRegion, rgb: np.ndarray) -> BestView:
    if was is not None and was.view.worth >= worth_of(region):
        return was.view
    return best_view(region, rgb)
