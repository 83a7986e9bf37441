# SPDX-License-Identifier: Apache-2.0
"""A picture on this machine, answered with the embedded weights for somebody who looks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.viewer.library_source import LibrarySource
from clip_seg_ros.viewer.source import Refused
from clip_seg_ros.viewer.views import Wanted
from looking import LOOKING, Viewer, found, looking, overlap


class Kept:
    """A source with its listener, for all tests that can share them."""

    def __init__(self, source, viewer):
        self.source, self.viewer = source, viewer

    def say(self, text, state="found"):
        """Gives a command; returns the status in this state and the first view that came after it."""
        events, views = len(self.viewer.events), len(self.viewer.views)
        self.source.command(text)
        status = self.viewer.event("status", events, state=state)
        return status, self.viewer.view(since=views) if state in ("found", "not found") else None


@pytest.fixture(scope="module")
def table() -> RenderedView:
    """640x480, with a red cup and a blue box."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(3, required=[("red", "cup"), ("blue", "box")]))


@pytest.fixture(scope="module")
def picture(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "table.png"
    cv2.imwrite(str(path), table.rgb[..., ::-1])
    return path


@pytest.fixture(scope="module")
def kept(picture):
    viewer = Viewer()
    with looking(picture, viewer) as source:
        viewer.view()
        yield Kept(source, viewer)


def test_a_command_is_accepted_and_what_it_names_is_found_and_shown(kept, table):
    since = len(kept.viewer.events)
    status, view = kept.say("segment the red cup")
    accepted = kept.viewer.event("status", since, state="accepted")
    assert accepted["message"].startswith("looking for red cup; the weights of clipseg-pocket know the simulated table")
    assert accepted["prompts"] == ["red cup"]
    assert (status["id"], status["command"]) == (accepted["id"], "segment the red cup")
    assert status["found"] == ["red cup"]
    assert status["message"].startswith("red cup: 1 found, best score 0.")
    assert overlap(view, "red cup", table.mask_of("red", "cup")) > 0.7
    assert view.prompts == ("red cup",)
    assert view.notes["position"] == "1 of 1"
    assert view.notes["caution"] == "simulated-table weights: not for real pictures"
    assert np.array_equal(view.rgb, table.rgb)


def test_another_command_is_answered_on_the_same_picture(kept, table):
    kept.say("segment the red cup")
    _, view = kept.say("find the blue box")
    assert overlap(view, "blue box", table.mask_of("blue", "box")) > 0.7
    assert not found(view, "red cup")


def test_relations_counts_and_negatives_are_understood(kept, table):
    x_of = {kind: np.nonzero(table.mask_of(color, kind))[1].mean() for color, kind in (("red", "cup"), ("blue", "box"))}
    side = "left" if x_of["cup"] < x_of["box"] else "right"
    _, view = kept.say(f"find the cup {side} of the blue box")
    assert view.prompts == (f"cup {side} of the blue box",)
    assert [thing.prompt for thing in view.things if thing.id == 0] == ["blue box"]
    assert view.notes["relations"]
    status, _ = kept.say("how many cups are there?")
    assert "cup" in status["message"]
    _, view = kept.say("segment the red cup, not the blue box")
    assert overlap(view, "red cup", table.mask_of("red", "cup")) > 0.7


def test_what_is_not_there_is_not_found(kept):
    absent = next(color for color in ("green", "purple", "yellow", "orange") if not _there(kept, color))
    status, view = kept.say(f"find the {absent} bottle", "not found")
    assert status["found"] == []
    assert f"{absent} bottle: not found, best score 0." in status["message"]
    assert view.things == ()


def _there(kept, color):
    return any(item.color == color and item.kind == "bottle" for item in kept.objects)


@pytest.fixture(autouse=True)
def objects(request, table):
    if "kept" in request.fixturenames:
        request.getfixturevalue("kept").objects = table.objects


def test_what_do_you_see_lists_the_things(kept):
    events = len(kept.viewer.events)
    kept.source.command("what do you see?")
    status = kept.viewer.event("status", events, state="found")
    assert status["message"].startswith("I see ")
    assert {"red cup", "blue box"} <= set(status["found"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("segmnt the red cup", 'did you mean "segment the red cup"?'),
        ("", "the command is empty"),
        ("classes: cup, table", "lists of classes are for a semantic node"),
        ("quit", "press Ctrl-C where it was started"),
        ("where did you last see the red cup?", "nothing is remembered here"),
        ("use nothing-of-the-kind", 'there is no model "nothing-of-the-kind"'),
        ("use cris-r50", "has to be fetched by hand"),
        ("find the cup using clipseg-rd64", "clip-seg weights download clipseg-rd64"),
        ("use /etc/passwd.safetensors", ""),
    ],
)
def test_what_cannot_be_done_is_rejected_with_the_reason(kept, text, why):
    status, _ = kept.say(text, "rejected")
    assert why in status["message"]


def test_help_stop_and_clear(kept):
    kept.say("segment the red cup")
    assert "what do you see?" in kept.say("help", "accepted")[0]["message"]
    assert kept.say("stop", "accepted")[0]["message"] == "stopped"
    views = len(kept.viewer.views)
    assert kept.say("clear", "accepted")[0]["message"] == "cleared"
    assert kept.viewer.view(since=views).things == ()


def test_a_parameter_changes_the_mask_at_once_and_everybody_hears_of_it(kept):
    _, before = kept.say("segment the red cup")
    events, views = len(kept.viewer.events), len(kept.viewer.views)
    kept.source.set_parameter("threshold", 0.99)
    assert kept.viewer.event("parameter", events, name="threshold")["value"] == 0.99
    after = kept.viewer.view(since=views)
    assert sum(thing.area_px for thing in after.things) < 0.9 * before.things[0].area_px
    kept.say("threshold default", "accepted")
    assert {each.name: value for each, value in kept.source.parameters()}["threshold"] == -1.0
    for name, value, why in (
        ("threshold", 2, "must lie in 0..1"),
        ("smoothing", "much", "must be a float"),
        ("image_topic", "/a", "there is no parameter image_topic here"),
    ):
        with pytest.raises(Refused, match=why):
            kept.source.set_parameter(name, value)


def test_parts_come_when_somebody_looks_at_them(kept):
    _, view = kept.say("segment the red cup")
    assert view.confidence is None
    views = len(kept.viewer.views)
    kept.source.want(Wanted(frozenset({""}), confidence=True))
    confidence = kept.viewer.view(since=views).confidence
    assert confidence.shape == view.labels.shape
    assert confidence[view.labels > 0].mean() > 0.8 > confidence[view.labels == 0].mean()
    kept.source.want(LOOKING)


def test_nothing_is_shown_while_nobody_looks_but_a_command_is_answered(kept):
    kept.source.want(Wanted())
    views, events = len(kept.viewer.views), len(kept.viewer.events)
    kept.source.command("segment the blue box")
    kept.viewer.event("status", events, state="found")
    assert len(kept.viewer.views) == views
    kept.source.want(LOOKING)
    assert found(kept.viewer.view(since=views), "blue box")


def test_the_thing_at_a_point_has_a_name_and_in_a_box_the_same(kept, table):
    truth = table.mask_of("red", "cup")
    y, x = (int(np.median(each)) for each in np.nonzero(truth))
    thing = kept.source.point("", (x, y))
    assert thing.thing.prompt == "red cup"
    assert thing.message == "red cup, where is not known without depth"
    assert (thing.labels & truth).sum() / (thing.labels | truth).sum() > 0.6
    assert (thing.frame, thing.nearest, thing.thing.position_m) == ("camera", "", None)
    rows, columns = np.nonzero(truth)
    box = kept.source.point("", (columns.min() - 3, rows.min() - 3, columns.max() + 4, rows.max() + 4))
    assert box.thing.prompt == "red cup"
    faults = (
        ((-5, 5), "outside of the picture"),
        ((9, 9, 5, 5), "the box is empty"),
        ((1, 2, 3), "two numbers"),
        ((float("inf"), 2), "two numbers"),
    )
    for spot, why in faults:
        with pytest.raises(Refused, match=why):
            kept.source.point("", spot)
    with pytest.raises(Refused, match="there is no camera"):
        kept.source.point("left", (5, 5))


def test_a_thing_is_taught_and_found_by_its_name(kept, table):
    truth = table.mask_of("blue", "box")
    y, x = (int(np.median(each)) for each in np.nonzero(truth))
    thing = kept.source.point("", (x, y), teach_as="my treasure")
    assert thing.message.endswith('"treasure" now means it')
    status, view = kept.say("find my treasure")
    assert status["found"] == ["treasure"]
    assert overlap(view, "treasure", truth) > 0.3
    with pytest.raises(Refused, match="no command could say"):
        kept.source.point("", (x, y), teach_as="this and that")


def test_the_health_says_how_fast_and_what_serves(kept):
    since = len(kept.viewer.events)
    health = kept.viewer.event("health", since)
    assert health["level"] == "ok"
    assert health["message"].startswith("clipseg-pocket serves")
    assert health["values"]["engine"].startswith("eager in float32")
    assert health["values"]["position"] == "1 of 1"
    assert float(health["values"]["ms for an image, median"]) > 0


def test_the_models_are_those_of_the_list(kept):
    choices = {choice.name: choice for choice in kept.source.models()}
    assert choices["clipseg-pocket"].is_here
    assert choices["clipseg-pocket"].megabytes > 1
    assert not choices["clipseg-rd64-refined"].is_here
    assert choices["clipseg-rd64-refined"].page.startswith("https://")
    assert "grant no licence" in choices["clipseg-rd64-refined"].licence


def test_the_model_changes_while_the_old_one_serves(picture, viewer):
    with looking(picture, viewer, command="segment the red cup") as source:
        assert viewer.event("model")["name"] == "clipseg-pocket"
        assert viewer.event("status", state="found")
        views = len(viewer.views)
        source.command("use cris")
        accepted = viewer.event("status", command="use cris")
        assert "loading cris-pocket; clipseg-pocket serves until" in accepted["message"]
        done = viewer.event("status", command="use cris", state="done")
        assert done["message"].startswith("cris-pocket serves now")
        assert viewer.event("model", name="cris-pocket")
        assert viewer.view(lambda view: view.notes["model"] == "cris-pocket", views).things


@pytest.fixture
def viewer():
    return Viewer()


def test_what_cannot_serve_is_said_at_the_start(picture, viewer):
    for model, error, why in (
        ("nothing-of-the-kind", ValueError, "there is no model"),
        ("clipseg-rd64", WeightsError, "clip-seg weights download clipseg-rd64"),
    ):
        source = LibrarySource(open_frames(str(picture)), model=model)
        with pytest.raises(error, match=why):
            source.start(viewer)
        source.stop()
    with pytest.raises(Refused, match="has not begun"):
        source.command("segment the red cup")


def test_an_answer_is_that_of_the_library(kept, table):
    from clip_seg_ros.pipeline.answering import Question, answer

    _, view = kept.say("segment the red cup")
    predictor = Predictor.from_name("clipseg-pocket", engine="eager")
    expected = answer(predictor, predictor.encode(table.rgb), Question(("red cup",), min_area_fraction=0.002)).regions
    assert [(thing.box_px, thing.area_px) for thing in view.things] == [
        (region.box_px, region.area_px) for region in expected
    ]
