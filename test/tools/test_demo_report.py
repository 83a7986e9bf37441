# SPDX-License-Identifier: Apache-2.0
import pytest

from clip_seg_ros.tools.demo_report import figures, is_right, report, table


def measured(prompt: str, found: int, present: int, **values) -> dict:
    names = ("score", "iou", "centroid_px", "centroid_error_px", "position_m", "position_error_m")
    return {"prompt": prompt, "found": found, "present": present, **dict.fromkeys(names), **values}


CUP = measured(
    "red cup",
    1,
    1,
    score=0.93,
    iou=0.8,
    centroid_px=[10.0, 20.0],
    centroid_error_px=1.0,
    position_m=[0.1, -0.2, 0.9],
    position_error_m=0.004,
)
BOX = measured("box", 2, 1, score=0.7, iou=0.6, centroid_px=[1.0, 2.0], centroid_error_px=3.0, position_m=None)
MISSED = measured("bowl", 0, 1)
UNKNOWN = measured("cup left of the box", 1, None, score=0.8)
RIGHTLY_ABSENT = measured("giraffe", 0, 0)
IMAGINED = measured("giraffe", 1, 0, score=0.6, centroid_px=[3.0, 4.0])


def reply(*items: dict) -> dict:
    return {"measured": list(items), "prompts": [item["prompt"] for item in items], "latency_ms": 50.0}


@pytest.mark.parametrize(
    ("items", "right"),
    [
        ((CUP,), True),
        ((CUP, RIGHTLY_ABSENT), True),
        ((MISSED,), False),
        ((CUP, MISSED), False),
        ((IMAGINED,), False),
        ((UNKNOWN,), True),
        ((UNKNOWN, MISSED), False),
    ],
)
def test_right_is_to_find_what_is_there_and_nothing_else(items, right):
    assert is_right(reply(*items)) is right


def test_report_of_one_prompt():
    assert report("find the red cup", 7, reply(CUP)) == {
        "command": "find the red cup",
        "found": True,
        "iou": 0.8,
        "centroid_error_px": 1.0,
        "position_error_m": 0.004,
        "latency_ms": 50.0,
        "prompts": ["red cup"],
        "seed": 7,
    }


def test_report_of_several_prompts_is_their_mean_over_what_was_measured():
    summed = report("x", 0, reply(CUP, BOX, MISSED))
    assert not summed["found"]
    assert (summed["iou"], summed["centroid_error_px"]) == (pytest.approx(0.7), 2.0)
    assert summed["position_error_m"] == 0.004
    assert report("x", 0, reply(MISSED))["iou"] is None


def test_figures():
    reports = [report("x", seed, reply(item)) for seed, item in enumerate((CUP, BOX, MISSED))]
    values = {item["name"]: item["value"] for item in figures(reports)}
    assert all(set(item) == {"name", "value", "unit"} for item in figures(reports))
    assert (values["demo.scenes"], values["demo.found"]) == (3, 2)
    assert values["demo.median_iou"] == pytest.approx(0.7)
    assert values["demo.median_position_error_m"] == 0.004
    assert "demo.median_iou" not in {item["name"] for item in figures(reports[2:])}


def test_table_has_a_line_for_each_prompt():
    heading, *lines = table(reply(CUP, MISSED, RIGHTLY_ABSENT)).splitlines()
    assert "IoU" in heading
    assert len(lines) == 3
    expected = ("red cup", "0.93", "0.80", "(10.0, 20.0)", "(0.100, -0.200, 0.900)", "0.004")
    assert all(word in lines[0] for word in expected)
    assert "not found" in lines[1]
    assert "none" in lines[2]


def test_an_unknown_truth_is_no_none():
    line = table(reply(UNKNOWN)).splitlines()[1]
    assert line.split()[5] == "?"
    assert "none" not in line
