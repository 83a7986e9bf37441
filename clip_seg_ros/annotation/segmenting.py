# SPDX-License-Identifier: Apache-2.0
"""From a source of images to what was found in each of them, for ``clip-seg segment``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from clip_seg_ros.annotation.answers import FRAME, FrameAnswers
from clip_seg_ros.annotation.asked import Asked
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.space.fixed_frame import moved_box, moved_points
from clip_seg_ros.pipeline.tally import Tally
from clip_seg_ros.pipeline.ties import Ties
from clip_seg_ros.sources.bag_tf import BagTransforms, TfError
from clip_seg_ros.sources.frame import DataError, Frame, Frames, Stretch, note
from clip_seg_ros.sources.frames import StillFrames
from clip_seg_ros.types import ObjectRegion, vector3


@dataclass(frozen=True)
class Selected:
    """Which images of a source are answered."""

    every: int = 1
    """One of so many."""
    seconds: float | None = None
    """No more than so many seconds of what is taken one after the other; ``None``: all."""


@dataclass(frozen=True)
class Placing:
    """The frame that positions are given in, other than the camera's own."""

    frame: str
    transforms: BagTransforms


@dataclass(frozen=True)
class Segmented:
    """What was found in one image."""

    index: int
    """Its number among the images of its source, from 0; images that were left out count, too."""
    frame: Frame
    regions: tuple[ObjectRegion, ...]
    """The objects, the best first, as the camera sees them."""
    placed: tuple[ObjectRegion, ...]
    """The same with positions in ``placed_in``; without any where they are not known."""
    placed_in: str
    """The frame of these positions; empty where there are none."""
    ties: Ties
    """What ``regions`` relate to."""
    sentences: dict[str, str]
    """What was found for phrases with places, order or number."""
    best: dict[str, float]
    """The highest probability of each phrase, 0..1."""
    answer: str
    """What a node would answer, for people."""
    seconds: float
    """How long the answer took."""


class Segmenting:
    """Answers sources, one after the other.

    Args:
        predictor: The model.
        asked: What is asked of every image.
        config: The parameters.
    """

    def __init__(self, predictor: Predictor, asked: Asked, config: ReferringConfig) -> None:
        self._predictor, self._asked, self._config = predictor, asked, config
        command = asked.command
        answers = FrameAnswers(lambda: config, is_still=True)
        self.asking = answers.asking(command.prompts, command.references, command.negatives, predictor.spec)

    def images(
        self,
        frames: Frames,
        faults: list[str],
        selected: Selected = Selected(),
        placing: Placing | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Segmented]:
        """Yields what was found in the images of a source.

        Args:
            frames: The source.
            faults: Takes what could not be answered, for people.
            selected: Which images are answered.
            placing: The frame of positions; ``None`` for that of the camera.
            is_stopped: Whether to end after the present image.
        """
        answers = FrameAnswers(lambda: self._config, frames.kind == "still", self._asked.own_thresholds)
        is_first = True
        for index, frame in self._read(frames, faults, selected, is_stopped):
            try:
                yield self._answered(answers, index, frame, placing, faults, is_first)
            except ValueError as error:
                note(faults, f"{frame.name}: {error}")
                continue
            is_first = False
        if answers.fault:
            note(faults, answers.fault)

    @staticmethod
    def _read(
        frames: Frames, faults: list[str], selected: Selected, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[int, Frame]]:
        start_ns: int | None = None
        try:
            for index, frame in _numbered(frames, selected.every):
                start_ns = frame.stamp_ns if start_ns is None else start_ns
                is_timed = selected.seconds is not None and frames.kind != "still"
                if is_stopped() or (is_timed and frame.stamp_ns - start_ns > selected.seconds * 1e9):
                    return
                if index % selected.every == 0:
                    yield index, frame
        except DataError as error:
            note(faults, str(error))

    def _answered(
        self,
        answers: FrameAnswers,
        index: int,
        frame: Frame,
        placing: Placing | None,
        faults: list[str],
        is_first: bool,
    ) -> Segmented:
        begin_s = time.monotonic()
        has_space = frame.depth_m is not None and frame.intrinsics is not None
        transform = _transform(placing, frame, faults) if has_space else None
        up = None if transform is None else vector3(transform[2, :3])
        meant = answers.answer(self._predictor, frame, self.asking, is_first, up)
        regions = tuple(each.region for each in meant.measured)
        tally = Tally(self._asked.prompts)
        tally.add("", regions, meant.maps, meant.sentences)
        placed_in = (frame.frame_id or FRAME) if placing is None else placing.frame
        return Segmented(
            index=index,
            frame=frame,
            regions=regions,
            placed=tuple(_placed(each, transform, placing is not None) for each in regions),
            placed_in=placed_in if has_space and (placing is None or transform is not None) else "",
            ties=meant.ties,
            sentences=meant.sentences,
            best={each: float(values.max(initial=0.0)) for each, values in zip(meant.maps.prompts, meant.maps.values)},
            answer=tally.note(),
            seconds=time.monotonic() - begin_s,
        )


def _numbered(frames: Frames, every: int) -> Iterator[tuple[int, Frame]]:
    """Yields images with their numbers: of pictures in files, only those that are wanted, as no other need be read."""
    if not isinstance(frames, StillFrames):
        yield from enumerate(frames)
        return
    # Those that are damaged count, too.
    yield from frames.between(Stretch(0, len(frames), every=every))


def _transform(placing: Placing | None, frame: Frame, faults: list[str]) -> np.ndarray | None:
    """Returns the transform (4, 4) from the camera; ``None`` if there is none, which is noted."""
    if placing is None:
        return None
    try:
        return placing.transforms.transform(placing.frame, frame.frame_id, frame.stamp_ns)
    except TfError as error:
        note(faults, f"{frame.name} has no positions: {error}")
        return None


def _placed(region: ObjectRegion, transform: np.ndarray | None, is_moved: bool) -> ObjectRegion:
    if not is_moved or region.position_m is None:
        return region
    if transform is None:
        return replace(region, position_m=None, box_m=None)
    position = vector3(moved_points(transform, np.array([region.position_m]))[0])
    return replace(region, position_m=position, box_m=region.box_m and moved_box(transform, region.box_m))
