# SPDX-License-Identifier: Apache-2.0
"""A run of ``clip-seg segment``: sources are answered one after the other, and what was found is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip_seg_ros.annotation.asked import asked_of
from clip_seg_ros.annotation.segment_files import OVERLAYS, SegmentFiles, free_folder, prepared_folder
from clip_seg_ros.annotation.segment_sources import NamedSource, named_sources
from clip_seg_ros.annotation.segment_summary import PromptCount, SourceCount, of_one_image
from clip_seg_ros.annotation.segmenting import Segmented, Segmenting, Selected
from clip_seg_ros.commands.errors import CommandError
from clip_seg_ros.config import AUTO, ReferringConfig
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.settings import OWN
from clip_seg_ros.sources.frame import Frames, note
from clip_seg_ros.zoo.caution import in_corner, in_options
from clip_seg_ros.zoo.factory import full_name

_MOST_NAMED = 5
"""For how many sources the report says what to look at."""
_MEASURED_FROM = 500
"""The number of images from which it pays to measure, once, which engine is the fastest here."""


@dataclass(frozen=True)
class Options:
    """What somebody typed."""

    sources: tuple[str, ...]
    topics: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    command: str = ""
    threshold: float | None = None
    every: int = 1
    seconds: float | None = None
    frame: str = ""
    out: Path | None = None
    overwrite: bool = False
    video: bool = False
    overlays: bool = True
    masks: bool = True
    model: str = AUTO
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"


class Run:
    """Everything from what was typed to what is reported.

    Args:
        options: What was typed.

    Raises:
        CommandError: What to look for is not understood.
        DataError: A source does not exist, or none of them can be opened.
        ValueError: There is no such model.
        WeightsError: Its weights are not here.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._asked = asked_of(options.prompts, options.command)
        command = self._asked.command
        if command.model is not None and options.model not in (AUTO, command.model):
            raise CommandError(f"the command asks for the model {command.model}, and --model for {options.model}")
        self.model = full_name(command.model or options.model)
        self._counts: list[SourceCount] = []
        self._opened: list[tuple[NamedSource, Frames, SourceCount]] = []
        for source in named_sources(options.sources, options.topics):
            self._open(source)
        if not self._opened:
            raise DataError("; ".join(self.faults))
        self._only: Segmented | None = None
        self.out = Path()
        self.was_stopped = False
        self.load_s = self.seconds = 0.0

    def _open(self, source: NamedSource) -> None:
        prompts = {each: PromptCount() for each in self._asked.prompts}
        count = SourceCount(source.name, source.name, source.specs, prompts)
        self._counts.append(count)
        try:
            frames = source.open()
        except (DataError, OSError) as error:
            count.faults.append(str(error))
            return
        count.title = frames.title
        self._opened.append((source, frames, count))

    @property
    def _threshold(self) -> float | None:
        """The threshold that was asked for, 0..1."""
        given = self._options.threshold
        return self._asked.command.threshold if given is None else given

    @property
    def images(self) -> int:
        """The number of images that were answered."""
        return sum(each.images for each in self._counts)

    @property
    def faults(self) -> list[str]:
        """What could not be read or answered, for people."""
        return [fault for each in self._counts for fault in each.faults]

    def load(self) -> None:
        """Loads the model, and makes the folder of the results.

        Raises:
            ValueError: The model, the device or the engine cannot be had.
            CommandError: The phrases are probably misspelt.
            WeightsError: The weights are damaged.
            DataError: The folder of the results cannot be used.
        """
        options, begin_s = self._options, time.monotonic()
        # The first picture of somebody new must not wait until engines were compared.
        is_long = sum(len(frames) // options.every for _, frames, _ in self._opened) >= _MEASURED_FROM
        self.predictor = Predictor.from_name(
            self.model, options.device, precision=options.precision, engine=options.engine, at_once=not is_long
        )
        if fault := self._asked.refusal(self.predictor.spec):
            raise CommandError(fault)
        config = ReferringConfig.from_mapping({"threshold": OWN if self._threshold is None else self._threshold})
        self._segmenting = Segmenting(self.predictor, self._asked, config)
        out = options.out
        self.out = free_folder(Path(".")) if out is None else prepared_folder(out.expanduser(), options.overwrite)
        self.out.mkdir(parents=True, exist_ok=True)
        self.load_s = time.monotonic() - begin_s

    def cautions(self) -> list[str]:
        """Returns how the phrases were understood, and what the weights do not know, for people."""
        said = self._asked.note(self.predictor.spec, self._segmenting.asking)
        return [text for text in (said, in_options(self.predictor.spec)) if text]

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Answers all images until ``is_stopped``.

        Raises:
            DataError: A video cannot be written.
            OSError: The disk is full, or the like.
        """
        options, begin_s = self._options, time.monotonic()
        corner = in_corner(self.predictor.spec)
        with SegmentFiles(self.out, self._asked.prompts, corner, options.overlays, options.masks) as files:
            for source, frames, count in self._opened:
                if is_stopped():
                    break
                with ExitStack() as stack:
                    self._answer(source, frames, count, files, stack, is_stopped)
                # Somebody ends a webcam by hand, and nothing is missing.
                is_last = count is self._counts[-1]
                self.was_stopped = is_stopped() and not (frames.kind == "live" and is_last)
            files.end()
            self.seconds = time.monotonic() - begin_s
            files.summarize(self._summary())

    def _answer(
        self,
        source: NamedSource,
        frames: Frames,
        count: SourceCount,
        files: SegmentFiles,
        stack: ExitStack,
        is_stopped: Callable[[], bool],
    ) -> None:
        options = self._options
        try:
            placing = source.placing(options.frame, stack)
        except DataError as error:
            note(count.faults, str(error))
            placing = None
        is_video = frames.kind == "live" or (frames.kind == "recorded" and (options.video or not source.is_bag))
        files.begin(source.name, frames.kind, source.base, is_video, source.is_folder)
        count.name = files.source
        selected = Selected(options.every, options.seconds)
        images = self._segmenting.images(frames, count.faults, selected, placing, is_stopped)
        for segmented in self._shown(images, frames):
            looked_at = files.add(segmented)
            count.looked_at = count.looked_at or looked_at
            count.add(segmented)
            self._only = segmented
        count.notes += [each for each in frames.notes if each not in count.notes]
        for fault in frames.faults:
            note(count.faults, fault)
        # The reader says that a recording is cut off, and then where.
        count.faults[:] = [one for one in count.faults if not any(_says_more(other, one) for other in count.faults)]

    def _shown(self, images: Iterator[Segmented], frames: Frames) -> Iterator[Segmented]:
        total = -(-len(frames) // self._options.every) if self._options.seconds is None else 0
        return iter(
            tqdm(images, desc=frames.title, total=total or None, unit="picture", disable=total == 1, leave=False)
        )

    def _summary(self) -> dict[str, Any]:
        spec = self.predictor.spec
        command = self._asked.command
        return {
            "ended": "stopped" if self.was_stopped else "in part" if self.faults else "whole",
            "images": self.images,
            "objects": sum(each.objects for each in self._counts),
            "prompts": list(command.prompts),
            "negatives": list(command.negatives),
            "command": self._options.command,
            "frame": self._options.frame,
            "model": self.model,
            "threshold": spec.threshold if self._threshold is None else self._threshold,
            "own_thresholds": dict(self._asked.own_thresholds),
            "engine": str(self.predictor.chosen),
            "device": str(self.predictor.device),
            "caution": in_corner(spec),
            "seconds": round(self.seconds, 3),
            "seconds_of_loading": round(self.load_s, 3),
            "sources": [each.to_dict() for each in self._counts],
        }

    def report(self) -> list[str]:
        """Returns what was found and where to look, for people."""
        lines: list[str] = []
        if self.images == 1 and self._only is not None:
            height, width = self._only.frame.rgb.shape[:2]
            lines.append(f"{self._only.frame.name}, {width} x {height} pixels")
            lines += of_one_image(self._only, self._asked.prompts)
        else:
            lines += [line for each in self._counts if each.images for line in each.lines()]
        answered_s = sum(each.seconds for each in self._counts)
        lines.append(
            f"answered in {answered_s:.2f} s by {self.model} ({self.predictor.chosen.engine} on "
            f"{self.predictor.device}), which took {self.load_s:.1f} s to load"
        )
        looked_at = [self._look_at(each) for each in self._counts if each.looked_at]
        lines += [f"look at {text}" for text in looked_at[:_MOST_NAMED]]
        if len(looked_at) > _MOST_NAMED:
            lines.append(f"... and at those of {len(looked_at) - _MOST_NAMED} other sources")
        lines.append(f"everything is in {self.out}: {', '.join(sorted(path.name for path in self.out.iterdir()))}")
        lines += [f"{each.title}: {text}" for each in self._counts for text in each.notes]
        return lines

    def _look_at(self, count: SourceCount) -> str:
        path = self.out / count.looked_at
        if count.images == 1 or path.suffix != ".jpg":
            return str(path)
        own = self.out / OVERLAYS / count.name
        folder = own if own.is_dir() else path.parent
        return f"{folder}/ ({count.images} pictures, {path.relative_to(folder)} is the first)"


def _says_more(one: str, other: str) -> bool:
    return one != other and one.startswith(other)
