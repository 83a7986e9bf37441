# SPDX-License-Identifier: Apache-2.0
"""Files of ROS parameters, read as a node reads them."""

from __future__ import annotations

import pytest

from clip_seg_ros.parameter_file import parameters_of, sections

FILE = """
/**:
  ros__parameters: {threshold: 0.1, model: cris}
clip_seg:
  referring:
    ros__parameters: {threshold: 0.2}
/robot1/*/referring:
  ros__parameters: {threshold: 0.3}
/**/semantic:
  ros__parameters: {min_confidence: 0.4}
"""


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("/clip_seg/referring", {"threshold": 0.2, "model": "cris"}),
        ("/robot1/eyes/referring", {"threshold": 0.3, "model": "cris"}),
        ("/robot1/a/b/referring", {"threshold": 0.1, "model": "cris"}),
        ("/a/b/semantic", {"threshold": 0.1, "model": "cris", "min_confidence": 0.4}),
    ],
)
def test_sections_are_for_the_nodes_that_their_names_fit(node, expected, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(FILE)
    assert parameters_of(sections(file), node) == expected


def test_a_file_that_says_nothing_to_a_node_is_not_an_empty_section(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("amcl:\n  ros__parameters:\n    alpha1: 0.2\nclip_seg/referring:\n  ros__parameters:\n")
    assert parameters_of(sections(file), "/clip_seg/semantic") is None
    assert parameters_of(sections(file), "/clip_seg/referring") == {}


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not a YAML file"), ("- 1", "is not a file of ROS param")])
def test_other_files_are_refused(text, message, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        sections(file)
