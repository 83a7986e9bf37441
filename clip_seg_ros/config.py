# SPDX-License-Identifier: Apache-2.0
"""The settings of the nodes, which are their ROS parameters: ``parameters(ReferringConfig)`` lists them.

This is the only place where a parameter is described. ``make params`` writes the comments of ``config/*.yaml`` and the
tables of ``docs/nodes.md`` from here, and the launch files describe their arguments with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clip_seg_ros.commands.parser import MAX_CHARACTERS
from clip_seg_ros.settings import OWN, Config, number, switch, text, texts

ENGINE_NAMES = ("auto", "eager", "cuda_graph", "openvino", "onnxruntime")
"""What may be asked to run a model; ``auto`` stands for the fastest whose answers are right on this machine."""
RELATION_WAYS = ("model", "geometry", "both")
"""Who decides what a phrase with places, order or number means: a model that understands it, where the things are, or
the latter and, if that finds nothing, the former."""
REMEMBER_WAYS = ("auto", "always", "never")
"""Whether there is a memory of objects; they are no switch, because ``auto`` looks at the name of the target frame."""
PRECISION_NAMES = ("auto", "float32", "bfloat16", "float16", "int8")
"""What a model may be asked to compute with; ``auto`` leaves it to the engine."""


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera; an empty one is done without."""

    name: str
    """Put before the names of the outputs; empty where there is only one camera."""
    image: str
    depth: str = ""
    camera_info: str = ""


_SMALLEST_OBJECT = "The smallest object that is reported, as a share of the image's pixels."


AUTO = "auto"
"""Stands for the best model whose weights are there."""
FOR_PHRASES = ("clipseg-rd64-refined", "clipseg-pocket")
"""What ``AUTO`` stands for where phrases are asked: published weights if they were downloaded, else the embedded."""
FOR_CLASSES = ("maskclip-vit-b16", "denseclip-pocket")
"""The same where classes are asked; a MaskCLIP needs a list of them."""


def _model(what: str, auto: str) -> Any:
    way = "by its name or a weight file's path. While a new one loads, the old one goes on."
    return text(AUTO, f"{what}, {way} {auto}", required=True, live=True)


@dataclass(frozen=True)
class SegmentationConfig(Config):
    """Settings that both nodes have."""

    model: str = _model("The model that segments", "Auto is the best one that is there.")
    device: str = text(
        "auto",
        "The device on which the model runs: auto, cpu, cuda or cuda:N. With auto it is CUDA where there is any, and "
        "the CPU elsewhere.",
        required=True,
    )
    engine: str = text(
        "auto",
        "What runs the model. With auto it is the fastest engine of this machine whose masks agree with those of "
        "eager, which is PyTorch itself.",
        choices=ENGINE_NAMES,
    )
    precision: str = text(
        "auto",
        "The type of the numbers that the model computes with. With auto the engine chooses it; int8 needs a model "
        "that clip-seg export has calibrated.",
        choices=PRECISION_NAMES,
    )
    weights_dir: str = text(
        "",
        "The folder of the weight files. If it is empty, the weights that came with the package and those that were "
        "downloaded or converted are used.",
        at_start=True,
    )
    download: bool = switch(
        False,
        "Whether published weights that the model auto prefers are fetched if they are not there, while the embedded "
        "model serves. seg.launch.py sets it to true.",
        live=False,
        at_start=True,
    )
    allow_model_paths: bool = switch(
        False,
        "Whether the parameter model may change to any weight file of this machine. If false, it may change only to "
        "files in the folders of weights.",
        live=False,
        at_start=True,
    )
    image_topic: str = text(
        "/camera/color/image_raw", "The colour images to segment, sensor_msgs/Image.", required=True
    )
    image_topics: tuple[str, ...] = texts(
        "The colour images of several cameras, such as /left/image_raw and /right/image_raw. They replace image_topic."
    )
    camera_names: tuple[str, ...] = texts(
        "The names of the cameras of image_topics, with which their outputs begin. If the list is empty, each name is "
        "the first part of the topic, such as left of /left/image_raw."
    )
    image_transport: str = text(
        "raw",
        "How the images are sent. If it is compressed, they are read from TOPIC/compressed.",
        choices=("raw", "compressed"),
    )
    command_topic: str = text("command", "The text commands, std_msgs/String.", required=True)
    initial_command: str = text(
        "", 'The command to start with, such as "segment the red cup". If it is empty, there is none.'
    )
    max_rate_hz: float = number(
        0.0,
        0.0,
        1000.0,
        "The largest number of images a second that are answered of each camera. 0 stands for no limit.",
    )
    autostart: bool = switch(
        True,
        "Whether the node configures and activates itself at once. If false, it waits for a lifecycle manager.",
        live=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cameras()

    @property
    def automatic_models(self) -> tuple[str, ...]:
        """What the model "auto" stands for, best first; the last one is always there."""
        return FOR_PHRASES

    def cameras(self) -> tuple[CameraTopics, ...]:
        """The cameras that there are, with different names.

        Raises:
            ValueError: The lists of topics and names do not fit each other.
        """
        if not self.image_topics:
            return (self._camera("", self.image_topic, None),)
        names = self.camera_names or tuple(_camera_name(topic) for topic in self.image_topics)
        if len(names) != len(self.image_topics):
            counts = f"{len(names)} names for {len(self.image_topics)}"
            raise ValueError(f"camera_names must name each of image_topics, got {counts}")
        if len(set(names)) != len(names):
            raise ValueError(f"cameras must have different names, got {', '.join(names)}: set camera_names")
        return tuple(self._camera(*named, index) for index, named in enumerate(zip(names, self.image_topics)))

    def _camera(self, name: str, image: str, index: int | None) -> CameraTopics:
        """One camera; ``index`` is its place in the lists, ``None`` where there are none."""
        return CameraTopics(name, image)


def _camera_name(topic: str) -> str:
    """Returns the first part of a topic: "left" of "/left/color/image_raw"."""
    return topic.strip("/").split("/")[0]


@dataclass(frozen=True)
class ReferringConfig(SegmentationConfig):
    """Settings of the ``referring`` node: one mask a phrase."""

    model: str = _model(
        "The model that segments what commands name",
        f"Auto is {FOR_PHRASES[0]} if it was downloaded, else {FOR_PHRASES[1]}.",
    )
    threshold: float = number(
        OWN,
        0.0,
        1.0,
        "A pixel belongs to a phrase when its probability is greater than this. -1 stands for the threshold that the "
        "model brings.",
        own=True,
    )
    min_area_fraction: float = number(0.002, 0.0, 1.0, _SMALLEST_OBJECT)
    depth_topic: str = text(
        "/camera/depth/image_raw",
        "The depth images, aligned with the colour images, sensor_msgs/Image. If it is empty, objects have no "
        "positions.",
    )
    depth_topics: tuple[str, ...] = texts(
        "The depth images of the cameras of image_topics, in the same order. An empty text stands for a camera "
        "without depth.",
        blanks=True,
    )
    camera_info_topic: str = text(
        "/camera/color/camera_info",
        "The intrinsics of the colour camera, sensor_msgs/CameraInfo. If it is empty, objects have no positions.",
    )
    camera_info_topics: tuple[str, ...] = texts(
        "The intrinsics of the cameras of image_topics, in the same order. An empty text stands for a camera without "
        "intrinsics.",
        blanks=True,
    )
    rectified: bool = switch(
        False,
        "Whether the images are rectified already, as image_rect is. If true, P of the camera_info describes them, "
        "without distortion, and if false, K and D do.",
    )
    depth_tolerance_s: float = number(
        0.02, 0.0, 10.0, "The largest difference in seconds between the stamps of a colour image and its depth image."
    )
    target_frame: str = text(
        "", "The frame of the positions, by tf2. If it is empty, they are in the optical frame of the camera."
    )
    remember: str = text(
        "auto",
        "Whether what was seen is remembered in target_frame. With auto it is if that is set and not named like a part "
        "of a robot, as base_link is.",
        choices=REMEMBER_WAYS,
        live=True,
    )
    memory_file: str = text(
        "",
        "The file that keeps what is remembered: it is read when the node is configured, and written now and then and "
        "when it stops. If it is empty, there is none.",
        at_start=True,
    )
    max_points: int = number(20000, 1, 1000000, "The largest number of points that one object has in the point cloud.")
    smoothing: float = number(
        0.9,
        0.0,
        0.99,
        "How much of the past a mask keeps where the image stands still. With 0, each image is answered by itself, "
        "without hysteresis.",
    )
    hysteresis: float = number(
        0.05,
        0.0,
        0.5,
        "A pixel enters a mask when its probability is this much above the threshold, and leaves it when it is this "
        "much below.",
    )
    track_age_s: float = number(
        2.0,
        0.0,
        60.0,
        "How many seconds an object keeps its id while it is out of sight. With 0, ids only count the objects of each "
        "image.",
    )
    refine_edges: bool = switch(
        False,
        "Whether masks are fitted to the edges of the image. Their borders are sharper where a model answers coarsely, "
        "as published CLIPSeg weights do.",
    )
    separate_touching: bool = switch(
        True,
        "Whether objects of one phrase that touch in the image are taken apart, by their colours, shapes and depth. "
        "Otherwise they are one object.",
    )
    relations: str = text(
        "model",
        "Who decides places and order: model is the model if it understands them, else where things are; geometry is "
        "where things are; both compares the two and tells where they differ.",
        choices=RELATION_WAYS,
        live=True,
    )
    speaker_frame: str = text(
        "",
        'The frame of the person who speaks, x forward and y to the left, by tf2: whose left "on my left" is. If it is '
        "empty, the camera stands for the person.",
    )
    segment_at_model: str = text(
        "own",
        "What the service segment_at asks. Own is the node's model; else the folder or the name of weights of SAM 2 or "
        "EdgeTAM, such as facebook/sam2.1-hiera-tiny.",
        required=True,
    )
    things: tuple[str, ...] = texts(
        'The names that the command "what do you see?" asks about, or the name of one class list. If the list is '
        "empty, they are the model's own words.",
        live=True,
        longest=MAX_CHARACTERS,
    )

    @property
    def asked_threshold(self) -> float | None:
        """The threshold that the user asks for, 0..1; ``None`` for the model's own."""
        return None if self.threshold == OWN else self.threshold

    def cameras(self) -> tuple[CameraTopics, ...]:
        for name in ("depth_topics", "camera_info_topics"):
            given, wanted = len(getattr(self, name)), len(self.image_topics)
            if given not in (0, wanted):
                raise ValueError(f"{name} must have one topic for each of image_topics, got {given} for {wanted}")
        return super().cameras()

    def _camera(self, name: str, image: str, index: int | None) -> CameraTopics:
        if index is None:
            return CameraTopics(name, image, self.depth_topic, self.camera_info_topic)
        parts = (part[index] if part else "" for part in (self.depth_topics, self.camera_info_topics))
        return CameraTopics(name, image, *parts)


@dataclass(frozen=True)
class SemanticConfig(SegmentationConfig):
    """Settings of the ``semantic`` node: one class a pixel."""

    model: str = _model(
        "The model that classifies",
        f"Auto is {FOR_CLASSES[0]} if it was downloaded and classes are set, else {FOR_CLASSES[1]}.",
    )
    initial_command: str = text(
        "", 'The command to start with, such as "classes: cup, table, floor". If it is empty, there is none.'
    )
    classes: tuple[str, ...] = texts(
        "The classes to tell apart. If the list is empty, they are those of class_list, or else the model's own.",
        longest=MAX_CHARACTERS,
    )
    class_list: str = text(
        "",
        "The name of a list of classes that comes with the package: ade20k, cityscapes19, coco_stuff171, "
        "pascal_context59 or voc20. It counts where classes is empty.",
    )
    min_confidence: float = number(
        0.0, 0.0, 1.0, "A pixel stays unlabelled (255) where no class is as probable as this."
    )
    min_area_fraction: float = number(0.002, 0.0, 1.0, _SMALLEST_OBJECT)

    @property
    def automatic_models(self) -> tuple[str, ...]:
        return FOR_CLASSES if self.classes or self.class_list else FOR_CLASSES[1:]


@dataclass(frozen=True)
class SimCameraConfig(Config):
    """Settings of the ``sim_camera`` node: a rendered table seen by a depth camera."""

    seed: int = number(0, 0, 2**31 - 1, "The number of the scene to draw.")
    required: tuple[str, ...] = texts('The objects that must be in the scene, such as "red cup" or "box".', live=True)
    forbidden: tuple[str, ...] = texts(
        'The objects that must not be in the scene, such as "red cup" or "white".', live=True
    )
    rate_hz: float = number(10.0, 0.1, 120.0, "How many images a second are published.", live=False)
    width: int = number(640, 16, 4096, "The width of the images in pixels.", live=False)
    height: int = number(480, 16, 4096, "The height of the images in pixels.", live=False)
    depth_encoding: str = text(
        "32FC1",
        "The encoding of the depth images. 32FC1 is in metres, 16UC1 in millimetres.",
        choices=("32FC1", "16UC1"),
    )
    reliability: str = text(
        "best_effort",
        "The reliability of the camera's topics. Real cameras publish with best_effort.",
        choices=("best_effort", "reliable"),
    )
    motion: str = text("none", "The motion of the camera. With orbit it circles the table.", choices=("none", "orbit"))


@dataclass(frozen=True)
class WebViewConfig(Config):
    """Settings of the ``web_view`` node: a live view of the other nodes in the browser."""

    host: str = text(
        "127.0.0.1",
        "The address to listen on. 127.0.0.1 serves this machine alone, and 0.0.0.0 everybody who reaches it and has "
        "the token.",
        required=True,
    )
    port: int = number(8088, 0, 65535, "The port to listen on. 0 stands for any that is free.", live=False)
    token: str = text(
        "",
        "What the address must hold. If it is empty, nothing is needed on 127.0.0.1, and elsewhere a random token is "
        "made, which the log has.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        word = self.token
        if word and not (8 <= len(word) <= 200 and word.isascii() and word.isprintable() and " " not in word):
            raise ValueError("token must have 8 to 200 letters, digits and signs of ASCII, and no spaces")
