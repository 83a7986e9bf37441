# SPDX-License-Identifier: Apache-2.0
"""A small run as ``clip-seg annotate`` leaves it: pictures of rendered tables, and what the embedded model found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from clip_seg_ros.annotation.answers import FrameAnswers
from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.manifest import SourceFacts, begun, write_manifest
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.worker import About
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.sources.frame import Frame

PHRASES = ("red cup", "blue box")
SOURCE = "tables"
FIRST_SEED = 3


def write_run(
    out: Path, size: tuple[int, int] = (320, 240), images: int = 3, phrases: Sequence[str] = PHRASES
) -> list[AnnotatedFrame]:
    """Writes the run; returns what was found. Each table has a red cup and a blue box.

    Args:
        out: The folder of the run.
        size: (W, H) of the pictures.
        images: Their number.
        phrases: What is asked for.
    """
    predictor, answers = (
        Predictor.from_name("clipseg-pocket", "cpu", engine="eager"),
        FrameAnswers(ReferringConfig, is_still=True),
    )
    asking = answers.asking(phrases, [Reference(phrase) for phrase in phrases], (), predictor.spec)
    (out / "images" / SOURCE).mkdir(parents=True)
    frames = []
    with SceneRenderer(*size) as renderer:
        for index, seed in enumerate(range(FIRST_SEED, FIRST_SEED + images)):
            rgb = renderer.render(sample_scene(seed, required=[("red", "cup"), ("blue", "box")]), depth=False).rgb
            found = answers.answer(predictor, Frame(rgb, None, None, index, f"{seed}"), asking).measured
            objects = tuple(AnnotatedObject.of(each.region, 0, predictor.spec.threshold, 0.75) for each in found)
            picture = f"images/{SOURCE}/{index:06d}.png"
            cv2.imwrite(str(out / picture), rgb[..., ::-1])
            frames.append(AnnotatedFrame(SOURCE, "", index, index, f"{seed}", picture, size[::-1], objects))
    write_shards(out, frames, phrases)
    return frames


def write_shards(out: Path, frames: Sequence[AnnotatedFrame], phrases: Sequence[str], images: int = 64) -> None:
    """Writes manifest and shards of a run.

    Args:
        out: The folder of the run.
        frames: What was found, source by source.
        phrases: What was asked for.
        images: The number of images of a shard.
    """
    names = tuple(dict.fromkeys(frame.source for frame in frames))
    sources = tuple(Source(name, name) for name in names)
    job = Job(str(out), sources, tuple(map(Phrase, phrases)), model="clipseg-pocket")
    for name in names:
        own = [frame for frame in frames if frame.source == name]
        (out / "shards" / name).mkdir(parents=True)
        for number, first in enumerate(range(0, len(own), images)):
            part, file = own[first : first + images], out / "shards" / name / f"{number:04d}"
            file.with_suffix(".jsonl").write_text("".join(frame.to_json() + "\n" for frame in part))
            about = About(len(part), sum(len(frame.objects) for frame in part), (), ())
            file.with_suffix(".json").write_text(about.to_json())
    facts = [SourceFacts(each, sum(frame.source == each.name for frame in frames), 0, "", ()) for each in sources]
    write_manifest(out, begun(job, job, facts, []))
