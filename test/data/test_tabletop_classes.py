# SPDX-License-Identifier: Apache-2.0
import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes, class_map
from clip_seg_ros.data.tabletop_classes import TabletopClasses


def test_scenes_are_samples_with_classes():
    labels = np.zeros((2, 24, 32), np.uint8)
    labels[1, :4] = 1
    scenes = TabletopScenes(np.random.default_rng(0).integers(0, 255, (2, 24, 32, 3), np.uint8), labels, ((), ()))
    data = TabletopClasses(scenes)
    assert len(data) == len(data.names) == 2
    assert data.class_names == SEMANTIC_CLASSES
    sample = data[1]
    assert np.array_equal(sample.rgb, scenes.rgb[1])
    assert np.array_equal(sample.labels, class_map(scenes.scene(1), labels[1]))
    kind = scenes.scene(1).objects[0].kind
    assert (sample.labels[:4] == SEMANTIC_CLASSES.index(kind)).all()
    assert set(np.unique(sample.labels[4:])) <= {SEMANTIC_CLASSES.index(name) for name in ("table", "floor")} | {
        IGNORED
    }
    assert sample.name == data.names[1]
