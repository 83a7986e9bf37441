# SPDX-License-Identifier: Apache-2.0
"""Sources have names of their own that are good names of files."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.job import Source
from clip_seg_ros.annotation.naming import name_of, sources_of
from clip_seg_ros.data.samples import DataError
from written_sources import write_pictures


@pytest.mark.parametrize(
    ("spec", "topic", "name"),
    [
        ("recordings/kitchen.mcap", None, "kitchen"),
        ("kitchen.mcap", "/left/color/image_raw", "kitchen_left_color_image_raw"),
        ("/data/Küche 1/", None, "K_che_1"),
        ("photos/*.jpg", None, "photos"),
        ("s3://bucket/2026.01.02_drive", None, "2026.01.02_drive"),
        ("..", None, "source"),
    ],
)
def test_the_name_of_a_source(spec, topic, name):
    assert name_of(spec, topic) == name


def test_each_camera_of_a_bag_is_a_source(tmp_path, moving):
    pictures = [(name, view.rgb, "rgb8") for name, view in zip(("/left", "/right"), moving, strict=False)]
    bag = str(write_pictures(tmp_path / "bag", pictures))
    assert sources_of([bag]) == (Source("bag_left", bag, "/left"), Source("bag_right", bag, "/right"))
    assert sources_of([bag], ["/right"]) == (Source("bag", bag, "/right"),)
    with pytest.raises(DataError, match="no colour images on /up; it holds /left, /right"):
        sources_of([bag], ["/up"])
    with pytest.raises(DataError, match=r"no source holds images on /rihgt; .* there are: /left, /right"):
        sources_of([bag], ["/left", "/rihgt"])


def test_names_that_are_alike_are_told_apart(tmp_path, moving):
    bags = [
        str(write_pictures(tmp_path / name / "Table", [("/camera", moving[0].rgb, "rgb8")])) for name in ("one", "two")
    ]
    assert [each.name for each in sources_of(bags)] == ["Table", "Table_2"]


def test_a_recording_that_cannot_be_read_is_a_source_unless_it_is_all(tmp_path, moving):
    good = str(write_pictures(tmp_path / "good", [("/camera", moving[0].rgb, "rgb8")]))
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"nothing")
    assert sources_of([str(broken), good])[0] == Source("broken", str(broken))
    with pytest.raises(DataError, match=r"broken\.mcap"):
        sources_of([str(broken)])
    with pytest.raises(DataError, match="there is no file or folder"):
        sources_of([good, str(tmp_path / "nowhere.mcap")])
