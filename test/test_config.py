import math
from dataclasses import FrozenInstanceError, fields

import pytest

from clip_seg_ros.config import ReferringConfig, parameters


def test_defaults_are_valid():
    config = ReferringConfig()
    assert config.model == "clipseg-pocket"
    assert config.threshold == 0.5
    with pytest.raises(FrozenInstanceError):
        config.threshold = 0.1


def test_a_mapping_replaces_what_it_names():
    config = ReferringConfig.from_mapping({"threshold": 1, "depth_topic": ""})
    assert config == ReferringConfig(threshold=1.0, depth_topic="")
    assert type(config.threshold) is float


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="unknown settings: thresold, zoom; the known ones are .*threshold"):
        ReferringConfig.from_mapping({"zoom": 1, "thresold": 0.4, "device": "cpu"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold", 1.1, r"threshold must lie in 0\.\.1, got 1\.1"),
        ("threshold", -0.1, r"threshold must lie in 0\.\.1"),
        ("threshold", math.nan, r"threshold must lie in 0\.\.1, got nan"),
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


def test_every_setting_describes_itself():
    listed = parameters(ReferringConfig)
    assert [setting.name for setting in listed] == [item.name for item in fields(ReferringConfig)]
    for setting in listed:
        assert setting.description.endswith(".")
        assert type(setting.default) is setting.type
        if setting.type is float:
            assert setting.low <= setting.default <= setting.high
        else:
            assert setting.low is None and setting.high is None


def test_the_range_told_is_the_range_checked():
    for setting in parameters(ReferringConfig):
        if setting.type is float:
            ReferringConfig.from_mapping({setting.name: setting.low})
            ReferringConfig.from_mapping({setting.name: setting.high})
            with pytest.raises(ValueError, match=setting.name):
                ReferringConfig.from_mapping({setting.name: math.nextafter(setting.high, math.inf)})
