# SPDX-License-Identifier: Apache-2.0
"""Figures for a memory of objects, against what really stands where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clip_seg_ros.pipeline.stream.tracking import best_pairs

NEAR_M = 0.02
"""The largest error of a position that counts as right, metres."""


@dataclass(frozen=True)
class Standing:
    """A true object that could be remembered."""

    label: int
    name: str
    """The phrase that was asked for it."""
    visible_m: dict[int, tuple[float, float, float]]
    """The position of its visible surface in each image, by stamp, since it stands where it stands now."""
    due: bool
    """Whether it was in view there at least once, large enough to be asked for."""
    axis_m: tuple[float, float]
    """(x, y) of the upright axis on which it stands."""
    radius_m: float
    """The radius of the upright cylinder that contains it."""


@dataclass(frozen=True)
class Kept:
    """A remembered object, as it is compared with the truth."""

    id: int
    name: str
    position_m: tuple[float, float, float]
    last_ns: int


@dataclass
class RecollectionMeter:
    """Counts over all sequences."""

    due: int = 0
    """Objects that stand in their places and were in view there at least once."""
    recalled: int = 0
    """Those of them that the memory holds within ``NEAR_M`` of the surface that its last sighting showed."""
    kept: int = 0
    """Remembered objects."""
    false: int = 0
    """Remembered objects within whose reach nothing of their name stands."""
    doubles: int = 0
    """Remembered objects that stand for the same true object as another one."""
    seen: int = 0
    """Objects that are due and of which the model found a region at least once where they stand."""
    notes: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    def add(self, standing: Sequence[Standing], found: set[int], kept: Sequence[Kept], where: str) -> None:
        """Compares a memory with the truth.

        Args:
            standing: The objects that stand there now, in view or not.
            found: The labels of those that the model found where they stand.
            kept: What is remembered.
            where: Name of the sequence, for the notes.
        """
        pairs = recalled(standing, kept)
        due = [item for item in standing if item.due]
        self.due += len(due)
        self.seen += sum(item.label in found for item in due)
        self.recalled += sum(item.label in pairs for item in due)
        self.kept += len(kept)
        claimed = set(pairs)
        for one in (one for one in kept if one.id not in pairs.values()):
            near = [item.label for item in standing if item.name == one.name and _distance_m(item, one) <= NEAR_M]
            free = [label for label in near if label not in claimed]
            claimed.update(free[:1])
            if not near:
                self.false += 1
                self.notes.append(f"{where}: nothing is where {_place(one)} is remembered")
            elif not free:
                self.doubles += 1
                self.notes.append(f"{where}: {_place(one)} is remembered twice")
        for item in due:
            if item.label not in pairs:
                (x, y), state = item.axis_m, "found it" if item.label in found else "never found it"
                self.notes.append(f"{where}: {item.name} at {x:.2f}, {y:.2f} missing, the model {state}")


def recalled(standing: Sequence[Standing], kept: Sequence[Kept]) -> dict[int, int]:
    """Returns the ids that stand for true objects by their labels: one to one, with errors less than ``NEAR_M``."""
    errors = np.array([[_error_m(item, one) for one in kept] for item in standing]).reshape(len(standing), len(kept))
    return {standing[row].label: kept[column].id for row, column in best_pairs(errors, NEAR_M)}


def _error_m(item: Standing, one: Kept) -> float:
    """Returns how far a remembered position is from the surface that was visible at its time; infinite if none was."""
    true = item.visible_m.get(one.last_ns)
    if item.name != one.name or true is None:
        return np.inf
    return float(np.linalg.norm(np.subtract(true, one.position_m)))


def _distance_m(item: Standing, one: Kept) -> float:
    """Returns the distance of a remembered position from the upright cylinder around an object; 0 inside."""
    return max(0.0, float(np.hypot(*np.subtract(item.axis_m, one.position_m[:2]))) - item.radius_m)


def _place(one: Kept) -> str:
    return f"{one.name} {one.id} at {', '.join(f'{value:.2f}' for value in one.position_m)}"
