# SPDX-License-Identifier: Apache-2.0
import pytest

from clip_seg_ros.commands.meaning import covers, related


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("cup", "cup"),
        ("the cup", "a Cup"),
        ("cups", "cup"),
        ("boxes", "box"),
        ("cup", "red cup"),
        ("red cups", "the big red cup"),
        ("cup", "cup on the blue plate"),
        ("!", "!"),
    ],
)
def test_a_phrase_covers_what_is_named_at_least_as_closely(asked, name):
    assert covers(asked, name)
    assert related(name, asked)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("red cup", "cup"),
        ("red", "red cup"),
        ("plate", "cup on the blue plate"),
        ("blue cup", "red cup"),
        ("mug", "cup"),
        ("", "cup"),
        ("cup", ""),
        ("cup", "cupboard"),
    ],
)
def test_other_and_longer_phrases_do_not(asked, name):
    assert not covers(asked, name)


def test_phrases_that_differ_are_unrelated():
    assert not related("red cup", "blue cup")
    assert related("red cup", "cup")
