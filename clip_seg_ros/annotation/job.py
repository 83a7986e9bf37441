# SPDX-License-Identifier: Apache-2.0
"""What a run of ``clip-seg annotate`` is asked to do, and the pieces in which it is done.

A run is cut into shards by its sources and their times alone, never by the number of workers, so that its results do
not depend on who did what. A shard is done by ``worker.annotate_shard``, in any process of any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARD_FRAMES = 64
"""The number of selected images in a shard, and so about what is lost when a worker dies."""


@dataclass(frozen=True)
class Phrase:
    """A phrase to find."""

    text: str
    threshold: float | None = None
    """A pixel belongs to it above this probability, 0..1; ``None`` for the model's own threshold. It counts for this
    name in other phrases, too, and phrases that say where things are have none."""


@dataclass(frozen=True)
class Source:
    """A recording, video, folder or image of a run."""

    name: str
    """Its name in the run; see ``layout``."""
    spec: str
    """What ``sources.frames.open_frames`` opens, or an address that fsspec opens, such as "s3://bucket/run.mcap"."""
    topic: str | None = None
    """The topic of the colour images in a bag."""
    track_age_s: float | None = None
    """How many seconds an object keeps its id while it is out of sight; ``None`` for that of the job."""


@dataclass(frozen=True)
class Selection:
    """Which images of a source are annotated."""

    every: int = 1
    """One of so many images."""
    least_change: float = 0.0
    """The least mean difference of small grey copies from the last image that was kept, 0..1; those that differ less
    are left out as near-duplicates. 0 keeps all."""


@dataclass(frozen=True)
class Job:
    """All that decides the results of a run. It can be pickled, and a worker on another machine needs nothing else."""

    out: str
    """The folder of the run: a path, or an address that fsspec opens."""
    sources: tuple[Source, ...]
    phrases: tuple[Phrase, ...]
    negatives: tuple[str, ...] = ()
    """Phrases whose objects are left out."""
    selection: Selection = Selection()
    sure_from: float = 0.75
    """The score from which an object counts as sure, 0..1."""
    model: str = "auto"
    second_model: str | None = None
    """A model whose answers are compared with those of ``model``."""
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    threads: int = 1
    """The processor threads of a worker. Sums of floats depend on it, and so may the last digits of results."""
    refine_edges: bool = True
    separate_touching: bool = True
    smoothing: float = 0.6
    """Strength of the smoothing over time, 0..1; without effect on pictures that have nothing to do with each other."""
    track_age_s: float = 2.0
    """How many seconds an object keeps its id while it is out of sight; ``running.prepare`` gives sources of which few
    images are selected longer ones of their own."""
    min_area_fraction: float = 0.0
    picture_suffix: str = ".jpg"
    """How images of videos and bags are kept: ".jpg" or ".png". Files are copied as they are."""
    shard_frames: int = SHARD_FRAMES

    def track_age_of(self, source: Source) -> float:
        """Returns for how many seconds objects of one of its sources are remembered."""
        return self.track_age_s if source.track_age_s is None else source.track_age_s


@dataclass(frozen=True)
class Shard:
    """A stretch of a source."""

    source: int
    """Index of the source in the job."""
    number: int
    """Its number among the shards of its source, from 0."""
    begin: int
    """The index of its first image among all images of the source."""
    end: int
    """The index behind its last image; a source may end before."""
    from_number: int = 0
    """The image to begin reading with; see ``sources.frame.Stretch``."""
    from_ns: int | None = None
    """The place of that image, likewise."""


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard."""

    shard: Shard
    images: int
    """The number of images that were annotated."""
    objects: int
    seconds: float
    """How long the work took, without loading the model."""
    notes: tuple[str, ...] = ()
    """What could not be read, for people."""
    fault: str = ""
    """Why the shard has no results, for people; empty if it has."""
