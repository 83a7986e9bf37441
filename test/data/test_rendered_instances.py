# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from clip_seg_ros.data import tabletop
from clip_seg_ros.data.rendered_instances import RenderedInstances, instance_sample, mask_boxes, view_instances
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import KINDS


def test_each_visible_object_has_its_mask_box_and_class() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:15, 10:30] = 1
    labels[15:35, 20:28] = 3  # the second object is hidden
    labels[0, 0] = 4
    sample = instance_sample(np.zeros((40, 60, 3), np.uint8), labels, ["cup", "bowl", "book", "cup"], "here")
    assert sample.labels.tolist() == [KINDS.index("cup"), KINDS.index("book"), KINDS.index("cup")]
    assert sample.boxes_px.tolist() == [[10, 5, 30, 15], [20, 15, 28, 35], [0, 0, 1, 1]]
    assert sample.areas_px.tolist() == [200, 160, 1]
    assert sample.crowd.tolist() == [False, False, True], "a single pixel of 2400 is too small to be learnt"
    assert np.array_equal(sample.masks[1], labels == 3)
    assert sample.name == "here"


def test_an_empty_table_has_no_objects() -> None:
    sample = instance_sample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), [], "bare")
    assert sample.boxes_px.shape == (0, 4)
    assert sample.masks.shape == (0, 8, 8)
    assert mask_boxes(sample.masks).shape == (0, 4)


def test_scenes_give_the_objects_of_their_label_images(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tabletop, "SHARD_SCENES", 2)
    list(tabletop.render_training_scenes(tmp_path, 2, 96, 64, workers=1))
    scenes = tabletop.load_training_scenes(tmp_path, 2)
    data = RenderedInstances(scenes)
    assert len(data) == 2
    assert data.class_names == KINDS
    sample = data[1]
    assert np.array_equal(sample.masks.any(axis=0), scenes.labels[1] > 0)
    assert len(sample.labels) == len(np.unique(scenes.labels[1])) - 1
    with SceneRenderer(96, 64) as renderer:
        again = view_instances(renderer.render(scenes.scene(1), depth=False), "scene 1")
    assert np.array_equal(again.masks, sample.masks)
    assert np.array_equal(again.labels, sample.labels)
