# SPDX-License-Identifier: Apache-2.0
"""LVIS's objects by what they afford, on a few pictures in its layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.lvis_affordances import GROUPS, LvisAffordances
from clip_seg_ros.data.samples import DataError

SIZE = (20, 40)
CATEGORIES = ("chair", "bottle", "duck", "person", "banana", "wheelchair")
# Images, and the side of the square of each class in them; 20 x 40 pixels times 3 % are 24.
SHOWN = {
    "val2017/000000000139": {"chair": 6, "banana": 8},
    "train2017/000000000025": {"bottle": 5, "duck": 4},
    "val2017/000000000285": {"duck": 10, "person": 7, "wheelchair": 8},
}


@pytest.fixture
def root(tmp_path: Path, write_jpeg) -> Path:
    images, objects = [], []
    for number, (name, sides) in enumerate(SHOWN.items()):
        write_jpeg(tmp_path / f"{name}.jpg", SIZE)
        url = f"http://images.cocodataset.org/{name}.jpg"
        images.append({"id": number, "coco_url": url, "height": SIZE[0], "width": SIZE[1]})
        for place, (category, side) in enumerate(sides.items()):
            left = 12 * place
            outline = [left, 0, left + side, 0, left + side, side, left, side]
            category_id = CATEGORIES.index(category) + 1
            objects.append(
                {"image_id": number, "category_id": category_id, "segmentation": [outline], "area": side * side}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    return tmp_path


def told(dataset: LvisAffordances) -> list[tuple[str, str]]:
    return [(sample.name, sample.phrase) for sample in dataset]


def test_objects_are_asked_for_by_their_use(root: Path) -> None:
    dataset = LvisAffordances(root, "val", "affordances")

    assert told(dataset) == [
        ("val2017/000000000139/chair", "sit on"),
        ("train2017/000000000025/bottle", "drink from"),
        ("val2017/000000000285/wheelchair", "sit on"),
    ]
    assert dataset.phrases == ("sit on", "drink from", "sit on")
    assert dataset.pictures[0] == "val2017/000000000139"
    assert dataset[0].mask[:6, :6].all()
    assert dataset[0].mask.sum() == 36


def test_small_objects_are_left_out_and_a_seed_chooses_among_phrases(root: Path) -> None:
    chosen = {tuple(LvisAffordances(root, "val", "attributes", seed=seed).phrases) for seed in range(10)}
    named = [dict(told(LvisAffordances(root, "val", "parts", seed=seed))) for seed in range(10)]

    # The other duck covers 2 % of its image.
    assert chosen == {("can fly",), ("can swim",)}
    assert {names["val2017/000000000285/wheelchair"] for names in named} == {"has wheels", "has legs"}


def test_groups_are_those_of_the_paper() -> None:
    counts = {phrase: len(names) for group in GROUPS.values() for phrase, names in group.items()}

    # Classes that the paper's list names twice count once.
    assert counts == {
        "sit on": 10,
        "drink from": 5,
        "ride on": 3,
        "can fly": 12,
        "can be driven": 6,
        "can swim": 7,
        "has wheels": 10,
        "has legs": 33,
    }
    assert all(len(set(names)) == len(names) for group in GROUPS.values() for names in group.values())


def test_it_opens_from_a_mapping(root: Path) -> None:
    values = {"kind": "lvis_affordances", "root": str(root), "split": "val"}

    assert len(open_dataset({**values, "group": "parts"})) == 4
    with pytest.raises(DataError, match="it must be affordances, attributes, parts"):
        open_dataset({**values, "group": "uses"})


def test_what_is_wrong_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="split is 'test'; it may be train, val"):
        LvisAffordances(root, "test", "parts")
    with pytest.raises(DataError, match=r"lvis_v1_train\.json is missing"):
        LvisAffordances(root, "train", "parts")
    content = json.loads((root / "lvis_v1_val.json").read_text())
    for thing in content["annotations"]:
        thing["area"] = 1
    (root / "lvis_v1_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"no object of the group parts .* covers 3% of its image"):
        LvisAffordances(root, "val", "parts")
    content["categories"] = [{"id": number, "name": f"thing {number}"} for number in range(1, 7)]
    (root / "lvis_v1_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has no class of the group parts: is it LVIS\?"):
        LvisAffordances(root, "val", "parts")
