# SPDX-License-Identifier: Apache-2.0
"""Videos, folders and bags, answered with the embedded weights for somebody who looks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.viewer.source import Refused
from clip_seg_ros.viewer.views import Wanted
from looking import LOOKING, Viewer, looking, overlap
from written_sources import write_bag, write_video


@pytest.fixture(scope="module")
def table() -> RenderedView:
    """640x480, with a red cup and a blue box."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(3, required=[("red", "cup"), ("blue", "box")]))


@pytest.fixture(scope="module")
def other_table() -> RenderedView:
    """Another one with a red cup."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(40, required=[("red", "cup")]))


@pytest.fixture
def viewer():
    return Viewer()


def test_a_video_plays_pauses_steps_and_says_that_it_has_ended(table, other_table, tmp_path, viewer):
    video = write_video(tmp_path / "table.mp4", [table.rgb, other_table.rgb] * 3, 20.0)
    with looking(video, viewer, command="segment the red cup", wanted=Wanted()) as source:
        viewer.event("status", state="found")  # of the first image
        assert viewer.views == []
        source.play("pause")
        source.want(LOOKING)
        first = viewer.view()
        views = len(viewer.views)
        source.play("step")
        second = viewer.view(since=views)
        assert first.stamp_ns < second.stamp_ns
        assert np.abs(second.rgb.astype(int) - other_table.rgb).mean() < 6
        views = len(viewer.views)
        source.command("segment the blue box")
        again = viewer.view(since=views)
        assert again.stamp_ns == second.stamp_ns, "a command is answered on the image that is shown"
        source.play("go")
        ended = viewer.event("ended")
        assert ended["message"].startswith("table.mp4 has ended")
        assert source.title == "table.mp4"
        views = len(viewer.views)
        source.play("go")
        assert viewer.view(since=views)
        with pytest.raises(Refused, match="use pause, go or step"):
            source.play("rewind")


def test_a_folder_shows_one_picture_after_the_other(table, other_table, tmp_path, viewer):
    for name, view in (("a.png", table), ("b.png", other_table)):
        cv2.imwrite(str(tmp_path / name), view.rgb[..., ::-1])
    with looking(tmp_path, viewer, command="segment the red cup") as source:
        viewer.event("status", state="found")
        assert np.array_equal(viewer.view(lambda view: view.things).rgb, table.rgb)
        source.play("step")
        second = viewer.view(lambda view: view.notes["position"] == "2 of 2")
        assert np.array_equal(second.rgb, other_table.rgb)
        assert overlap(second, "red cup", other_table.mask_of("red", "cup")) > 0.6
        assert "this is the last of 2 pictures" in viewer.event("ended")["message"]


def test_a_bag_gives_positions_a_cloud_and_what_is_nearest(table, tmp_path, viewer):
    bag = write_bag(tmp_path / "bag", [table] * 3)
    wanted = Wanted(frozenset({""}), space=True)
    with looking(bag, viewer, wanted=wanted, command="segment the red cup and the blue box") as source:
        view = viewer.view(lambda view: {thing.prompt for thing in view.things} == {"red cup", "blue box"})
        for thing in view.things:
            truth = _true_position(table, *thing.prompt.split())
            assert np.linalg.norm(np.asarray(thing.position_m) - truth) < 0.01, thing
            assert thing.box_m is not None
        assert set(np.unique(view.cloud.ids)) == {thing.id for thing in view.things}
        assert 1000 < len(view.surroundings.points_m) < 20000
        (a, b, c, d), normal = view.table, np.asarray(view.table[:3])
        assert np.linalg.norm((a, b, c)) == pytest.approx(1.0)
        up = table.camera_to_world[:3, :3].T @ (0, 0, 1)
        assert normal @ up > 0.99
        assert d > 0.1, "the camera is above the table"
        assert view.frame == "camera"
        viewer.event("ended")
        y, x = (int(np.median(each)) for each in np.nonzero(table.mask_of("red", "cup")))
        pointed = source.point("", (x, y))
        away_m = np.linalg.norm(_true_position(table, "red", "cup"))
        assert pointed.message.startswith("red cup, ")
        assert float(pointed.message.split(", ")[1].split()[0]) == pytest.approx(away_m, abs=0.02)
        assert pointed.nearest.startswith("closest to the blue box, ")


def _true_position(table, color, kind):
    """The median of the visible surface."""
    mask = table.mask_of(color, kind) & np.isfinite(table.depth_m)
    y, x = np.nonzero(mask)
    z, lens = table.depth_m[mask], table.intrinsics
    return np.median([(x - lens.cx) / lens.fx * z, (y - lens.cy) / lens.fy * z, z], axis=1)


def test_a_cut_bag_is_shown_up_to_the_cut(table, tmp_path, viewer):
    bag = write_bag(tmp_path / "bag", [table] * 6)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    with looking(bag, viewer):
        viewer.view()
        assert "is cut off" in viewer.event("ended")["message"]
        assert "only the part before is there" in viewer.event("health", level="warn")["message"]
