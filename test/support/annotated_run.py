# SPDX-License-Identifier: Apache-2.0
"""The images of a run of ``clip-seg annotate`` with the truth of rendered scenes instead of a model's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.data.tabletop import TEST_SEEDS, held_out_scene
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.types import ObjectRegion

PHRASES = ("bowl", "cup", "book", "banana", "box")
SURE_FROM = 0.75
FIRST_NS = 1_700_000_000_123_456_789
_LEAST_PX = 30


@dataclass(frozen=True)
class Run:
    """A run whose images are written."""

    job: Job
    out: Path
    images: tuple[AnnotatedFrame, ...]

    def frames(self) -> Iterator[AnnotatedFrame]:
        """Yields the images, as the formats take them."""
        return iter(self.images)


def rendered_run(
    out: Path, sources: dict[str, int], size: tuple[int, int] = (160, 120), first_seed: int = TEST_SEEDS.start
) -> Run:
    """Renders the images of some sources, ten a second, and takes what they show for what was found.

    Every third object has a score that is not sure.

    Args:
        out: The folder of the run.
        sources: The number of images of each source; one with a "." in its name has a topic.
        size: (width, height) in pixels.
        first_seed: The seed of the first scene; all further ones follow it.
    """
    images = []
    with SceneRenderer(*size) as renderer:
        for source, count in sources.items():
            for index in range(count):
                view = renderer.render(held_out_scene(first_seed + len(images)), depth=False)
                picture = out / "images" / source / f"{index:06d}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(view.rgb).save(picture)
                images.append(_frame(view, source, index, picture.relative_to(out).as_posix()))
    specs = tuple(Source(name, f"/recordings/{name}") for name in sources)
    job = Job(str(out), specs, tuple(Phrase(name) for name in PHRASES), sure_from=SURE_FROM)
    return Run(job, out, tuple(images))


def _frame(view: RenderedView, source: str, index: int, picture: str) -> AnnotatedFrame:
    objects = []
    for number, item in enumerate(view.objects, start=1):
        mask = view.labels == number
        if item.kind in PHRASES and np.count_nonzero(mask) >= _LEAST_PX:
            score = 0.6 if number % 3 == 0 else 0.9 + 0.01 * number
            region = ObjectRegion.of_mask(item.kind, number, score, mask)
            objects.append(AnnotatedObject.of(region, number, 0.5, SURE_FROM))
    topic = "/camera/color/image_raw" if "." in source else ""
    stamp_ns = FIRST_NS + index * 100_000_000
    size = view.labels.shape
    return AnnotatedFrame(source, topic, index, stamp_ns, f"{source} {index}", picture, size, tuple(objects))
