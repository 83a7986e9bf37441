# SPDX-License-Identifier: Apache-2.0
import pytest

from clip_seg_ros.sim.naming import matches, pair_of
from clip_seg_ros.sim.scene import COLORS, KINDS


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_the_world_is_understood(color, kind):
    assert pair_of(f"{color} {kind}") == (color, kind)
    assert pair_of(f"the {color} {kind}{'es' if kind == 'box' else 's'}") == (color, kind)


@pytest.mark.parametrize(
    ("phrase", "pair"),
    [
        ("cup", (None, "cup")),
        ("the red mugs", ("red", "cup")),
        ("violet dishes", ("purple", "plate")),
        ("all boxes", (None, "box")),
        ("red", ("red", None)),
        ("white things", ("white", None)),
        ("giraffe", None),
        ("red giraffe", None),
        ("cup holder", None),
        ("thing", None),
        ("", None),
    ],
)
def test_phrases(phrase, pair):
    assert pair_of(phrase) == pair


def test_matches():
    assert matches(("red", "cup"), "red cup")
    assert matches((None, "cup"), "blue cup")
    assert matches(("red", None), "red box")
    assert not matches(("red", "cup"), "red bowl")
    assert not matches((None, "cup"), "red bowl")
