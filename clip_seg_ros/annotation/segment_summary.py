# SPDX-License-Identifier: Apache-2.0
"""What a run of ``clip-seg segment`` found, counted, and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clip_seg_ros.annotation.segmenting import Segmented
from clip_seg_ros.types import ObjectRegion


@dataclass
class PromptCount:
    """How often a phrase was found in a source."""

    images: int = 0
    """The number of images that show it."""
    objects: int = 0
    """The number of objects in all images together."""
    most: int = 0
    """The largest number in one image."""
    score: float = 0.0
    """The best score of an object, 0..1."""
    best: float = 0.0
    """The highest probability of any place in any image, 0..1."""
    answer: str = ""
    """What was said of places, order or number in the last image."""


@dataclass
class SourceCount:
    """What became of a source."""

    name: str
    title: str
    specs: Sequence[str]
    prompts: dict[str, PromptCount]
    images: int = 0
    objects: int = 0
    seconds: float = 0.0
    """How long the answers took together."""
    notes: list[str] = field(default_factory=list)
    """What the source lacks, for people."""
    faults: list[str] = field(default_factory=list)
    """What could not be read or answered, for people."""
    looked_at: str = ""
    """The picture or video to look at, in the folder of the results."""

    def add(self, segmented: Segmented) -> None:
        """Counts what was found in an image."""
        self.images += 1
        self.objects += len(segmented.regions)
        self.seconds += segmented.seconds
        for prompt, count in self.prompts.items():
            scores = [region.score for region in segmented.regions if region.prompt == prompt]
            count.images += bool(scores)
            count.objects += len(scores)
            count.most = max(count.most, len(scores))
            count.score = max((count.score, *map(float, scores)))
            count.best = max(count.best, segmented.best.get(prompt, 0.0))
            count.answer = segmented.sentences.get(prompt, "")

    def to_dict(self) -> dict[str, Any]:
        """Returns it for JSON."""
        return {
            "source": self.name,
            "named": list(self.specs),
            "images": self.images,
            "objects": self.objects,
            "seconds_of_answers": round(self.seconds, 3),
            "prompts": {prompt: _values(count) for prompt, count in self.prompts.items()},
            "notes": self.notes,
            "faults": self.faults,
            "look_at": self.looked_at,
        }

    def lines(self) -> list[str]:
        """Returns what was found in several images, for people."""
        rate = f" ({self.images / self.seconds:.1f} a second)" if self.seconds and self.images > 1 else ""
        lines = [
            f"{self.title}: {self.images} picture{'s' * (self.images != 1)} answered in {_seconds(self.seconds)}{rate}"
        ]
        width = max(map(len, self.prompts), default=0)
        for prompt, count in self.prompts.items():
            lines.append(f"  {prompt:<{width}}  {self._found(count)}")
        return lines

    def _found(self, count: PromptCount) -> str:
        if not self.images:
            return "no picture was answered"
        said = f"; in the last one: {count.answer}" if count.answer else ""
        if not count.images:
            return f"not found{said}" if said else f"not found, best score {count.best:.2f}"
        most = f", up to {count.most} in one" if count.most > 1 else ""
        return f"in {count.images} of {self.images}{most}, best score {count.score:.2f}{said}"


def of_one_image(segmented: Segmented, prompts: Sequence[str]) -> list[str]:
    """Returns what was found in one image, where, and how sure that is, for people."""
    lines = []
    for prompt in prompts:
        regions = [each for each in segmented.placed if each.prompt == prompt]
        if prompt in segmented.sentences:
            lines.append(f"  {prompt}: {segmented.sentences[prompt]}")
        elif regions:
            lines.append(f"  {prompt}: {len(regions)} found")
        else:
            lines.append(f"  {prompt}: not found, best score {segmented.best.get(prompt, 0.0):.2f}")
        lines += [f"    {_where(each, segmented.placed_in)}" for each in regions]
    return lines


def _where(region: ObjectRegion, frame: str) -> str:
    x_min, y_min, x_max, y_max = region.box_px
    x, y = (round(each) for each in region.centroid_px)
    text = f"#{region.id}  score {region.score:.2f}  at ({x}, {y}), {x_max - x_min} x {y_max - y_min} pixels"
    if region.position_m is not None:
        place = ", ".join(f"{each:.2f}" for each in region.position_m)
        text += f"; at ({place}) m in {frame}"
    return text


def _values(count: PromptCount) -> dict[str, Any]:
    values = {
        "images": count.images,
        "objects": count.objects,
        "most_in_an_image": count.most,
        "best_score": round(count.score, 4),
        "best_probability": round(count.best, 4),
    }
    return {**values, "last_answer": count.answer} if count.answer else values


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
