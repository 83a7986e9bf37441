# SPDX-License-Identifier: Apache-2.0
"""The service ``segment_at``, which returns the masks and the positions of things at a point, in a box or like them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.camera_input import CameraJob
from clip_seg_ros.nodes.camera.conversions import fill_image, image_to_rgb
from clip_seg_ros.nodes.camera.intake import Intake
from clip_seg_ros.nodes.common.answering_services import AnsweringServices
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.outputs.topics import object_message, union_mask
from clip_seg_ros.nodes.services.image_prompts import ImagePrompts
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.pipeline.naming import checked_name
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, label_image
from clip_seg_ros.srv import SegmentAt
from clip_seg_ros.types import ObjectRegion

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.cutting import Box
    from clip_seg_ros.pipeline.segment_anything import SegmentAnything

OWN_MODEL = "own"
"""The parameter ``segment_at_model`` for the model that answers commands, too."""
MAX_UNLIKE = 64
"""The largest number of boxes of what is not meant in one call."""


class Placing(Protocol):
    """Measures where a region of a camera's image is."""

    def __call__(self, job: CameraJob, rgb: np.ndarray, region: ObjectRegion) -> tuple[ObjectRegion, str]:
        """Returns the region with its position, if there is depth, and the frame of the position."""


class SegmentAtService:
    """Segments what somebody points at, beside the images of the cameras and with the same model.

    Args:
        core: The objects that the parts of the node share.
        host: Holder of the model in service.
        intake: The cameras.
        place: Measures where the thing is.
        image_prompts: Learn the thing if the caller gives it a name.
        with_caution: Returns an answer with what is to be told of the model's weights.
    """

    def __init__(
        self,
        core: NodeCore,
        host: ModelHost,
        intake: Intake,
        place: Placing,
        image_prompts: ImagePrompts,
        with_caution: Callable[[str], str],
    ) -> None:
        self._core, self._host, self._intake, self._place = core, host, intake, place
        self._image_prompts, self._with_caution = image_prompts, with_caution
        self._other: SegmentAnything | None = None
        self._services = AnsweringServices(core.node, core.calls, core.faults)
        self._services.offer(SegmentAt, "segment_at", self._answer)

    def close(self) -> None:
        """Destroys the service."""
        self._services.close()

    def _answer(self, request: SegmentAt.Request, response: SegmentAt.Response) -> SegmentAt.Response:
        try:
            self._segment(request, response)
        except (ValueError, RuntimeError) as error:  # ConversionError is a ValueError
            response.success, response.message = False, str(error)
        return response

    def _segment(self, request: SegmentAt.Request, response: SegmentAt.Response) -> None:
        if refusal := self._core.refusal():
            raise RuntimeError(refusal)
        box = _box_of(request.box)
        if request.alike:
            _require_alike(request, box)
        elif request.unlike:
            raise ValueError("boxes of what is not meant count only with alike")
        where = f"{'like that ' if request.alike else ''}in {box}" if box else f"at {request.x:g}, {request.y:g}"
        name = checked_name(request.teach_as) if request.teach_as.strip() else f"thing {where}"
        header, rgb, job = self._picture(request)
        if request.alike and box is not None:
            regions = self._find_alike(rgb, box, request.unlike, name)
        else:
            regions = [self._find(rgb, (request.x, request.y), box, name)]
        self._core.sizes.saw("segment_at", rgb.shape)
        if request.teach_as.strip():
            self._image_prompts.learn(name, rgb, regions[0].mask)
        response.position_frame = header.frame_id
        if job is not None:
            placed = [self._place(job, rgb, region) for region in regions]
            regions, response.position_frame = [region for region, _ in placed], placed[0][1]
        response.objects = [object_message(region) for region in regions]
        response.object = response.objects[0]
        labels = label_image(regions, rgb.shape[:2])
        response.mask = fill_image(Image(header=header), union_mask(labels), "mono8")
        taught = f'; "{name}" now means it' if request.teach_as.strip() else ""
        note = f"{len(regions)} things" if request.alike else f"{regions[0].area_px} pixels"
        note = f"{note} {where}{taught}"
        is_own = self._core.config.segment_at_model == OWN_MODEL
        response.success, response.message = True, self._with_caution(note) if is_own else note

    def _find(self, rgb: np.ndarray, point_px: tuple[float, float], box_px: Box | None, name: str) -> ObjectRegion:
        """Returns the thing in a box, or, without one, at a point."""
        # torch takes seconds to import, and nodes import this before they can end cleanly
        from clip_seg_ros.pipeline.pointing import require_box, require_point, thing_at, thing_in

        if box_px is None:
            require_point(point_px, rgb.shape[:2])  # before what takes long
        else:
            require_box(box_px, rgb.shape[:2])
        if self._core.config.segment_at_model != OWN_MODEL:
            other = self._other_model()
            return other.thing_at(rgb, point_px, name) if box_px is None else other.thing_in(rgb, box_px, name)
        predictor = self._host.predictor
        encoded = predictor.encode(rgb)
        if box_px is None:
            return thing_at(predictor, encoded, rgb, point_px, name)
        return thing_in(predictor, encoded, rgb, box_px, name)

    def _find_alike(
        self, rgb: np.ndarray, box_px: Box, unlike: Sequence[RegionOfInterest], name: str
    ) -> list[ObjectRegion]:
        """Returns all things like the one in a box, and not like those in others, the best first."""
        from clip_seg_ros.pipeline.alike import instances_like, phrase_of_boxes
        from clip_seg_ros.pipeline.pointing import require_box

        config, predictor = self._core.config, self._host.predictor
        if config.segment_at_model != OWN_MODEL:
            raise ValueError(f'{config.segment_at_model} finds no things that are alike: set segment_at_model to "own"')
        phrase_of_boxes(predictor.spec)  # before what takes long
        boxes = [box_px, *(_edges(roi) for roi in unlike)]
        for each in boxes:
            require_box(each, rgb.shape[:2])
        positive = [True] + [False] * len(unlike)
        found = instances_like(predictor, predictor.encode(rgb), boxes, positive, least_score=config.asked_threshold)
        if not found:
            raise ValueError(
                f"nothing like that in {box_px} is sure enough: draw the box closer, or lower the threshold"
            )
        return [replace(item, name=name).region(number) for number, item in enumerate(found[:MAX_REGIONS], start=1)]

    def _other_model(self) -> SegmentAnything:
        """Returns the model that the parameter names, which is loaded at the first call."""
        from clip_seg_ros.pipeline.segment_anything import SegmentAnything, licence_of

        config = self._core.config
        if self._other is None:
            self._other = SegmentAnything(config.segment_at_model, config.device, config.download)
            licence = licence_of(config.segment_at_model)
            note = f", whose licence is {licence}" if licence else ""
            self._core.node.get_logger().info(f"segment_at asks {config.segment_at_model}{note}")
        return self._other

    def _picture(self, request: SegmentAt.Request) -> tuple[Header, np.ndarray, CameraJob | None]:
        """Returns the picture that is meant, (H, W, 3) uint8, with its header, and its job if a camera sent it."""
        if request.image.height or request.image.width:
            return request.image.header, image_to_rgb(request.image), None
        cameras = {camera.name: camera for camera in self._intake.cameras}
        names = ", ".join(cameras)
        if request.camera not in cameras:
            if not request.camera:
                raise ValueError(f"say which camera: {names}")
            known = f"the cameras are {names}" if names else "the only camera has no name"
            raise ValueError(f'there is no camera "{request.camera}": {known}')
        camera = cameras[request.camera]
        job = camera.newest
        if job is None:
            raise RuntimeError(f"no image has come yet on {camera.image_topic}: start the camera, or send an image")
        rgb = camera.rgb(job)
        if rgb is None:
            raise RuntimeError(f"the newest image of {camera.image_topic} cannot be read: the node's log says why")
        return job.image.header, rgb, job


def _box_of(roi: RegionOfInterest) -> Box | None:
    """Returns a box as (x_min, y_min, x_max, y_max); ``None`` if nothing of it is set.

    A box without width or height, of which something is set, is returned as it is.
    """
    if not (roi.x_offset or roi.y_offset or roi.width or roi.height):
        return None
    return _edges(roi)


def _edges(roi: RegionOfInterest) -> Box:
    return roi.x_offset, roi.y_offset, roi.x_offset + roi.width, roi.y_offset + roi.height


def _require_alike(request: SegmentAt.Request, box: Box | None) -> None:
    """Raises ValueError if things that are alike cannot be found as asked."""
    if box is None:
        raise ValueError("alike needs a box around one of the things")
    if request.teach_as.strip():
        raise ValueError("alike finds things in this picture alone: leave teach_as empty")
    if len(request.unlike) > MAX_UNLIKE:
        raise ValueError(f"give at most {MAX_UNLIKE} boxes of what is not meant, got {len(request.unlike)}")
