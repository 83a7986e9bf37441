# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.sim.scene import (
    CLOSE_GAPS,
    COLORS,
    HELD_OUT_PAIRS,
    KINDS,
    ODD_KINDS,
    UNSEEN_SHAPE_SETS,
    UNSEEN_TABLE_TEXTURES,
    WORKSHOP_KINDS,
    sample_rgba,
    sample_scene,
    shape_set,
)
from clip_seg_ros.sim.shapes import build_shapes


def pairs(scene):
    return [(item.color, item.kind) for item in scene.objects]


def test_the_world_is_as_large_as_it_says():
    assert len(KINDS) >= 8
    assert len(COLORS) >= 8


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
    assert reds[:, 0].min() > 0.5
    assert reds[:, 1:3].max() < 0.3
    assert np.ptp(reds[:, 0]) > 0.1


def test_unseen_scenes_leave_the_ranges_of_all_others_in_part():
    usual = [sample_scene(seed) for seed in range(300)]
    unseen = [sample_scene(seed, unseen=True) for seed in range(300)]

    def elevation(scene):
        offset = np.subtract(scene.camera.eye, scene.camera.target)
        return np.degrees(np.arcsin(offset[2] / np.linalg.norm(offset)))

    def outside(scene):
        return (
            scene.table_texture in UNSEEN_TABLE_TEXTURES,
            not 0.20 <= scene.ambient <= 0.40,
            not 26 <= elevation(scene) <= 62,
        )

    assert not any(any(outside(scene)) for scene in usual)
    shares = np.mean([outside(scene) for scene in unseen], axis=0)
    assert (shares > 0.35).all(), shares
    assert (shares < 0.65).all(), shares


def test_half_of_the_unseen_shapes_are_of_another_size_and_balls_stay_round():
    base, changed = shape_set(7), shape_set(7 + UNSEEN_SHAPE_SETS)
    other = build_shapes(7 + UNSEEN_SHAPE_SETS, 3)
    assert base.keys() == changed.keys()
    ratios = [
        (kind, shape.height / plain.height, shape.footprint_radius / plain.footprint_radius)
        for kind in changed
        for shape, plain in zip(changed[kind], other[kind], strict=True)
    ]
    stretched = [ratio for ratio in ratios if ratio[1:] != (1.0, 1.0)]
    assert 6 <= len(stretched) <= 18
    assert all(not 0.9 < up < 1.1 and not 0.9 < across < 1.1 for _, up, across in stretched)
    assert all(up == pytest.approx(across) for kind, up, across in ratios if kind == "ball")


def test_things_of_a_workshop_stand_only_where_they_are_asked_for():
    kinds = [
        {item.kind for seed in range(20) for item in sample_scene(seed, workshop=w).objects} for w in (False, True)
    ]
    assert kinds[0] <= set(KINDS)
    assert kinds[1] == {*KINDS, *WORKSHOP_KINDS}
    with pytest.raises(ValueError, match="one of unseen, workshop and odd"):
        sample_scene(0, workshop=True, unseen=True)


def test_random_shapes_stand_only_where_they_are_asked_for():
    assert {item.kind for seed in range(20) for item in sample_scene(seed, odd=True).objects} == set(ODD_KINDS)
    assert not {item.kind for seed in range(20) for item in sample_scene(seed).objects} & set(ODD_KINDS)
    with pytest.raises(ValueError, match="one of unseen, workshop and odd"):
        sample_scene(0, odd=True, unseen=True)


def test_most_objects_of_an_alike_scene_stand_beside_one_of_their_kind():
    beside = total = 0
    for seed in range(40):
        scene = sample_scene(seed, alike=True)
        assert len({(item.kind, item.slot) for item in scene.objects}) == len(scene.objects)
        for item in scene.objects:
            total += 1
            beside += any(
                other is not item
                and other.kind == item.kind
                and ground_distance(scene, item, other) <= CLOSE_GAPS[1] + 1e-9
                for other in scene.objects
            )
    assert beside / total > 0.6
    with pytest.raises(ValueError, match="with alike or with required objects"):
        sample_scene(0, alike=True, required=[("red", "cup")])


def ground_distance(scene, one, other) -> float:
    """Returns how far apart the circles are on which two objects stand, metres; it must not be below 0."""
    shapes = shape_set(scene.shape_seed)
    radii = 0.0
    for item in (one, other):
        shape = shapes[item.kind][item.slot]
        radii += max(shape.height / 2, shape.lying_radius) if item.lying else shape.footprint_radius
    distance = float(np.hypot(*np.subtract(one.position[:2], other.position[:2]))) - radii
    assert distance >= 0
    return distance
