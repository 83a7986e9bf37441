# SPDX-License-Identifier: Apache-2.0
"""Batches of expressions against a slow reading of each sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from clip_seg_ros.data.expressions import RELATIONS, SUPERLATIVES
from clip_seg_ros.data.phrasecut_plus import TEMPLATES
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes, class_map
from clip_seg_ros.sim.naming import COLOR_WORDS, KIND_WORDS
from clip_seg_ros.sim.surfaces import SURFACES
from clip_seg_ros.training.pocket import batches
from clip_seg_ros.training.pocket.batches import expression_batch
from clip_seg_ros.training.pocket.phrases import ANY_KIND_WORDS, ARTICLES
from clip_seg_ros.training.pocket.scene_views import Window

SIZE = (120, 160)
"""Of the scenes: windows that show all of them move no pixel."""


def nouns() -> dict[str, tuple[str | None, str | None]]:
    """Every noun, and the (colour, kind) that it means."""
    kinds = {word: kind for kind, words in KIND_WORDS.items() for word in words}
    kinds |= dict.fromkeys(ANY_KIND_WORDS) | {surface: surface for surface in SURFACES}
    colors = {word: color for color, words in COLOR_WORDS.items() for word in words}
    both = {f"{c} {k}": (color, kind) for c, color in colors.items() for k, kind in kinds.items()}
    return both | {word: (None, kind) for word, kind in kinds.items()}


NOUNS = nouns()


def read(text: str) -> tuple[str, list[tuple[str | None, str | None]]] | None:
    """The relation of a sentence and what its nouns mean; ``None`` where it relates nothing."""
    for relation, wordings in (*SUPERLATIVES.items(), *RELATIONS.items()):
        for wording in wordings:
            match = re.fullmatch(wording.replace("{}", "(.+)"), text)
            if match and all(noun in NOUNS for noun in match.groups()):
                return relation, [NOUNS[noun] for noun in match.groups()]
    return None


def fitting(objects: Sequence[tuple[str, str]], labels: np.ndarray, noun: tuple[str | None, str | None]) -> list[int]:
    """Labels of the objects that a noun fits and that cover a 500th of the picture."""
    return [
        label
        for label, (color, kind) in enumerate(objects, start=1)
        if noun[0] in (None, color) and noun[1] in (None, kind) and (labels == label).sum() >= 0.002 * labels.size
    ]


def meant(relation: str, group: list[int], anchor: int | None, labels: np.ndarray, places: np.ndarray) -> list[int]:
    """Labels that a relation holds for: by the columns and the pixels of the picture, and places (N, 2) on the ground.

    Places are metres to the side, either one, and away from the camera.
    """
    column = {label: np.nonzero(labels == label)[1].mean() for label in [*group, *([anchor] if anchor else [])]}
    area = {label: (labels == label).sum() for label in group}
    depth = {label: places[label - 1, 1] for label in column}
    if relation in SUPERLATIVES:
        value = {
            "largest": lambda n: area[n],
            "smallest": lambda n: -area[n],
            "leftmost": lambda n: -column[n],
            "rightmost": lambda n: column[n],
            "nearest": lambda n: -depth[n],
            "farthest": lambda n: depth[n],
        }[relation]
        return [max(group, key=value)]
    if relation == "next to":
        return [min(group, key=lambda n: np.linalg.norm(places[n - 1] - places[anchor - 1]))]
    holds = {
        "left of": lambda n: column[n] < column[anchor],
        "right of": lambda n: column[n] > column[anchor],
        "in front of": lambda n: depth[n] < depth[anchor],
        "behind": lambda n: depth[n] > depth[anchor],
    }[relation]
    return [n for n in group if holds(n)]


def places_of(scenes: TabletopScenes, number: int) -> np.ndarray:
    """(N, 2) metres to the side and away, one object after another."""
    scene = scenes.scene(number)
    eye, target = (np.array(point[:2]) for point in (scene.camera.eye, scene.camera.target))
    look = (target - eye) / np.hypot(*(target - eye))
    offsets = [np.array(item.position[:2]) - eye for item in scene.objects]
    return np.array([[offset[0] * look[1] - offset[1] * look[0], offset @ look] for offset in offsets])


@pytest.fixture(params=[False, True], ids=["as it is", "mirrored"])
def mirrored(request, monkeypatch) -> bool:
    """All windows show the whole scene, mirrored or not."""
    whole = Window((slice(0, SIZE[0]), slice(0, SIZE[1])), *SIZE, request.param)
    monkeypatch.setattr(batches, "zoom", lambda *_: whole)
    return request.param


def draw(scenes: TabletopScenes, number: int, mirrored: bool, plain_share: float):
    """A batch of one scene, with the scene's label image as the window shows it."""
    one = TabletopScenes(scenes.rgb[number : number + 1], scenes.labels[number : number + 1], (scenes.objects[number],))
    object.__setattr__(one, "scene", lambda _: scenes.scene(number))
    batch = expression_batch(one, np.random.default_rng(number), 1, SIZE, 12, plain_share)
    labels = scenes.labels[number]
    return batch, labels[:, ::-1] if mirrored else labels


def test_masks_are_what_expressions_mean(few_scenes, mirrored: bool) -> None:
    relations = set()
    for number, objects in enumerate(few_scenes.objects):
        batch, labels = draw(few_scenes, number, mirrored, plain_share=0.0)
        places = places_of(few_scenes, number)
        for text, mask in zip(batch.texts[0], batch.masks[0].numpy(), strict=True):
            found = read(text)
            if found is None:
                continue
            relation, patterns = found
            group = fitting(objects, labels, patterns[0])
            anchors = fitting(objects, labels, patterns[1]) if len(patterns) > 1 else [None]
            assert len(anchors) == 1, text
            group = [label for label in group if label != anchors[0]]
            assert len(group) > 1, f"{text}: needs no relation"
            (label,) = meant(relation, group, anchors[0], labels, places)
            assert (mask == (labels == label)).all(), text
            relations.add(relation)
    assert relations >= {"leftmost", "rightmost", "left of", "right of", "in front of", "behind", "next to"}


def test_places_are_mirrored_with_the_picture(few_scenes, mirrored: bool, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(batches, "sample_expression", lambda rng, objects, preferred: seen.append(objects))
    draw(few_scenes, 0, mirrored, plain_share=0.0)
    places = places_of(few_scenes, 0)
    for item in seen[0]:
        side, away = places[item.label - 1]
        assert item.ground == pytest.approx((-side if mirrored else side, away))
    # The camera looks at the middle: what stands to the right of it is seen in the right half.
    assert np.corrcoef([item.x for item in seen[0]], [item.ground[0] for item in seen[0]])[0, 1] > 0.8


def test_more_expressions_say_next_to_where_they_shall(few_scenes) -> None:
    def share(next_to_share: float) -> float:
        rng = np.random.default_rng(0)
        texts = expression_batch(few_scenes, rng, 24, SIZE, 8, 0.0, next_to_share).texts
        relations = [found[0] for several in texts for text in several if (found := read(text)) is not None]
        return relations.count("next to") / len(relations)

    assert share(0.0) < 0.3 < share(1.0)


def test_plain_phrases_mean_a_colour_a_kind_or_a_surface(few_scenes, mirrored: bool) -> None:
    empty = 0
    for number, objects in enumerate(few_scenes.objects):
        batch, labels = draw(few_scenes, number, mirrored, plain_share=1.0)
        classes = class_map(few_scenes.scene(number), few_scenes.labels[number])
        classes = classes[:, ::-1] if mirrored else classes
        for text, mask in zip(batch.texts[0], batch.masks[0].numpy(), strict=True):
            assert read(text) is None
            wordings = [re.escape(wording).replace(r"\{\}", "(.+)") for wording in ("{}", *ARTICLES, *TEMPLATES)]
            cores = [match[1] for wording in wordings if (match := re.fullmatch(wording, text))]
            core = next((core for core in cores if core in NOUNS), None)
            expected = np.zeros(SIZE, bool)
            if core is not None and NOUNS[core][1] in SURFACES:
                expected = classes == SEMANTIC_CLASSES.index(NOUNS[core][1])
            elif core is not None:
                color, kind = NOUNS[core]
                fits = [n for n, own in enumerate(objects, 1) if color in (None, own[0]) and kind in (None, own[1])]
                expected = np.isin(labels, fits)
            assert (mask == expected).all(), text
            empty += not expected.any()
    assert 24 < empty < 100, "some of the 144 phrases name what is not there"
