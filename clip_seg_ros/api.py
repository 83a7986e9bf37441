# SPDX-License-Identifier: Apache-2.0
"""The public interface of the package: everything that a program needs to find objects in images.

``rgb`` is an (H, W, 3) uint8 image. The probabilities, masks and objects that are returned have its size.

Everything here works without ROS and keeps its name; the modules in which it is defined may change. The nodes use these
same functions.

Examples:
    >>> predictor = Predictor.from_name("clipseg-pocket")
    >>> command = parse_command("find the red cup, not the blue one")
    >>> encoded = predictor.encode(rgb)
    >>> found = answer(predictor, encoded, Question(command.prompts, command.negatives))
    >>> [(region.prompt, region.centroid_px) for region in found.regions]
    [('red cup', (...))]
"""

from clip_seg_ros.commands.parser import Command, CommandError, parse_command, parse_reference
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.spec import SlidingWindow
from clip_seg_ros.pipeline.alike import instances_like
from clip_seg_ros.pipeline.answering import Answer, Question, Refinement, Stream, answer
from clip_seg_ros.pipeline.class_labels import ClassMap, class_regions
from clip_seg_ros.pipeline.instances import Instance
from clip_seg_ros.pipeline.overlay import draw
from clip_seg_ros.pipeline.pointing import thing_at, thing_in
from clip_seg_ros.pipeline.postprocess import label_image, masks, regions
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.sliding import window_boxes
from clip_seg_ros.pipeline.space.localization import Measurement, measure, with_position
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.pipeline.space.solids import SpaceFrame
from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.runtime.chosen import Chosen, EngineWarning
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, MaskSet, ObjectRegion, OrientedBox, ProbabilityMaps
from clip_seg_ros.zoo.caution import EmbeddedWeightsWarning

__all__ = [
    "Answer",
    "CameraFrame",
    "CameraIntrinsics",
    "Chosen",
    "ClassMap",
    "Command",
    "CommandError",
    "EmbeddedWeightsWarning",
    "EncodedImage",
    "EngineWarning",
    "Instance",
    "MaskSet",
    "Measurement",
    "ObjectMemory",
    "ObjectRegion",
    "OrientedBox",
    "Predictor",
    "ProbabilityMaps",
    "Question",
    "Reference",
    "Refinement",
    "Resolution",
    "Separator",
    "SlidingWindow",
    "SpaceFrame",
    "Stream",
    "WeightsError",
    "answer",
    "class_list",
    "class_list_names",
    "class_regions",
    "draw",
    "instances_like",
    "label_image",
    "masks",
    "measure",
    "parse_command",
    "parse_reference",
    "regions",
    "resolve",
    "thing_at",
    "thing_in",
    "window_boxes",
    "with_position",
]
