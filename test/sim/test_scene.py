import numpy as np
import pytest

from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS, sample_rgba, sample_scene, shape_set


def pairs(scene):
    return [(item.color, item.kind) for item in scene.objects]


def test_the_world_is_as_large_as_it_says():
    assert len(KINDS) >= 8 and len(COLORS) >= 8


def test_a_seed_gives_one_scene():
    assert sample_scene(7) == sample_scene(7)
    assert sample_scene(7) != sample_scene(8)


def test_every_colour_and_every_kind_is_held_out_once():
    assert sorted(color for color, _ in HELD_OUT_PAIRS) == sorted(COLORS)
    assert sorted(kind for _, kind in HELD_OUT_PAIRS) == sorted(KINDS)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_required_is_there_and_what_is_forbidden_is_not(seed):
    scene = sample_scene(seed, required=[("red", "cup"), (None, "book")], forbidden=[("blue", None), ("red", "box")])
    found = pairs(scene)
    assert ("red", "cup") in found
    assert "book" in [kind for _, kind in found]
    assert "blue" not in [color for color, _ in found]
    assert ("red", "box") not in found
    assert len(found) >= 4


@pytest.mark.parametrize("seed", range(40))
def test_objects_do_not_touch_and_no_two_share_a_shape(seed):
    scene = sample_scene(seed)
    assert len({(item.kind, item.slot) for item in scene.objects}) == len(scene.objects)
    standing = [item for item in scene.objects if not item.lying]
    for i, a in enumerate(standing):
        for b in standing[:i]:
            reach = sum(shape_set(scene.shape_seed)[o.kind][o.slot].footprint_radius for o in (a, b))
            assert np.hypot(a.position[0] - b.position[0], a.position[1] - b.position[1]) > reach


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"required": [("pink", "cup")]}, "unknown colour 'pink'"),
        ({"forbidden": [("red", "spoon")]}, "unknown kind of object 'spoon'"),
        ({"required": [(None, None)]}, "must name a colour, a kind or both"),
        ({"required": [("red", "cup")], "forbidden": [("red", None)]}, "'red cup' is both required and forbidden"),
        ({"forbidden": [(color, None) for color in COLORS]}, "leave nothing"),
        ({"required": [("red", "cup")] * 4}, "no room for 4 required objects"),
    ],
)
def test_impossible_demands_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_scene(0, **arguments)


def test_shades_differ_but_keep_their_name():
    rng = np.random.default_rng(0)
    reds = np.array([sample_rgba(rng, "red") for _ in range(50)])
    assert reds[:, 0].min() > 0.5 and reds[:, 1:3].max() < 0.3
    assert np.ptp(reds[:, 0]) > 0.1
