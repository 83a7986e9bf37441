# SPDX-License-Identifier: Apache-2.0
"""The format "mcap": what was found in a bag as a recording of its own, with the stamps and frames of the images.

It lies beside the bag like what the node ``referring`` would have published, under the names of its topics:

    /clip_seg/CAMERA/objects               clip_seg_ros/SegmentedObjectArray
    /clip_seg/CAMERA/mask/compressed       sensor_msgs/CompressedImage, PNG of 0 and 255: all objects
    /clip_seg/CAMERA/labels/compressed     sensor_msgs/CompressedImage, PNG of the objects' ids
    /clip_seg/CAMERA/overlay/compressed    sensor_msgs/CompressedImage, JPEG: the picture with what was found
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import RECORDINGS
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.writing import Frames
from clip_seg_ros.data.samples import DataError, read_rgb
from clip_seg_ros.pipeline.overlay import draw
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, label_image
from clip_seg_ros.sources.bag_messages import RecordingError, Stamped
from clip_seg_ros.sources.bag_writing import SUFFIX, BagWriter, remove_unfinished
from clip_seg_ros.types import ObjectRegion

NAMESPACE = "/clip_seg"
_OF_STREAM = ("color", "colour", "rgb", "compressed")
"""Parts of a topic's name that, at its end and beside those that begin with "image", do not name the camera."""


def write_recordings(out: Path, frames: Frames, job: Job) -> None:
    """Writes ``recordings/SOURCE.mcap`` for each source that is a bag.

    Args:
        out: The folder of the run.
        frames: All images in the order of the sources and their times, at each call.
        job: What was asked.

    Raises:
        DataError: A kept picture cannot be read, a mask is of another size, or the file cannot be written.
    """
    prompts = tuple(phrase.text for phrase in job.phrases)
    remove_unfinished(out / RECORDINGS)
    for source, several in groupby(frames(), key=lambda frame: frame.source):
        in_bag = (frame for frame in several if frame.topic)
        first = next(in_bag, None)
        if first is None:
            continue
        (out / RECORDINGS).mkdir(parents=True, exist_ok=True)
        try:
            with BagWriter(out / RECORDINGS / f"{source}{SUFFIX}", replace=True) as bag:
                _add(bag, out, first, prompts)
                for frame in in_bag:
                    _add(bag, out, frame, prompts)
        except RecordingError as error:
            raise DataError(str(error)) from error


def camera_of(topic: str) -> str:
    """Returns the name of the camera of a topic: "left" for "/left/color/image_raw/compressed"; may be empty."""
    parts = [part for part in topic.split("/") if part]
    while parts and (parts[-1] in _OF_STREAM or parts[-1].startswith("image")):
        parts.pop()
    return "_".join(parts)


def _add(bag: BagWriter, out: Path, frame: AnnotatedFrame, prompts: tuple[str, ...]) -> None:
    camera, make, stamp_ns = camera_of(frame.topic), bag.messages, frame.stamp_ns
    prefix, at = f"{NAMESPACE}/{camera}" if camera else NAMESPACE, Stamped(stamp_ns, frame.frame_id)
    regions = _regions(frame)
    labels = label_image(regions, frame.size)
    overlay = draw(read_rgb(out / frame.picture), regions, prompts, numbers=True)
    bag.add(f"{prefix}/objects", make.objects(at, camera, prompts, regions), stamp_ns)
    bag.add(f"{prefix}/mask/compressed", make.grey_png(at, np.where(labels > 0, 255, 0).astype(np.uint8)), stamp_ns)
    bag.add(f"{prefix}/labels/compressed", make.grey_png(at, labels), stamp_ns)
    bag.add(f"{prefix}/overlay/compressed", make.jpeg(at, overlay), stamp_ns)


def _regions(frame: AnnotatedFrame) -> list[ObjectRegion]:
    """Returns the objects of an image with ids 1..255, which are their tracks as long as these are no larger."""
    regions: list[ObjectRegion] = []
    taken: set[int] = set()
    things = [thing for thing in frame.objects if thing.area_px > 0][:MAX_REGIONS]
    # Those that are tracked choose first, so that they keep their numbers.
    for thing in sorted(things, key=lambda each: each.track == 0):
        number = (thing.track - 1) % MAX_REGIONS + 1 if thing.track else 1
        while number in taken:
            number = number % MAX_REGIONS + 1
        taken.add(number)
        mask = thing.mask(frame.size)
        regions.append(ObjectRegion.of_mask(thing.prompt, number, thing.score, mask, thing.position_m))
    return regions
