# SPDX-License-Identifier: Apache-2.0
"""Models for any phrase that do not come with the package, in both nodes: small ones of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image, RegionOfInterest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.pipeline.alike import instances_like
from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.srv import SegmentAt
from clip_seg_ros.zoo.formats import convert
from clip_seg_ros.zoo.writing import store
from ros_harness import Camera, NodeProcess, SemanticWatcher, pixels_of, running_referring, wait_until
from small_models import small_model, talk2dino_config
from small_sam3 import small_network

CLASSES = ("cup", "box", "red cup")
KINDS = ("talk2dino", "sam3")


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Predictor]:
    """(the name of a model in ``tmp_path``, what answers as the node should)"""
    if request.param == "talk2dino":
        converted = Converted(talk2dino_config(), small_model("talk2dino").state_dict())
    else:
        try:
            network = small_network()
        except WeightsError as error:
            pytest.skip(str(error))
        converted = convert(network.state_dict(), "tiny", {"config": network.config.to_dict()})
    model = store(converted, tmp_path / f"my-{request.param}.safetensors")
    return model.name, Predictor(EagerEngine(model, "cpu"))


def arguments(name: str, folder: Path) -> list[str]:
    where = [f"model:={name}", f"weights_dir:={folder}", f"image_topic:=/{name.replace('-', '_')}/image"]
    return [*where, "engine:=eager"]


def test_semantic(ros, served, log, tmp_path, view):
    name, predictor = served
    encoded = predictor.encode(view.rgb)
    watcher = SemanticWatcher("other_models")
    asked = [*arguments(name, tmp_path), f"classes:={list(CLASSES)}"]
    node = NodeProcess("semantic", log, asked, namespace="other_models")
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        with Camera(depth=False, topic=f"/{name.replace('-', '_')}/image") as camera:
            stamp = camera.send(fill_image(Image(), view.rgb, "rgb8"))
            labels = pixels_of(watcher.of_stamp("semantic/labels", stamp))
    finally:
        watcher.close()
        assert node.end() == 0, node.said()
    assert "Traceback" not in node.said()
    assert (labels == predictor.classify(encoded, CLASSES).labels).mean() > 0.98


def test_referring(ros, served, log, tmp_path, view):
    name, predictor = served
    (probabilities,) = predictor.predict(view.rgb, ["cup"]).values
    threshold = float(np.quantile(probabilities, 0.6))
    expected = answer(predictor, predictor.encode(view.rgb), Question(("cup",), threshold=threshold)).regions
    asked = [*arguments(name, tmp_path), f"threshold:={threshold}", "depth_topic:=''", "min_area_fraction:=0.0"]
    asked += ["hysteresis:=0.0", "separate_touching:=false"]
    with running_referring(log, "other_models", asked) as (_, watcher):
        assert watcher.say("segment the cup").state == CommandStatus.ACCEPTED
        with Camera(depth=False, topic=f"/{name.replace('-', '_')}/image") as camera:
            picture = fill_image(Image(), view.rgb, "rgb8")
            wait_until(lambda: camera.send(picture) and watcher.seen["mask"], "a mask")
        found = pixels_of(watcher.seen["mask"][0]) > 0
        objects = wait_until(lambda: watcher.seen["objects"], "objects")[0].objects
    assert mask_iou(found, np.any([region.mask for region in expected], axis=0)) > 0.98
    assert [item.score for item in objects] == pytest.approx([region.score for region in expected], abs=1e-3)
    if not predictor.spec.finds_objects:
        # Objects are outlined at the resolution of the model, whose cells are up to 20 pixels wide here.
        assert mask_iou(found, probabilities > threshold) > 0.8


@pytest.mark.parametrize("served", ["sam3"], indirect=True)
def test_all_things_like_that_in_a_box(ros, served, log, tmp_path, view):
    name, predictor = served
    box, other = (100, 120, 220, 260), (300, 40, 420, 200)
    encoded = predictor.encode(view.rgb)
    scores = [item.score for item in instances_like(predictor, encoded, [box, other], [True, False], least_score=0.0)]
    threshold = (scores[1] + scores[2]) / 2
    expected = instances_like(predictor, encoded, [box, other], [True, False], least_score=threshold)
    request = SegmentAt.Request(image=fill_image(Image(), view.rgb, "rgb8"), box=roi(box), alike=True)
    with running_referring(log, "alike", [*arguments(name, tmp_path), f"threshold:={threshold}"]) as (_, watcher):
        request.unlike = [roi(other)]
        response = watcher.call(SegmentAt, "segment_at", request)
        assert response.success, response.message
        assert "2 things like that in (100, 120, 220, 260)" in response.message
        assert [item.score for item in response.objects] == pytest.approx([item.score for item in expected], abs=1e-3)
        assert [item.id for item in response.objects] == [1, 2]
        assert str(response.object) == str(response.objects[0])  # NaN, where there is no position, equals nothing
        union = np.any([item.region(1).mask for item in expected], axis=0)
        assert mask_iou(pixels_of(response.mask) > 0, union) > 0.98
        assert watcher.set_parameter("referring", "threshold", 1.0).successful
        nothing = watcher.call(SegmentAt, "segment_at", request)
        assert not nothing.success
        assert "nothing like that in (100, 120, 220, 260) is sure enough" in nothing.message


def roi(box: tuple[int, int, int, int]) -> RegionOfInterest:
    return RegionOfInterest(x_offset=box[0], y_offset=box[1], width=box[2] - box[0], height=box[3] - box[1])
