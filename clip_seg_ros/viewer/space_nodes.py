# SPDX-License-Identifier: Apache-2.0
"""Draws the views of one camera with viser. What is there already is moved and never made anew: nothing flickers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import viser

from clip_seg_ros.pipeline.overlay import prompt_colors
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.viewer.space_geometry import box_wxyz, camera_pose, facing, middle_of, up_of, upright, wxyz
from clip_seg_ros.viewer.views import Thing, View

Color = tuple[int, int, int]

GREY: Color = (128, 128, 128)
MOST_POINTS = 30_000
"""Points that are drawn of the things of one camera; of more, so many are taken evenly."""
PALE = 0.55
"""How much of the surroundings' colours is grey."""
BALL_M = 0.012
"""Radius of the ball that stands for a thing without a box."""
FRUSTUM_M = 0.07
TILT_COS = math.cos(math.radians(3))
"""The table must tilt by more than this before it is drawn anew: an estimate trembles from image to image."""
SHIFT_M, AWAY_M = 0.01, 0.25
"""How far the table must have moved up or down, and what lies on it sideways, before it is drawn anew."""
TABLE_M = 1.2


@dataclass
class _Drawn:
    """What stands for one thing."""

    body: viser.BoxHandle | viser.IcosphereHandle
    """Its box, pale and clickable; a ball where it has none."""
    edges: viser.LineSegmentsHandle | None
    label: viser.LabelHandle

    def remove(self) -> None:
        for handle in (self.body, self.edges, self.label):
            if handle is not None:
                handle.remove()


def _edges() -> np.ndarray:
    """Returns the twelve edges of a cube of side 1 around the origin, (12, 2, 3)."""
    corners = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
    pairs = [(a, b) for a in range(8) for b in range(a) if np.count_nonzero(corners[a] != corners[b]) == 1]
    return np.array([(corners[a], corners[b]) for a, b in pairs])


EDGES = _edges()


class CameraNodes:
    """The part of the scene that belongs to one camera.

    Args:
        scene: Where it is drawn.
        root: The name of the node above all that is drawn, such as "/cameras/0".
        on_pick: Called with the id of a thing whose box is clicked, and that of the client of viser who did.
    """

    def __init__(self, scene: viser.SceneApi, root: str, on_pick: Callable[[int, int], None]) -> None:
        self._scene, self._root, self._on_pick = scene, root, on_pick
        self._frame = scene.add_frame(root, show_axes=False)
        self._up: np.ndarray | None = None
        self._table: viser.GridHandle | None = None
        self._table_plane: tuple[np.ndarray, np.ndarray] | None = None
        self._camera: viser.CameraFrustumHandle | None = None
        self._camera_name: viser.LabelHandle | None = None
        self._clouds: dict[str, viser.PointCloudHandle] = {}
        self._things: dict[str, _Drawn] = {}

    def remove(self) -> None:
        """Removes all of it."""
        self._frame.remove()  # and what is below it

    def draw(self, view: View, offset_m: np.ndarray) -> None:
        """Draws the newest view of the camera.

        Args:
            view: The view.
            offset_m: (3,) where the origin of its frame is in the scene.
        """
        self._frame.wxyz = wxyz(self.turn(view))
        self._frame.position = offset_m
        self._draw_camera(view)
        self._draw_table(view)
        self._draw_cloud("things", view.cloud, 0.0)
        self._draw_cloud("surroundings", view.surroundings, PALE)
        self._draw_things(view)

    def turn(self, view: View) -> np.ndarray:
        """Returns the rotation (3, 3) from the view's frame to the scene; it stays while up stays about the same."""
        up = up_of(view)
        if self._up is None or up @ self._up < TILT_COS:
            self._up = up
        return upright(view, self._up)

    def _draw_camera(self, view: View) -> None:
        lens = view.intrinsics
        if lens is None:
            for handle in (self._camera, self._camera_name):
                if handle is not None:
                    handle.remove()
            self._camera = self._camera_name = None
            return
        pose = camera_pose(view)
        fov, aspect = 2 * math.atan(lens.height / 2 / lens.fy), lens.width / lens.fx * lens.fy / lens.height
        if self._camera is None:
            self._camera = self._scene.add_camera_frustum(
                f"{self._root}/camera", fov, aspect, scale=FRUSTUM_M, thickness=1.5, thickness_units="screen",
                color=GREY, cast_shadow=False,
            )  # fmt: skip
            if view.camera:
                self._camera_name = self._scene.add_label(f"{self._root}/camera_name", view.camera, anchor="top-center")
        self._camera.fov, self._camera.aspect = fov, aspect
        self._camera.wxyz, self._camera.position = wxyz(pose[:3, :3]), pose[:3, 3]
        if self._camera_name is not None:
            self._camera_name.position = pose[:3, 3]

    def _draw_table(self, view: View) -> None:
        middle = middle_of(view)
        if view.table is None or middle is None:
            if self._table is not None:
                self._table.remove()
            self._table = self._table_plane = None
            return
        normal = np.array(view.table[:3], np.float64)
        spot = middle - (normal @ middle + view.table[3]) * normal
        if self._table_plane is not None and self._table is not None:
            old_normal, old_spot = self._table_plane
            moved = spot - old_spot
            height = abs(float(moved @ old_normal))
            if normal @ old_normal > TILT_COS and height < SHIFT_M and float(np.linalg.norm(moved)) < AWAY_M:
                return
        self._table_plane = normal, spot
        if self._table is None:
            self._table = self._scene.add_grid(
                f"{self._root}/table", TABLE_M, TABLE_M, cell_size=0.1, section_size=0.5, cell_color=(150, 150, 150),
                section_color=(110, 110, 110), fade_distance=4.0, shadow_opacity=0.0,
            )  # fmt: skip
        self._table.wxyz, self._table.position = wxyz(facing(normal)), spot

    def _draw_cloud(self, name: str, cloud: PointCloud | None, pale: float) -> None:
        handle = self._clouds.get(name)
        if cloud is None or len(cloud.points_m) == 0:
            if handle is not None:
                self._clouds.pop(name).remove()
            return
        step = -(-len(cloud.points_m) // MOST_POINTS)
        # Around their middle, because they are sent with half the digits.
        points = cloud.points_m[::step]
        middle = np.round(np.median(points, axis=0).astype(np.float64), 2)
        points = (points - middle).astype(np.float16)
        colors = cloud.rgb[::step]
        if pale:
            colors = (colors * (1 - pale) + 175 * pale).astype(np.uint8)
        if handle is None:
            size = 0.006 if pale else 0.003
            self._clouds[name] = self._scene.add_point_cloud(
                f"{self._root}/{name}", points, colors, point_size=size, point_shape="circle",
                point_shading="flat", position=middle,
            )  # fmt: skip
            return
        handle.points, handle.colors, handle.position = points, colors, middle

    def _draw_things(self, view: View) -> None:
        colors = prompt_colors([*view.prompts, *(thing.prompt for thing in view.things if thing.id)])
        eye = camera_pose(view)[:3, 3]
        seen = set()
        anchors = 0
        for thing in view.things:
            if thing.position_m is None:
                continue
            # Things that nobody asked for have no ids: they are counted.
            anchors += thing.id == 0
            name = f"{thing.id}" if thing.id else f"anchor_{anchors}"
            seen.add(name)
            self._draw_thing(name, thing, colors[thing.prompt] if thing.id else GREY, eye)
        for name in set(self._things) - seen:
            self._things.pop(name).remove()

    def _draw_thing(self, name: str, thing: Thing, color: Color, eye: np.ndarray) -> None:
        drawn = self._things.get(name)
        if drawn is not None and (drawn.edges is None) != (thing.box_m is None):
            self._things.pop(name).remove()
            drawn = None
        if drawn is None:
            drawn = self._things[name] = self._new(name, thing, color)
        position, turn, size = np.array(thing.position_m), (1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        top = BALL_M
        if thing.box_m is not None:
            position, turn, size = np.array(thing.box_m.center_m), box_wxyz(thing.box_m), thing.box_m.size_m
            top = thing.box_m.reach_m(tuple(self._up))
        for handle in (drawn.body, drawn.edges):
            if handle is not None:
                handle.position, handle.wxyz, handle.scale = position, turn, size
        drawn.body.color = color
        if drawn.edges is not None:
            drawn.edges.colors = np.array(color, np.uint8)
        drawn.label.text = label_of(thing, eye)
        drawn.label.position = position + (top + 0.01) * self._up

    def _new(self, name: str, thing: Thing, color: Color) -> _Drawn:
        root, scene, is_anchor = f"{self._root}/{name}", self._scene, thing.id == 0
        opacity = 0.06 if is_anchor else 0.16
        look = {"opacity": opacity, "cast_shadow": False, "receive_shadow": False}
        edges = None
        if thing.box_m is None:
            body = scene.add_icosphere(f"{root}_body", BALL_M, color, cast_shadow=False, receive_shadow=False)
        else:
            body = scene.add_box(f"{root}_body", color, side="double", **look)
            edges = scene.add_line_segments(
                f"{root}_edges", EDGES, color, thickness=1.0 if is_anchor else 2.5, thickness_units="screen"
            )
        if not is_anchor:
            body.on_click(lambda event, id=thing.id: self._on_pick(id, event.client_id))
        size = 0.85 if is_anchor else 1.05
        label = scene.add_label(f"{root}_label", "", anchor="bottom-center", font_screen_scale=size)
        return _Drawn(body, edges, label)


def label_of(thing: Thing, eye_m: np.ndarray) -> str:
    """Returns what is written at a thing, such as "red cup 0.93 · 0.41 m"; ``eye_m`` (3,) is where the camera is."""
    if thing.id == 0:
        return thing.prompt
    distance = float(np.linalg.norm(np.array(thing.position_m) - eye_m))
    return f"{thing.prompt} {thing.score:.2f} · {distance:.2f} m"
