# SPDX-License-Identifier: Apache-2.0
"""Measures a memory of objects on simulated sequences in which the camera looks away and things change meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clip_seg_ros.evaluation.metrics.recollection import NEAR_M, Kept, RecollectionMeter, Standing, recalled
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.pipeline.answering import Question, Refinement, answer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.space.fixed_frame import moved_points
from clip_seg_ros.pipeline.space.localization import with_position
from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.sim.absences import AbsenceFrame, absence
from clip_seg_ros.sim.scene import Scene, sample_scene
from clip_seg_ros.sim.sequences import radius_of
from clip_seg_ros.types import CameraFrame, ObjectRegion

FIRST_SEED = 50_000
"""The first seed of the scenes; training never uses them."""
MIN_AREA_FRACTION = 0.002
Asker = Callable[[CameraFrame, Sequence[str], AbsenceFrame], Sequence[ObjectRegion]]
"""Answers phrases with regions; it is given the truth, so that a test may answer it."""


@dataclass
class _Changes:
    """Counts of the objects that were moved or taken away."""

    moved: int = 0
    """Moved objects that were remembered where they stood, and are in view in the first image afterwards."""
    moved_found: int = 0
    """Those of them that the model finds in this image, at their new place."""
    updated: int = 0
    """Moved objects that the memory holds at the new place, and no longer at the old one, after this image."""
    same_id: int = 0
    """Those of them that kept their id."""
    taken: int = 0
    """Objects taken away that were remembered."""
    forgotten: int = 0
    """Those of them that nothing stands for at the end."""
    found_last: int = 0
    """Objects due that the model found, with a right position, in the last image that had them in view."""
    seconds: list[float] = field(default_factory=list)
    """How long each image took."""


class _Truth:
    """What stands where in a sequence, as far as the camera saw it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._visible: dict[int, dict[int, tuple[float, float, float]]] = {}
        self._due: set[int] = set()
        self._found_last: dict[int, bool] = {}
        self.found: set[int] = set()
        """The labels of the objects that the model found where they stand now."""

    def see(self, frame: AbsenceFrame, regions: Sequence[ObjectRegion]) -> None:
        if frame.phase == "away":
            for label in frame.moved | frame.taken:
                self._visible.pop(label, None)
            self._due -= frame.moved | frame.taken
            self.found -= frame.moved | frame.taken
        for label, position in frame.positions_m.items():
            self._visible.setdefault(label, {})[frame.stamp_ns] = position
            is_found = any(_is_at(frame, region, label) for region in regions)
            if is_found:
                self.found.add(label)
            if is_in_view(frame, label):
                self._due.add(label)
                self._found_last[label] = is_found

    def found_last(self) -> int:
        """Returns how many of the objects that are due were found in the last image that had them in view."""
        return sum(self._found_last[label] for label in self._due)

    def standing(self, frame: AbsenceFrame, gone: Collection[int]) -> list[Standing]:
        """Returns the objects but for those that are ``gone``, by their labels."""
        return [
            Standing(
                label,
                item.kind,
                self._visible.get(label, {}),
                label in self._due,
                item.position[:2],
                radius_of(self._scene, item),
            )
            for label, item in enumerate(frame.view.objects, start=1)
            if label not in gone
        ]


def run_recollection(
    predictor: Predictor, separator: Separator, count: int, progress: Callable[[Iterable], Iterable] = iter
) -> list[Figure]:
    """Asks for the kinds of objects in every image of ``count`` sequences, 640x480, and remembers what is found.

    Args:
        predictor: Predictor of the model.
        separator: Takes objects that touch apart.
        count: Number of sequences.
        progress: Wraps the seeds, for a progress bar.

    Raises:
        RendererUnavailable: This machine cannot render.
    """
    refinement = Refinement(separator=separator)

    def ask(camera: CameraFrame, kinds: Sequence[str], _: AbsenceFrame) -> Sequence[ObjectRegion]:
        question = Question(tuple(kinds), min_area_fraction=MIN_AREA_FRACTION)
        return answer(predictor, predictor.encode(camera.rgb), question, camera, refinement).regions

    return run_with(ask, range(FIRST_SEED, FIRST_SEED + 50 * count, 50), progress)


def run_with(
    ask: Asker,
    seeds: Iterable[int],
    progress: Callable[[Iterable], Iterable] = iter,
    say: Callable[[str], None] | None = None,
) -> list[Figure]:
    """Does the same with whatever answers.

    Args:
        ask: Gets an image, the kinds of objects and the truth, and returns the regions.
        seeds: The seeds of the sequences.
        progress: Wraps the seeds, for a progress bar.
        say: Is given a line for each fault.
    """
    meter, changes = RecollectionMeter(), _Changes()
    for seed in progress(seeds):
        _Sequence(seed, changes).run(seed, ask, meter)
    for note in meter.notes if say is not None else ():
        say(note)
    return _figures(meter, changes)


class _Sequence:
    """One sequence with its memory."""

    def __init__(self, seed: int, changes: _Changes) -> None:
        self._truth, self._memory, self._changes = _Truth(sample_scene(seed)), ObjectMemory(), changes
        self._known: dict[int, int] = {}
        self._old: dict[int, tuple[float, float, float]] = {}
        self._phase = "before"

    def run(self, seed: int, ask: Asker, meter: RecollectionMeter) -> None:
        for frame in absence(seed):
            if frame.phase == "away" and self._phase == "before":
                self._known = recalled(self._truth.standing(frame, ()), self._kept())
                self._old = {item.id: item.position_m for item in self._memory.what_was_seen()}
            self._see(frame, ask)
            if frame.phase == "back" and self._phase == "away":
                self._count_moved(frame)
            self._phase = frame.phase
        self._count_taken(frame)
        self._changes.found_last += self._truth.found_last()
        meter.add(self._truth.standing(frame, frame.taken), self._truth.found, self._kept(), f"seed {seed}")

    def _see(self, frame: AbsenceFrame, ask: Asker) -> None:
        view = frame.view
        camera = CameraFrame(view.rgb, frame.stamp_ns, "", view.depth_m, view.intrinsics)
        kinds = tuple(dict.fromkeys(item.kind for item in view.objects))
        self._regions = [with_position(region, camera) for region in ask(camera, kinds, frame)]
        self._truth.see(frame, self._regions)
        start = time.perf_counter()
        self._memory.see(camera, view.camera_to_world, self._regions, kinds)
        self._changes.seconds.append(time.perf_counter() - start)

    def _kept(self) -> list[Kept]:
        return [Kept(item.id, item.phrase, item.position_m, item.last_ns) for item in self._memory.what_was_seen()]

    def _count_moved(self, frame: AbsenceFrame) -> None:
        now = recalled(self._truth.standing(frame, frame.taken), self._kept())
        places = {item.id: item.position_m for item in self._memory.what_was_seen()}
        for label in frame.moved:
            if label not in self._known or not is_in_view(frame, label):
                continue
            id = self._known[label]
            self._changes.moved += 1
            self._changes.moved_found += label in self._truth.found
            left = places.get(id) != self._old[id]
            self._changes.updated += label in now and left
            self._changes.same_id += now.get(label) == id

    def _count_taken(self, frame: AbsenceFrame) -> None:
        places = {item.id: item.position_m for item in self._memory.what_was_seen()}
        for label in frame.taken & self._known.keys():
            id = self._known[label]
            self._changes.taken += 1
            self._changes.forgotten += places.get(id) != self._old[id]


def is_in_view(frame: AbsenceFrame, label: int) -> bool:
    """Returns whether so much of an object is visible that it is to be found."""
    labels = frame.view.labels
    return bool(np.count_nonzero(labels == label) >= MIN_AREA_FRACTION * labels.size)


def _is_at(frame: AbsenceFrame, region: ObjectRegion, label: int) -> bool:
    """Returns whether a region is an object under its name: its position is right."""
    if region.position_m is None or region.prompt != frame.view.objects[label - 1].kind:
        return False
    position = moved_points(frame.view.camera_to_world, np.array(region.position_m))
    return float(np.linalg.norm(position - frame.positions_m[label])) < NEAR_M


def _figures(meter: RecollectionMeter, changes: _Changes) -> list[Figure]:
    values = {
        "recalled": (meter.recalled / max(1, meter.due), "share of objects that were in view"),
        "ceiling": (meter.seen / max(1, meter.due), "share of objects that the model found at least once"),
        "ceiling_last": (changes.found_last / max(1, meter.due), "share that it found in the last image with them"),
        "false": (meter.false / max(1, meter.kept), "share of remembered objects"),
        "merged": (1 - meter.doubles / max(1, meter.kept), "share of remembered objects that are there once"),
        "moved_updated": (changes.updated / max(1, changes.moved), "share of moved objects, after one image"),
        "moved_ceiling": (changes.moved_found / max(1, changes.moved), "share that the model found in this image"),
        "moved_same_id": (changes.same_id / max(1, changes.moved), "share of moved objects"),
        "taken_forgotten": (changes.forgotten / max(1, changes.taken), "share of objects taken away"),
        "ms": (1000 * float(np.median(changes.seconds)), "ms an image, median"),
        "objects": (meter.due, "objects that were in view"),
        "moved": (changes.moved, "objects"),
        "taken": (changes.taken, "objects"),
    }
    return [Figure(f"memory.{key}", float(f"{value:.4g}"), unit) for key, (value, unit) in values.items()]
