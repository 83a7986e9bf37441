# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse

import pytest

from clip_seg_ros.tools.data_options import WrongCall, parse_data, templates_of


def test_short_descriptions_of_data() -> None:
    assert parse_data("folder:/my data") == {"kind": "folder", "root": "/my data"}
    assert parse_data("ade20k:/ade:validation") == {"kind": "ade20k", "root": "/ade", "split": "validation"}
    assert parse_data("pascal5i:~/voc:val:fold=2:one_shot=false") == {
        "kind": "pascal5i",
        "root": "~/voc",
        "split": "val",
        "fold": 2,
        "one_shot": False,
    }
    assert parse_data("labelled_folder:/camvid:val:classes=[sky,sign symbol]:ignore=[11]") == {
        "kind": "labelled_folder",
        "root": "/camvid",
        "split": "val",
        "classes": ["sky", "sign symbol"],
        "ignore": [11],
    }
    assert parse_data("refcoco:/r:testA:name=refcoco+")["name"] == "refcoco+"
    for wrong in ("folder", "folder:", ":root", "voc:/r:val:train", "voc:/r:=3", "voc:/r:fold="):
        with pytest.raises(WrongCall):
            parse_data(wrong)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], None),
        (["--templates", "none"], ("{}",)),
        (["--templates", "a {}", "the {}"], ("a {}", "the {}")),
        (["--templates", "a {}"], ("a {}",)),
    ],
)
def test_templates_are_sentences_or_a_name(said: list[str], expected: tuple[str, ...] | None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--templates", nargs="+")
    assert templates_of(parser.parse_args(said)) == expected


def test_named_templates_are_those_of_the_authors() -> None:
    counts = {name: len(templates_of(argparse.Namespace(templates=[name])) or ()) for name in ("clipseg", "maskclip")}
    assert counts == {"clipseg": 9, "maskclip": 85}
