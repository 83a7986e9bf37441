"""The class lists that ship with the package."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from clip_seg_ros import resources
from clip_seg_ros.models.class_lists import class_list, class_list_names
from clip_seg_ros.models.tokenizer import ClipTokenizer

LAYOUTS = Path(__file__).parents[1] / "data" / "layouts"
SIZES = {"ade20k": 150, "cityscapes19": 19, "coco_stuff171": 171, "pascal_context59": 59, "voc20": 20}
# Of every list the first, the last and some that a slip would move.
PLACES = {
    "ade20k": {0: "wall", 7: "bed", 44: "chest of drawers", 105: "conveyer belt", 141: "crt screen", 149: "flag"},
    "cityscapes19": {0: "road", 8: "vegetation", 12: "rider", 18: "bicycle"},
    "coco_stuff171": {0: "person", 79: "toothbrush", 80: "banner", 133: "playingfield", 170: "wood"},
    "pascal_context59": {0: "aeroplane", 29: "ground", 39: "pottedplant", 58: "wood"},
    "voc20": {0: "aeroplane", 10: "diningtable", 19: "tvmonitor"},
}


def test_the_lists_are_known_by_name() -> None:
    assert class_list_names() == tuple(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_every_list_has_its_classes_in_order(name: str) -> None:
    classes = class_list(name)
    assert len(classes) == SIZES[name] == len(set(classes))
    assert {place: classes[place] for place in PLACES[name]} == PLACES[name]
    assert all(label == label.strip() and label for label in classes)


def test_an_unknown_list_is_refused() -> None:
    with pytest.raises(ValueError, match='no class list "ade": use ade20k, cityscapes19, .*voc20'):
        class_list("ade")


def published(name: str) -> list:
    """Reads what goes with the published DenseCLIP checkpoints and is not in them."""
    return json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))


def test_ade20k_is_spelt_as_in_the_data_set() -> None:
    """One name of the data set ends with a space: the file keeps it, and the reader drops it, as nobody asks for "bed "."""
    text = (resources.config_dir() / "class_lists" / "ade20k.txt").read_text(encoding="utf-8")
    names = published("denseclip_ade20k_class_names")
    assert text.splitlines() == names and "bed " in names
    assert class_list("ade20k") == tuple(name.strip() for name in names)


def test_ade20k_has_the_published_token_ids() -> None:
    ids = ClipTokenizer(context_length=77)(class_list("ade20k"))
    assert not ids[:, 5:].any()
    assert ids[:, :5].tolist() == published("denseclip_ade20k_class_tokens_len5")
