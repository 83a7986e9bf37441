# SPDX-License-Identifier: Apache-2.0
import math
import re
from dataclasses import FrozenInstanceError, asdict, dataclass, fields

import pytest

from clip_seg_ros.config import (
    FOR_CLASSES,
    FOR_PHRASES,
    CameraTopics,
    ReferringConfig,
    SemanticConfig,
    SimCameraConfig,
    WebViewConfig,
)
from clip_seg_ros.resources import class_list_names
from clip_seg_ros.settings import parameters

CONFIGS = [ReferringConfig, SemanticConfig, SimCameraConfig]


def test_defaults_are_valid():
    config = ReferringConfig()
    assert config.model == "auto"
    assert config.threshold == -1.0, "the model's own"
    assert config.asked_threshold is None, "the model's own"
    assert ReferringConfig(threshold=0.0).asked_threshold == 0.0
    with pytest.raises(FrozenInstanceError):
        config.threshold = 0.1


def test_a_mapping_replaces_what_it_names():
    config = ReferringConfig.from_mapping({"threshold": 1, "depth_topic": ""})
    assert config == ReferringConfig(threshold=1.0, depth_topic="")
    assert type(config.threshold) is float


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match=r"unknown settings: thresold, zoom; the known ones are .*threshold"):
        ReferringConfig.from_mapping({"zoom": 1, "thresold": 0.4, "device": "cpu"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold", 1.1, r"threshold must lie in 0\.\.1, or be -1 for the model's own, got 1\.1"),
        ("threshold", -0.1, r"threshold must lie in 0\.\.1, or be -1 for the model's own, got -0\.1"),
        ("threshold", math.nan, r"threshold must lie in 0\.\.1, .*got nan"),
        ("threshold", "0.4", "threshold must be a float, got '0.4'"),
        ("threshold", True, "threshold must be a float, got True"),
        ("min_area_fraction", 2, r"min_area_fraction must lie in 0\.\.1"),
        ("depth_tolerance_s", -1.0, r"depth_tolerance_s must lie in 0\.\.10"),
        ("model", "", "model must not be empty"),
        ("image_topic", " ", "image_topic must not be empty"),
        ("device", None, "device must be a str, got None"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        ReferringConfig.from_mapping({name: value})


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_describes_itself(config):
    listed = parameters(config)
    assert [setting.name for setting in listed] == [item.name for item in fields(config)]
    for setting in listed:
        assert re.fullmatch(r"[A-Z].+\.", setting.description), "a plain sentence, or two"
        assert len(setting.description) <= 200, "it is read in a terminal and in a table"
        assert type(setting.default) is setting.type
        if setting.type in (float, int):
            assert setting.low <= setting.default <= setting.high
        else:
            assert setting.low is None
            assert setting.high is None


def test_a_field_that_does_not_describe_itself_is_named():
    @dataclass(frozen=True)
    class Plain(ReferringConfig):
        greeting: str = ""

    with pytest.raises(TypeError, match=r"Plain\.greeting must be made with text\(\)"):
        parameters(Plain)


def test_the_class_lists_that_are_described_are_those_that_there_are():
    (described,) = (each.description for each in parameters(SemanticConfig) if each.name == "class_list")
    assert sorted(re.findall(r"[a-z_]+[0-9]+k?", described)) == sorted(class_list_names())


@pytest.mark.parametrize(
    ("config", "name", "allowed"),
    [
        (ReferringConfig, "threshold", "-1, or 0 to 1"),
        (ReferringConfig, "max_points", "1 to 1000000"),
        (ReferringConfig, "precision", "auto, float32, bfloat16, float16 or int8"),
        (ReferringConfig, "image_transport", "raw or compressed"),
        (ReferringConfig, "target_frame", ""),
        (ReferringConfig, "image_topics", ""),
        (ReferringConfig, "rectified", ""),
        (SimCameraConfig, "rate_hz", "0.1 to 120"),
    ],
)
def test_what_is_allowed_is_told_in_words(config, name, allowed):
    assert [each.allowed for each in parameters(config) if each.name == name] == [allowed]


def test_no_value_is_the_empty_list():
    """As rclpy reads "image_topics: []" in a file."""
    assert ReferringConfig.from_mapping({"image_topics": None}) == ReferringConfig()
    with pytest.raises(ValueError, match="device must be a str, got None"):
        ReferringConfig.from_mapping({"device": None})


def test_one_camera_has_no_name_and_all_topics():
    (camera,) = ReferringConfig(image_topic="/a/image", depth_topic="/a/depth").cameras()
    assert camera == CameraTopics("", "/a/image", "/a/depth", "/camera/color/camera_info")
    assert SemanticConfig().cameras() == (CameraTopics("", "/camera/color/image_raw"),)


def test_several_cameras_are_called_after_their_topics_or_as_one_says():
    topics = {
        "image_topics": ["/left/color/image_raw", "/right/image_raw"],
        "depth_topics": ["/left/depth", "/right/depth"],
    }
    left, right = ReferringConfig.from_mapping(topics).cameras()
    assert left == CameraTopics("left", "/left/color/image_raw", "/left/depth")
    assert right.name == "right"
    named = ReferringConfig.from_mapping({**topics, "camera_names": ["hand", "head"], "depth_topics": [""]})
    assert [(camera.name, camera.depth) for camera in named.cameras()] == [("hand", ""), ("head", "")]


@pytest.mark.parametrize("depth", [["", "/right/depth"], ["/left/depth", ""], ["", ""]])
def test_some_cameras_may_have_no_depth(depth):
    """Empty texts of the other lists still count for nothing, and one empty text is still the empty list."""
    config = ReferringConfig.from_mapping(
        {
            "image_topics": ["/left/color", "", "/right/color"],
            "depth_topics": depth,
            "camera_info_topics": [""],
        }
    )
    assert [camera.depth for camera in config.cameras()] == depth
    assert config.camera_info_topics == ()
    assert [camera.image for camera in config.cameras()] == ["/left/color", "/right/color"]
    assert ReferringConfig.from_mapping(asdict(config)) == config, "as the node makes it anew with every change"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_topics": ["/robot/a", "/robot/b"]}, "different names, got robot, robot: set camera_names"),
        (
            {"image_topics": ["/a/x", "/b/x"], "camera_names": ["a"]},
            "must name each of image_topics, got 1 names for 2",
        ),
        ({"image_topics": ["/a/x", "/b/x"], "depth_topics": ["/a/d"]}, "depth_topics must have one topic for each"),
        (
            {"camera_info_topics": ["/a/i"]},
            "camera_info_topics must have one topic for each of image_topics, got 1 for 0",
        ),
        ({"image_topics": "/a/x"}, "image_topics must be a list of texts, got '/a/x'"),
        ({"things": ["cup", "x" * 501]}, "a text of things has at most 500 characters, got one of 501"),
        ({"image_topics": [1]}, r"image_topics must be a list of texts, got \(1,\)"),
        ({"precision": "double"}, "precision must be auto, float32, bfloat16, float16 or int8, got 'double'"),
        ({"autostart": 1}, "autostart must be a bool, got 1"),
        ({"max_points": 2.5}, "max_points must be a whole number, got 2.5"),
        ({"max_points": 0}, r"max_points must lie in 1\.\."),
    ],
)
def test_lists_choices_and_switches_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        ReferringConfig.from_mapping(values)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_range_told_is_the_range_checked(config):
    for setting in parameters(config):
        if setting.type in (float, int):
            config.from_mapping({setting.name: setting.low})
            config.from_mapping({setting.name: setting.high})
            above = math.nextafter(setting.high, math.inf) if setting.type is float else setting.high + 1
            with pytest.raises(ValueError, match=setting.name):
                config.from_mapping({setting.name: above})


def test_auto_needs_classes_for_a_model_that_takes_any() -> None:
    assert ReferringConfig().automatic_models == FOR_PHRASES
    assert SemanticConfig().automatic_models == FOR_CLASSES[-1:]
    for values in ({"classes": ("cup",)}, {"class_list": "voc20"}):
        assert SemanticConfig(**values).automatic_models == FOR_CLASSES


@pytest.mark.parametrize("token", ["short", "with a space", "ünicode-token", "x" * 201])
def test_a_token_that_no_address_can_hold_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token must have 8 to 200"):
        WebViewConfig(token=token)
    assert WebViewConfig(token="long-enough").token == "long-enough"
