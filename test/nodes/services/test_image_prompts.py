# SPDX-License-Identifier: Apache-2.0
"""What the examples of a ``referring`` node may take, on a node in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.commands.errors import PlaceError
from clip_seg_ros.nodes import referring
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.life.segmentation_node import SegmentationNode
from clip_seg_ros.nodes.services import image_prompts
from clip_seg_ros.pipeline import naming
from clip_seg_ros.pipeline.memory import SizeWatch
from clip_seg_ros.srv import ListPrompts, RemovePrompt, SetImagePrompt


@pytest.fixture(scope="module")
def configured(ros: None) -> Iterator[SegmentationNode]:
    node = referring.create()
    node.trigger_configure()
    yield node
    node.destroy_node()


@pytest.fixture
def prompts(configured: SegmentationNode) -> Iterator[image_prompts.ImagePrompts]:
    """Those of the node; it forgets at the end what it was taught."""
    yield configured.task.image_prompts
    for name in names(configured.task.image_prompts):
        configured.task.image_prompts._remove(SetImagePrompt.Request(name=name), SetImagePrompt.Response())


def names(prompts: image_prompts.ImagePrompts) -> list[str]:
    return list(prompts._list(ListPrompts.Request(), ListPrompts.Response()).names)


def teach(prompts: image_prompts.ImagePrompts, name: str, side: int, text: str = "") -> SetImagePrompt.Response:
    """Teaches a grey square, as the service does."""
    image = fill_image(Image(), np.full((side, side, 3), 127, np.uint8), "rgb8")
    return prompts._set(SetImagePrompt.Request(name=name, image=image, text=text), SetImagePrompt.Response())


def test_examples_are_bounded_in_bytes_and_an_old_one_makes_room_for_its_successor(prompts, monkeypatch):
    # Three bytes of colour and one of the mask for each pixel.
    monkeypatch.setattr(image_prompts, "MAX_BYTES", 4 * (40 * 40 + 30 * 30))
    assert teach(prompts, "old mug", 40).success
    assert teach(prompts, "thing", 30).success
    refused = teach(prompts, "lamp", 10)
    assert not refused.success
    assert "the examples would take more than" in refused.message
    assert not teach(prompts, "thing", 31).success
    assert teach(prompts, "old mug", 38).success
    assert teach(prompts, "lamp", 10).success
    assert names(prompts) == ["old mug", "thing", "lamp"]


def test_examples_are_bounded_in_number(prompts, monkeypatch):
    monkeypatch.setattr(image_prompts, "MAX_EXAMPLES", 2)
    assert teach(prompts, "old mug", 10).success
    assert teach(prompts, "thing", 10).success
    refused = teach(prompts, "lamp", 10)
    assert not refused.success
    assert "there are 2 image prompts already" in refused.message
    assert teach(prompts, "thing", 12).success


def test_memory_is_given_back_when_examples_change_their_size(configured, prompts, monkeypatch):
    given_back = []
    clock = iter(range(0, 1000, 10)).__next__
    monkeypatch.setattr(configured.core, "sizes", SizeWatch(lambda: given_back.append(names(prompts)), clock))
    for side in (10, 10, 12):
        assert teach(prompts, "thing", side).success
    assert len(given_back) == 1


def test_names_and_texts_are_bounded_in_length(prompts):
    for refused in (
        teach(prompts, "x" * 10**6, 10),
        teach(prompts, "thing", 10, text="x" * 501),
        prompts._remove(RemovePrompt.Request(name="x" * 501), RemovePrompt.Response()),
    ):
        assert not refused.success
        assert "a phrase has at most 500 characters, got one of " in refused.message
        assert len(refused.message) < 100
    assert names(prompts) == []
    assert teach(prompts, "thing", 10, text="x" * 500).success


@pytest.mark.parametrize("phrase", ["salt and pepper", "not the red one", '"cup left of the"', "cup, box"])
def test_a_phrase_without_a_place_is_a_name(phrase):
    assert naming.reference_of(phrase).name == naming.as_commands_say(phrase)


@pytest.mark.parametrize("phrase", ["cup left of the", "the cup between the box", "the middle shelf"])
def test_a_place_that_is_not_understood_is_refused(phrase):
    with pytest.raises(PlaceError, match="type for example"):
        naming.reference_of(phrase)
