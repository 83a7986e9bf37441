# SPDX-License-Identifier: Apache-2.0
"""From an image and a command to what the viewer shows of it, by the functions that the nodes use, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clip_seg_ros.annotation.answers import FRAME, FrameAnswers, camera_frame
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.space.ground import fit_ground
from clip_seg_ros.pipeline.space.point_cloud import point_cloud
from clip_seg_ros.pipeline.space.understanding import Asking
from clip_seg_ros.pipeline.tally import Tally
from clip_seg_ros.types import CameraFrame, ObjectRegion
from clip_seg_ros.viewer.playback import Shown
from clip_seg_ros.viewer.space_around import surroundings
from clip_seg_ros.viewer.views import Thing, View, Wanted
from clip_seg_ros.zoo.caution import in_corner


@dataclass
class Request:
    """What a command asks for, until another one replaces it."""

    command_id: int
    text: str
    prompts: tuple[str, ...]
    references: tuple[Reference, ...]
    """What each of ``prompts`` refers to."""
    negatives: tuple[str, ...]
    tally: Tally
    model: str | None = None
    """The model that the command asks for, which may still be loading."""
    told: bool = False
    """Whether its outcome was told."""


class PictureAnswers:
    """Answers the images of one source, one after the other, on one thread.

    Args:
        config: Returns the present parameters.
        is_still: Whether the images have nothing to do with each other.
    """

    def __init__(self, config: Callable[[], ReferringConfig], is_still: bool) -> None:
        self._config = config
        self._frames = FrameAnswers(config, is_still)

    @property
    def fault(self) -> str:
        """What does not work as it should, for people; empty if all does."""
        return self._frames.fault

    def forget(self, prompt: str) -> None:
        """Drops the past of a phrase, because its meaning has changed; it may be called from any thread."""
        self._frames.forget(prompt)

    def asking(self, request: Request, spec: ModelSpec) -> Asking:
        """Returns what a model is asked for."""
        return self._frames.asking(request.prompts, request.references, request.negatives, spec)

    def answer(
        self, predictor: Predictor, shown: Shown, request: Request | None, wanted: Wanted, asked_s: float = 0.0
    ) -> View:
        """Answers one image, and adds what was found to the request's tally.

        Args:
            predictor: The model.
            shown: The image.
            request: What is asked; ``None``: nothing is.
            wanted: The parts that somebody looks at.
            asked_s: When something else was asked last, by ``time.monotonic()``, for an image that came before.

        Raises:
            ValueError: The model refuses the image or the phrases.
        """
        frame, since_s = camera_frame(shown.frame), max(shown.arrived_s, asked_s)
        if request is None:
            return self._view(predictor, shown, frame, wanted, {}, {}, since_s)
        meant = self._frames.answer(predictor, shown.frame, self.asking(request, predictor.spec), shown.is_first)
        regions = [each.region for each in meant.measured]
        request.tally.add("", regions, meant.maps, meant.sentences)
        parts: dict[str, Any] = {
            "prompts": tuple(dict.fromkeys(request.prompts)),
            "things": (*map(thing_of, regions), *(thing_of(each, 0) for each in meant.ties.anchors)),
            "labels": label_image(regions, frame.rgb.shape[:2]),
        }
        if wanted.confidence:
            parts["confidence"] = meant.maps.confidence()
        if wanted.space and frame.depth_m is not None:
            parts["cloud"] = point_cloud(meant.measured, frame.rgb, self._config().max_points)
        ties = [f"{tie.region.prompt}: {tie.label} {tie.anchor.prompt}" for tie in meant.ties.ties]
        return self._view(predictor, shown, frame, wanted, parts, {"relations": ties} if ties else {}, since_s)

    def encoded(self, predictor: Predictor, shown: Shown) -> EncodedImage:
        """Encodes an image, once if it is asked for again. Raises ValueError if the model refuses it."""
        return self._frames.encoded(predictor, shown.frame)

    @staticmethod
    def _view(
        predictor: Predictor,
        shown: Shown,
        frame: CameraFrame,
        wanted: Wanted,
        parts: dict[str, Any],
        notes: dict[str, Any],
        since_s: float,
    ) -> View:
        if wanted.space and frame.depth_m is not None:
            ground = fit_ground(frame)
            parts |= {"surroundings": surroundings(frame), "table": (*ground.up, ground.camera_m) if ground else None}
        said = {"model": predictor.spec.name, "position": shown.position, "name": shown.frame.name, **notes}
        if corner := in_corner(predictor.spec):
            said["caution"] = corner
        said["latency_ms"] = round(1000 * (time.monotonic() - since_s), 1)
        return View(
            camera="",
            stamp_ns=frame.stamp_ns,
            # A picture that is answered anew has waited for nobody.
            arrived_s=since_s,
            rgb=frame.rgb,
            frame=FRAME,
            intrinsics=frame.intrinsics,
            notes=said,
            **parts,
        )


def thing_of(region: ObjectRegion, number: int | None = None) -> Thing:
    """Returns what the viewer shows of a region; ``number`` is its id if it is not the region's own."""
    return Thing(
        prompt=region.prompt,
        id=region.id if number is None else number,
        score=region.score,
        box_px=region.box_px,
        centroid_px=region.centroid_px,
        area_px=region.area_px,
        position_m=region.position_m,
        box_m=region.box_m,
    )
