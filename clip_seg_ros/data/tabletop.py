# SPDX-License-Identifier: Apache-2.0
"""Renders tabletop scenes to disk, in parallel and resumable, and reads them as arrays.

A folder contains shards of ``SHARD_SCENES`` scenes. This module alone defines which seeds are for training and which
are held out.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import HELD_OUT_PAIRS, KINDS, SCENES_PER_SHAPE_SET, Scene, sample_scene
from clip_seg_ros.sim.stacking import stacked_scene
from clip_seg_ros.sim.surfaces import BEYOND, SURFACES, surface_map

SEMANTIC_CLASSES: tuple[str, ...] = (*KINDS, *SURFACES)
"""The classes of pixels in the tabletop world."""

FIRST_TRAIN_SEED = 100_000
"""The first seed of training scenes, which share no shapes with test scenes, because only neighbouring seeds do."""
TEST_SEEDS = range(10_000, 11_000)
"""The held-out seeds; every second group of ``SCENES_PER_SHAPE_SET`` is drawn from beyond the ranges of training."""
FIRST_UNLABELLED_SEED = 50_000
"""The first seed of images without labels, which are drawn like the held-out ones, partly from beyond the ranges."""
SHARD_SCENES = 10 * SCENES_PER_SHAPE_SET
Arrangement = Literal["usual", "alike", "stacked"]
"""How things stand in the scenes of a shard: anywhere; many of one kind close together; some on others."""
USUAL: tuple[Arrangement, ...] = ("usual",)
TOUCHING: tuple[Arrangement, ...] = ("usual", "alike")
CROWDED: tuple[Arrangement, ...] = ("usual", "alike", "stacked")
_PROGRESS_EVERY_S = 0.2
_rendered: Any = None
"""The number of scenes that all workers have rendered, in shared memory; only workers set it."""


@dataclass(frozen=True)
class TabletopScenes:
    """Training scenes in memory."""

    rgb: np.ndarray
    """The images, (N, H, W, 3) uint8."""
    labels: np.ndarray
    """The objects of the pixels, (N, H, W) uint8: 0 = no object, otherwise 1 + index in ``objects[n]``."""
    objects: tuple[tuple[tuple[str, str], ...], ...]
    """The (colour, kind) of each object, for each scene."""
    arrangements: tuple[Arrangement, ...] = USUAL
    """The arrangements of the shards, in turns."""

    def __len__(self) -> int:
        return len(self.rgb)

    def scene(self, index: int) -> Scene:
        """Returns the scene of image ``index``, drawn again from its seed."""
        arrangement = _arrangement(self.arrangements, int(index) // SHARD_SCENES)
        return _training_scene(FIRST_TRAIN_SEED + int(index), arrangement)


def held_out_seeds(count: int) -> list[int]:
    """Returns ``count`` of the ``TEST_SEEDS``, spread evenly over the usual ones and over the unseen ones."""
    # Each kind is spread separately: an even step over all would only hit groups of one kind, e.g. with 20 of 1000.
    usual, unseen = ([seed for seed in TEST_SEEDS if is_unseen(seed) == kind] for kind in (False, True))
    unseen_count = count * len(unseen) // len(TEST_SEEDS)
    shares = ((usual, count - unseen_count), (unseen, unseen_count))
    return sorted(seeds[index * len(seeds) // share] for seeds, share in shares for index in range(share))


def is_unseen(seed: int) -> bool:
    """Returns whether the test scene of ``seed`` is partly drawn from beyond the ranges of training."""
    return seed // SCENES_PER_SHAPE_SET % 2 == 1


def held_out_scene(seed: int, alike: bool = False) -> Scene:
    """Returns the scene of one of the ``TEST_SEEDS``, or of another seed that no training with labels uses.

    With ``alike``, most objects stand close to others of their kind, as ``sample_scene`` places them.
    """
    return sample_scene(seed, unseen=is_unseen(seed), alike=alike)


def _training_scene(seed: int, arrangement: Arrangement) -> Scene:
    scene = sample_scene(seed, forbidden=HELD_OUT_PAIRS, alike=arrangement == "alike")
    return stacked_scene(scene)[0] if arrangement == "stacked" else scene


def _arrangement(arrangements: Sequence[Arrangement], shard: int) -> Arrangement:
    return arrangements[shard % len(arrangements)]


def class_map(scene: Scene, labels: np.ndarray, kinds: Sequence[str] = KINDS) -> np.ndarray:
    """Converts object labels (H, W) to classes, (H, W) uint8: indices into ``(*kinds, *SURFACES)``, or ``IGNORED``.

    By default, the classes are ``SEMANTIC_CLASSES``.
    """
    surfaces = surface_map(scene.camera, labels.shape[1], labels.shape[0])
    classes = np.where(surfaces == BEYOND, IGNORED, surfaces + len(kinds))
    of_objects = np.array([0, *(kinds.index(item.kind) for item in scene.objects)])
    return np.where(labels > 0, of_objects[labels], classes).astype(np.uint8)


def _shard_path(folder: Path, index: int, arrangement: Arrangement) -> Path:
    return folder / f"tabletop_{'' if arrangement == 'usual' else f'{arrangement}_'}{index:05d}.npz"


@dataclass(frozen=True)
class _Job:
    """A shard to render."""

    folder: Path
    index: int
    width: int
    height: int
    arrangement: Arrangement

    @property
    def path(self) -> Path:
        return _shard_path(self.folder, self.index, self.arrangement)


def _render_shard(job: _Job) -> Iterator[None]:
    """Renders a shard, and yields after each scene."""
    rgb, labels, objects = [], [], []
    first = FIRST_TRAIN_SEED + job.index * SHARD_SCENES
    with SceneRenderer(job.width, job.height) as renderer:
        for seed in range(first, first + SHARD_SCENES):
            scene = _training_scene(seed, job.arrangement)
            view = renderer.render(scene, depth=False)
            rgb.append(view.rgb)
            labels.append(view.labels)
            objects.append([(item.color, item.kind) for item in view.objects])
            yield
    # A temporary file is written and renamed, so that a shard that exists is complete.
    with tempfile.NamedTemporaryFile(dir=job.folder, suffix=".part", delete=False) as file:
        np.savez(file, rgb=np.stack(rgb), labels=np.stack(labels), objects=json.dumps(objects))
    os.replace(file.name, job.path)


def render_training_scenes(
    folder: Path,
    scenes: int,
    width: int = 320,
    height: int = 240,
    workers: int = 2,
    arrangements: Sequence[Arrangement] = USUAL,
) -> Iterator[int]:
    """Renders the training scenes that are missing in ``folder``, and yields repeatedly how many are ready.

    Scenes never contain held-out pairs. ``scenes`` is rounded up to whole shards. One worker renders in this process,
    several in processes of their own. After an interruption, only complete shards remain. The shards have the
    ``arrangements`` in turns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_parts(folder)
    shards = range(-(-scenes // SHARD_SCENES))
    jobs = [_Job(folder, index, width, height, _arrangement(arrangements, index)) for index in shards]
    missing = [job for job in jobs if not job.path.exists()]
    ready = (len(shards) - len(missing)) * SHARD_SCENES
    yield ready
    try:
        if workers > 1 and missing:
            for rendered in _render_in_processes(missing, workers):
                yield ready + rendered
        else:
            for rendered, _ in enumerate((scene for job in missing for scene in _render_shard(job)), start=1):
                yield ready + rendered
    finally:
        _remove_parts(folder)


def _remove_parts(folder: Path) -> None:
    for leftover in folder.glob("*.part"):
        leftover.unlink()


def _render_in_processes(jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Renders shards in processes of their own and yields how many scenes are rendered."""
    # Each worker has a fresh interpreter, because a GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    rendered = context.Value("q", 0)
    # A terminal sends Ctrl-C to all processes; the workers ignore it, because this process ends them.
    with _interrupts_held_back():
        pool = context.Pool(min(workers, len(jobs)), _begin_worker, (rendered,))
    try:
        results = pool.imap_unordered(_render_and_count, jobs)
        done = 0
        while done < len(jobs):
            try:
                results.next(timeout=_PROGRESS_EVERY_S)
                done += 1
            except multiprocessing.TimeoutError:
                pass
            yield rendered.value
    finally:
        with _interrupts_held_back():
            pool.terminate()
            pool.join()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Delays Ctrl-C until the end of the block; processes that are started inside never receive it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(rendered: Any) -> None:
    global _rendered
    _rendered = rendered


def _render_and_count(job: _Job) -> None:
    for _ in _render_shard(job):
        with _rendered.get_lock():
            _rendered.value += 1


def load_training_scenes(folder: Path, scenes: int, arrangements: Sequence[Arrangement] = USUAL) -> TabletopScenes:
    """Reads the first ``scenes`` training scenes (rounded up to whole shards) into memory.

    ``arrangements`` are as they were in ``render_training_scenes``.

    Raises:
        FileNotFoundError: A shard is missing; ``render_training_scenes`` renders it.
        ValueError: The shards were rendered at different sizes.
    """
    shards = -(-scenes // SHARD_SCENES)
    rgb = labels = None
    objects: list[tuple[tuple[str, str], ...]] = []
    for index in range(shards):
        path = _shard_path(folder, index, _arrangement(arrangements, index))
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: render the training scenes first")
        with np.load(path) as shard:
            part = slice(index * SHARD_SCENES, (index + 1) * SHARD_SCENES)
            pictures, names = shard["rgb"], json.loads(str(shard["objects"]))
            if rgb is None:
                # The memory for all scenes is allocated at once; joining parts later would need it twice.
                rgb = np.empty((shards * SHARD_SCENES, *pictures.shape[1:]), np.uint8)
                labels = np.empty(rgb.shape[:3], np.uint8)
            if pictures.shape[1:] != rgb.shape[1:]:
                raise ValueError(f"{folder} holds scenes of different sizes; empty it and render again")
            rgb[part], labels[part] = pictures, shard["labels"]
            objects += [tuple((c, k) for c, k in scene) for scene in names]
    return TabletopScenes(rgb, labels, tuple(objects), tuple(arrangements))


def present_pairs(objects: Sequence[tuple[str, str]], labels: np.ndarray, min_share: float) -> set[tuple[str, str]]:
    """Returns the (colour, kind) pairs that cover at least ``min_share`` of a label image (H, W)."""
    areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
    covered: dict[tuple[str, str], int] = {}
    for pair, area in zip(objects, areas, strict=False):
        covered[pair] = covered.get(pair, 0) + int(area)
    return {pair for pair, area in covered.items() if area >= min_share * labels.size}
