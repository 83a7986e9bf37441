# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from clip_seg_ros.evaluation.metrics.recollection import Kept, RecollectionMeter, Standing, recalled

CUP = Standing(1, "cup", {0: (0.0, 0.0, 0.05), 9: (0.02, 0.0, 0.05)}, True, (0.0, 0.0), 0.03)
BOX = Standing(2, "box", {0: (0.3, 0.0, 0.05)}, True, (0.3, 0.0), 0.03)
KEPT = Kept(7, "cup", (0.005, 0.0, 0.05), 0)


def measured(*kept, standing=(CUP, BOX), found=(1,)):
    meter = RecollectionMeter()
    meter.add(standing, set(found), kept, "here")
    return meter


def test_an_object_is_recalled_where_its_last_sighting_showed_it():
    assert recalled([CUP, BOX], [KEPT]) == {1: 7}
    assert recalled([CUP], [replace(KEPT, last_ns=9)]) == {1: 7}
    assert recalled([CUP], [replace(KEPT, position_m=(-0.01, 0.0, 0.05), last_ns=9)]) == {}
    assert recalled([CUP], [replace(KEPT, last_ns=5)]) == {}, "nothing was visible then"
    assert recalled([CUP], [replace(KEPT, name="box")]) == {}


def test_what_is_due_found_and_kept_is_counted():
    meter = measured(KEPT)
    assert (meter.due, meter.seen, meter.recalled, meter.kept, meter.false, meter.doubles) == (2, 1, 1, 1, 0, 0)
    [note] = meter.notes
    assert note == "here: box at 0.30, 0.00 missing, the model never found it"


def test_what_was_never_in_view_is_not_due_and_yet_no_error():
    meter = measured(KEPT, standing=[replace(CUP, due=False)])
    assert (meter.due, meter.recalled, meter.false) == (0, 0, 0)


def test_an_object_that_is_not_there_is_false():
    for wrong in (replace(KEPT, name="box"), replace(KEPT, position_m=(0.1, 0.0, 0.05))):
        meter = measured(wrong)
        assert (meter.false, meter.doubles, meter.recalled) == (1, 0, 0)


def test_an_inexact_place_is_neither_recalled_nor_false():
    meter = measured(replace(KEPT, position_m=(0.045, 0.0, 0.05)))
    assert (meter.false, meter.doubles, meter.recalled) == (0, 0, 0)


def test_a_second_entry_for_one_object_is_a_double():
    meter = measured(KEPT, replace(KEPT, id=8, position_m=(0.045, 0.0, 0.05)))
    assert (meter.false, meter.doubles, meter.recalled) == (0, 1, 1)
