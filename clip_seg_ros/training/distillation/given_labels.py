# SPDX-License-Identifier: Apache-2.0
"""The labels of a data set in the place of a teacher's, kept on disk as those are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clip_seg_ros.data.samples import DataError, SemanticDataset
from clip_seg_ros.training.distillation.pseudo_labels import GUIDED, LabelledPictures, Split, claim, store_pair


def store_given(
    parts: Sequence[SemanticDataset],
    identity: str,
    folder: Path,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[LabelledPictures, tuple[tuple[int, ...], ...]]:
    """Stores the images and the labels of the parts of a data set; what an earlier call wrote to disk is kept.

    Args:
        parts: The parts, with the same classes.
        identity: A line that identifies images and labels; another line means others.
        folder: The folder to store them in.
        progress: Wraps the numbers of the images, to show the progress.

    Returns:
        The images, and the indices of those of each part that could be read.

    Raises:
        DataError: The folder holds labels that were made from something else.
    """
    claim(folder, {"dataset": identity, "classes": list(parts[0].class_names)})
    places = [(part, number) for part, dataset in enumerate(parts) for number in range(len(dataset))]
    found: list[list[int]] = [[] for _ in parts]
    unreadable = []
    for index in progress(range(len(places))):
        part, number = places[index]
        try:
            if not LabelledPictures(folder, (), ()).has_labels(index, GUIDED):
                sample = parts[part][number]
                store_pair(folder, index, sample.rgb, sample.labels)
        except DataError as error:
            unreadable.append(str(error))
        else:
            found[part].append(index)
    indices = tuple(index for part in found for index in part)
    return LabelledPictures(folder, indices, tuple(unreadable)), tuple(map(tuple, found))


def given_split(trained: Sequence[int], held_out: Sequence[int], to_choose: bool) -> Split:
    """Divides the held-out images; the arguments are indices.

    Args:
        trained: The images to train on.
        held_out: The images that training never sees.
        to_choose: Whether every second of them is for the choice between weights, and not for measuring.

    Raises:
        DataError: A part has no image.
    """
    chosen, measured = (held_out[1::2], held_out[::2]) if to_choose else ((), held_out)
    if not trained or not measured or (to_choose and not chosen):
        raise DataError(
            f"{len(trained)} images to train on and {len(held_out)} held out can be read, which is too few: annotate "
            "more images"
        )
    return Split(tuple(trained), tuple(chosen), tuple(measured))
