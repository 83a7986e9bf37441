# SPDX-License-Identifier: Apache-2.0
"""The service ``segment``, which returns the masks and objects of one image for its prompts."""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import Image

from clip_seg_ros.commands.parser import MAX_PROMPTS
from clip_seg_ros.nodes.camera.conversions import fill_image, image_to_rgb
from clip_seg_ros.nodes.common.answering_services import AnsweringServices
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.refining import Refining
from clip_seg_ros.nodes.outputs.relating import relate
from clip_seg_ros.nodes.outputs.topics import object_message, union_mask
from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.pipeline.naming import as_commands_say, reference_of
from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.solids import Speaker
from clip_seg_ros.pipeline.space.understanding import understand
from clip_seg_ros.srv import Segment
from clip_seg_ros.types import CameraFrame


class SegmentService:
    """Segments single images beside those of the cameras, with the same model.

    Args:
        core: The objects that the parts of the node share.
        host: Holder of the model in service.
        refining: What is done with the objects of an image.
        with_caution: Returns an answer with what is to be told of the model's weights.
    """

    def __init__(self, core: NodeCore, host: ModelHost, refining: Refining, with_caution: Callable[[str], str]) -> None:
        self._core, self._host, self._refining, self._with_caution = core, host, refining, with_caution
        # There is one call at a time, so that many callers cannot occupy all threads of the node.
        self._services = AnsweringServices(core.node, core.calls, core.faults)
        self._services.offer(Segment, "segment", self._answer)

    def close(self) -> None:
        """Destroys the service."""
        self._services.close()

    def _answer(self, request: Segment.Request, response: Segment.Response) -> Segment.Response:
        try:
            self._segment(request, response)
        except (ValueError, RuntimeError) as error:  # ConversionError is a ValueError
            response.success, response.message = False, str(error)
        return response

    def _segment(self, request: Segment.Request, response: Segment.Response) -> None:
        if not self._core.active:
            raise RuntimeError("the node is not active: activate it first")
        config, predictor = self._core.config, self._host.predictor
        if not request.prompts or len(request.prompts) + len(request.negatives) > MAX_PROMPTS:
            got = f"{len(request.prompts)} prompts and {len(request.negatives)} negatives"
            raise ValueError(f"give 1 to {MAX_PROMPTS} phrases, at least one of them a prompt; got {got}")
        prompts = tuple(as_commands_say(phrase) for phrase in request.prompts)
        negatives = tuple(as_commands_say(phrase) for phrase in request.negatives)
        rgb = image_to_rgb(request.image)
        references = tuple(reference_of(phrase) for phrase in request.prompts)
        asking = self._refining.asking(prompts, references, negatives, predictor.spec)
        threshold = asking.threshold(request.threshold or config.asked_threshold, predictor.spec.threshold)
        question = Question(asking.names, negatives, threshold, config.min_area_fraction)
        frame = CameraFrame(rgb, 0, request.image.header.frame_id)
        result = answer(predictor, predictor.encode(rgb), question, frame, self._refining.now())
        self._core.sizes.saw("segment", (rgb.shape, len(prompts)))
        header, shape = request.image.header, rgb.shape[:2]
        measured = [measure(region, frame) for region in result.regions]
        # A picture by itself does not tell where a person stands.
        speaker: Speaker = "unknown" if config.speaker_frame else "camera"
        understood = understand(asking, measured, result.maps, frame, speaker=speaker)
        regions = [each.region for each in understood.measured]
        response.objects = [object_message(region) for region in regions]
        response.anchors = relate(response.objects, regions, understood.ties)
        response.masks = [
            fill_image(
                Image(header=header),
                union_mask(label_image([region for region in regions if region.prompt == prompt], shape)),
                "mono8",
            )
            for prompt in prompts
        ]
        response.labels = fill_image(Image(header=header), label_image(regions, shape), "8UC1")
        notes = [f"{len(regions)} objects found", *understood.sentences.values()]
        response.success, response.message = True, self._with_caution("; ".join(notes))
