# SPDX-License-Identifier: Apache-2.0
"""Expressions against a slow reading of what they say, by the label image and by where the renderer saw the objects."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.data.expressions import (
    RELATIONS,
    SUPERLATIVES,
    SeenObject,
    all_expressions,
    expression_words,
    ground_positions,
    sample_expression,
    seen_objects,
)
from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.sim.naming import COLOR_WORDS, KIND_WORDS, pair_of
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import COLORS, KINDS, shape_set

SIZE = (160, 120)
SEEDS = (10_003, 10_004, 10_005, 10_025, 10_026, 10_027)
"""Three of the usual scenes, three of the unseen ones."""


@pytest.fixture(scope="module")
def pictures():
    with SceneRenderer(*SIZE) as renderer:
        return [(scene, renderer.render(scene)) for scene in map(held_out_scene, SEEDS)]


def pairs_of(view):
    return [(item.color, item.kind) for item in view.objects]


def measured(view, labels):
    """Every object with a pixel in ``labels``, measured one by one; where it stands by the renderer's camera matrix."""
    objects = []
    for label, item in enumerate(view.objects, start=1):
        columns = np.nonzero(labels == label)[1]
        if len(columns):
            offset = np.array(item.position[:2]) - view.camera_to_world[:2, 3]
            towards = view.camera_to_world[:2, 2] / np.linalg.norm(view.camera_to_world[:2, 2])
            ground = (float(offset @ view.camera_to_world[:2, 0]), float(offset @ towards))
            x = sum(columns.tolist()) / len(columns) / labels.shape[1]
            objects.append(SeenObject(label, item.color, item.kind, x, len(columns), ground))
    return objects


def called(noun, objects):
    """The objects that a (colour, kind) names; ``None`` stands for any."""
    return [item for item in objects if noun[0] in (None, item.color) and noun[1] in (None, item.kind)]


def clearly(relation, this, other):
    """Whether ``this`` is what the superlative says, and ``other`` is not, with room to spare."""
    return {
        "largest": this.area >= 1.35 * other.area,
        "smallest": 1.35 * this.area <= other.area,
        "leftmost": other.x - this.x >= 0.06,
        "rightmost": this.x - other.x >= 0.06,
        "nearest": other.ground[1] - this.ground[1] >= 0.05,
        "farthest": this.ground[1] - other.ground[1] >= 0.05,
    }[relation]


def apart(this, other):
    return np.hypot(this.ground[0] - other.ground[0], this.ground[1] - other.ground[1])


def related(relation, this, others, anchor):
    """Whether ``this`` alone stands so to ``anchor``, and none of the others nearly does."""
    opposite = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
    superlative = {"left of": "leftmost", "right of": "rightmost", "in front of": "nearest", "behind": "farthest"}
    if relation == "next to":
        return all(apart(other, anchor) >= 1.5 * apart(this, anchor) for other in others)
    if not clearly(superlative[relation], this, anchor):
        return False
    return all(clearly(superlative[opposite[relation]], other, anchor) for other in others)


def meant(relation, noun, anchor_noun, objects):
    """The label of the one object that an expression means, or ``None`` where it is needless or not settled."""
    group = called(noun, objects)
    if len(group) < 2:
        return None
    found = []
    for this in group:
        others = [other for other in group if other is not this]
        if anchor_noun is None:
            found += [this.label] if all(clearly(relation, this, other) for other in others) else []
            continue
        anchors = called(anchor_noun, objects)
        if len(anchors) == 1 and anchors[0] not in group and related(relation, this, others, anchors[0]):
            found.append(this.label)
    assert len(found) <= 1
    return found[0] if found else None


def everything_that_can_be_said(objects):
    """All expressions of all nouns, by trying each."""
    colors, kinds = sorted({item.color for item in objects}), sorted({item.kind for item in objects})
    both = list(itertools.product(colors, kinds))
    by_kind = [(None, kind) for kind in kinds]
    nouns = [*by_kind, *((color, None) for color in colors), *both]
    tries = [(relation, noun, None) for relation in SUPERLATIVES for noun in nouns]
    tries += [(relation, noun, anchor) for relation in RELATIONS for noun in nouns for anchor in [*by_kind, *both]]
    said = ((relation, meant(relation, noun, anchor, objects), noun, anchor) for relation, noun, anchor in tries)
    return {option for option in said if option[1] is not None}


def mirrored(view, scene):
    return view.labels[:, ::-1], ground_positions(scene) * [-1, 1]


def test_every_settled_expression_is_found_and_no_other():
    rng = np.random.default_rng(4)
    relations = Counter()
    for _ in range(60):
        objects = [
            SeenObject(
                label,
                COLORS[rng.integers(3)],
                KINDS[rng.integers(3)],
                rng.random(),
                int(rng.integers(50, 400)),
                (rng.uniform(-0.3, 0.3), rng.uniform(0.5, 1.1)),
            )
            for label in range(1, rng.integers(2, 8))
        ]
        found = all_expressions(objects)
        assert len(found) == len(set(found))
        assert set(found) == everything_that_can_be_said(objects)
        relations.update(option[0] for option in found)
    assert relations.keys() == {*SUPERLATIVES, *RELATIONS}
    assert min(relations.values()) >= 10


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_objects_of_a_picture_are_seen_where_they_are(pictures, is_mirrored):
    for scene, view in pictures:
        labels, ground = mirrored(view, scene) if is_mirrored else (view.labels, ground_positions(scene))
        seen = seen_objects(labels, pairs_of(view), ground, 0.0)
        expected = measured(view, labels)
        assert [item.label for item in seen] == [item.label for item in expected]
        for item, true in zip(seen, expected, strict=True):
            assert (item.color, item.kind, item.area) == (true.color, true.kind, true.area)
            assert item.x == pytest.approx(true.x)
            sign = -1 if is_mirrored else 1
            assert item.ground == pytest.approx((sign * true.ground[0], true.ground[1]))
            assert item.depth_m == item.ground[1]


def test_small_objects_take_no_part(pictures):
    for scene, view in pictures:
        seen = seen_objects(view.labels, pairs_of(view), ground_positions(scene), 0.02)
        large = [label for label in range(1, len(view.objects) + 1) if (view.labels == label).mean() >= 0.02]
        assert [item.label for item in seen] == large


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_what_is_said_of_a_picture_is_true_of_all_that_it_shows(pictures, is_mirrored):
    """Also of the objects that are too small to take part."""
    count = 0
    for scene, view in pictures:
        labels, ground = mirrored(view, scene) if is_mirrored else (view.labels, ground_positions(scene))
        visible = measured(view, labels)
        for relation, label, noun, anchor in all_expressions(seen_objects(labels, pairs_of(view), ground, 0.002)):
            assert meant(relation, noun, anchor, visible) == label, (scene.seed, relation, noun, anchor)
            count += 1
    assert count > 100


def test_a_mirrored_picture_swaps_left_and_right_and_nothing_else(pictures):
    swap = {"left of": "right of", "right of": "left of", "leftmost": "rightmost", "rightmost": "leftmost"}
    for scene, view in pictures:
        pairs = pairs_of(view)
        plain = all_expressions(seen_objects(view.labels, pairs, ground_positions(scene), 0.002))
        labels, ground = mirrored(view, scene)
        there = all_expressions(seen_objects(labels, pairs, ground, 0.002))
        assert set(there) == {(swap.get(relation, relation), *rest) for relation, *rest in plain}


def places_by_depth(view):
    """{label: (right, away) in metres} of the middle of every object's visible surface, out of the depth image."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    lens = view.intrinsics
    rays = np.stack([(columns - lens.cx) / lens.fx, (rows - lens.cy) / lens.fy, np.ones(view.labels.shape)], -1)
    points = rays * view.depth_m[..., None]  # optical frame: right, down, forward
    away_axis = view.camera_to_world[:2, 2] / np.linalg.norm(view.camera_to_world[:2, 2])
    away = (points @ view.camera_to_world[:2, :3].T) @ away_axis
    return {
        label: (float(points[view.labels == label, 0].mean()), float(away[view.labels == label].mean()))
        for label in range(1, len(view.objects) + 1)
        if (view.labels == label).sum() >= 20
    }


def test_objects_stand_where_the_depth_image_shows_them(pictures):
    offsets = []
    for scene, view in pictures:
        ground = ground_positions(scene)
        assert ground.shape == (len(scene.objects), 2)
        for label, place in places_by_depth(view).items():
            item = scene.objects[label - 1]
            shape = shape_set(scene.shape_seed)[item.kind][item.slot]
            reach = max(shape.footprint_radius, shape.height / 2 if item.lying else 0)
            offset = np.subtract(place, ground[label - 1])
            assert np.hypot(*offset) < reach, "the visible surface lies within the object"
            offsets.append(offset / reach)
    right, away = np.mean(offsets, axis=0)
    assert abs(right) < 0.1, "neither to the left nor to the right"
    assert -0.7 < away < 0, "the side that is seen is the near one"


def test_what_is_in_front_is_nearer_in_the_depth_image(pictures):
    agrees = []
    for scene, view in pictures:
        places = places_by_depth(view)
        seen = seen_objects(view.labels, pairs_of(view), ground_positions(scene), 0.002)
        for relation, label, noun, anchor in all_expressions(seen):
            sign = {"in front of": -1, "nearest": -1, "behind": 1, "farthest": 1}.get(relation)
            if sign is None:
                continue
            group = [item.label for item in called(noun, seen) if item.label != label]
            others = group if anchor is None else [called(anchor, seen)[0].label]
            agrees += [sign * (places[label][1] - places[other][1]) > 0 for other in others]
    assert len(agrees) > 40, "all but objects of which only a side is seen"
    assert np.mean(agrees) > 0.95, "all but objects of which only a side is seen"


def test_a_scene_without_objects_stands_nowhere():
    empty = replace(held_out_scene(10_000), objects=())
    assert ground_positions(empty).shape == (0, 2)
    assert seen_objects(np.zeros((4, 4), np.uint8), [], ground_positions(empty), 0.0) == []
    assert sample_expression(np.random.default_rng(0), []) is None


def test_a_phrase_says_what_it_means(pictures):
    wordings = SUPERLATIVES | RELATIONS
    rng = np.random.default_rng(2)
    used = set()
    for scene, view in pictures:
        seen = seen_objects(view.labels, pairs_of(view), ground_positions(scene), 0.002)
        for _ in range(60):
            expression = sample_expression(rng, seen)
            fits = [
                (wording, match)
                for wording in wordings[expression.relation]
                if (match := re.fullmatch(wording.replace("{}", r"(\w+(?: \w+)?)"), expression.text))
            ]
            assert len(fits) == 1, expression.text
            nouns = [pair_of(noun) for noun in fits[0][1].groups()]
            assert meant(expression.relation, nouns[0], nouns[1] if len(nouns) > 1 else None, seen) == expression.label
            used.add(fits[0][0])
    assert used == {wording for several in wordings.values() for wording in several}


def test_phrases_use_the_words_that_are_listed(pictures):
    rng = np.random.default_rng(3)
    nouns = {word for several in (*COLOR_WORDS.values(), *KIND_WORDS.values()) for word in several}
    words = expression_words()
    assert len(set(words)) == len(words)
    assert {"object", "the", "of"} <= set(words)
    scene, view = pictures[0]
    seen = seen_objects(view.labels, pairs_of(view), ground_positions(scene), 0.002)
    for _ in range(100):
        assert set(sample_expression(rng, seen).text.split()) <= {*words, *nouns}


def test_relations_have_the_same_chance_however_many_expressions_they_have():
    # Two cups with four other things between them: many expressions with "left of", but one with "leftmost".
    cups = [SeenObject(1, "red", "cup", 0.1, 100, (0.1, 0.6)), SeenObject(2, "blue", "cup", 0.5, 100, (0.5, 0.6))]
    things = [SeenObject(3 + n, COLORS[3 + n], KINDS[1 + n], 0.3, 100, (0.3, 0.6)) for n in range(4)]
    options = Counter(option[0] for option in all_expressions([*cups, *things]))
    assert options["left of"] > options["leftmost"] > 0
    rng = np.random.default_rng(0)
    drawn = Counter(sample_expression(rng, [*cups, *things]).relation for _ in range(1200))
    assert drawn.keys() == options.keys()
    assert min(drawn.values()) > 0.7 * 1200 / len(options)
    assert max(drawn.values()) < 1.3 * 1200 / len(options)


def test_the_same_generator_draws_the_same_expressions(pictures):
    scene, view = pictures[0]
    seen = seen_objects(view.labels, pairs_of(view), ground_positions(scene), 0.002)
    first, again = ([sample_expression(rng, seen) for _ in range(5)] for rng in map(np.random.default_rng, (7, 7)))
    assert first == again
    assert len(set(first)) > 1


def test_a_preferred_relation_is_drawn_where_there_is_one():
    cups = [SeenObject(1, "red", "cup", 0.1, 100, (0.1, 0.6)), SeenObject(2, "blue", "cup", 0.5, 100, (0.5, 0.6))]
    rng = np.random.default_rng(0)
    assert {sample_expression(rng, cups, "leftmost").relation for _ in range(20)} == {"leftmost"}
    # Without a third thing nothing is next to anything.
    assert {sample_expression(rng, cups, "next to").relation for _ in range(20)} == {"leftmost", "rightmost"}
