# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.tools.data_options import WrongCall, parse_data


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
