# SPDX-License-Identifier: Apache-2.0
"""What the viewer is shown of a node ``semantic``, and of a node ``referring`` that starts beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.viewer.source import Refused
from ros_harness import NodeProcess, Talker
from viewed_robot import LOOKED_AT, Playing, rendered_views, topics_of, viewing

NAMESPACE = "classified"


def test_classes_are_shown_until_there_is_a_node_for_phrases(ros: None, tmp_path: Path) -> None:
    truth = rendered_views()[0]
    image = topics_of(NAMESPACE)[0]
    semantic = NodeProcess("semantic", tmp_path / "semantic", [image], namespace=NAMESPACE)
    referring = None
    try:
        semantic.wait_said("commands:")
        with (
            viewing(NAMESPACE) as (source, shown),
            Talker.camera(f"/{NAMESPACE}", depth=False) as camera,
            Playing(camera, [truth]),
        ):
            assert shown.event("back")["message"] == f"/{NAMESPACE}/semantic answers"
            source.want(LOOKED_AT)
            view = shown.view(lambda view: view.things)
            cups = [thing.id for thing in view.things if thing.prompt == "cup"]
            true_cups = truth.mask_of("red", "cup") | truth.mask_of("green", "cup")
            assert mask_iou(np.isin(view.labels, cups), true_cups) > 0.5
            assert {each.name for each, _ in source.parameters()} >= {"min_confidence", "model"}
            source.set_parameter("min_confidence", 0.2)
            assert shown.event("parameter", name="min_confidence")["value"] == 0.2
            with pytest.raises(Refused, match="start a node `referring`"):
                source.point("", (10, 10))
            referring = NodeProcess("referring", tmp_path / "referring", topics_of(NAMESPACE), namespace=NAMESPACE)
            assert shown.event("back", message=f"/{NAMESPACE}/referring answers")
            source.command("segment the blue box")
            shown.event("status", state="found")
            view = shown.view(lambda view: [thing.prompt for thing in view.things] == ["blue box"])
            assert mask_iou(view.labels > 0, truth.mask_of("blue", "box")) > 0.7
            shown.forget()
            assert referring.end() == 0
            shown.event("back", message=f"/{NAMESPACE}/semantic answers")
            shown.view(lambda view: "cup" in [thing.prompt for thing in view.things])
    finally:
        semantic.end()
        if referring is not None:
            referring.end()
