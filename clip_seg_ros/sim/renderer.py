# SPDX-License-Identifier: Apache-2.0
"""Renders scenes with MuJoCo: colour, depth in metres, and the object of every pixel.

MuJoCo draws through EGL or OSMesa and needs no screen. The first of them that works is used, unless ``MUJOCO_GL`` is
set.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from clip_seg_ros.sim.scene import (
    SHAPES_PER_KIND,
    TABLE_TEXTURES,
    UNSEEN_TABLE_TEXTURES,
    CameraPose,
    Scene,
    SceneObject,
    shape_set,
)
from clip_seg_ros.sim.textures import table_texture
from clip_seg_ros.types import CameraIntrinsics

NEAR_M, FAR_M = 0.05, 12.0
TABLE_HALF_SIZE = (0.60, 0.60, 0.02)
FLOOR_Z = -0.72
FLOOR_REACH_M = 8.0


class RendererUnavailable(RuntimeError):
    """Rendering without a screen does not work on this machine; the message says what to install."""


@dataclass(frozen=True)
class RenderedView:
    """One image of a scene with its exact ground truth."""

    rgb: np.ndarray
    """The colour image, (H, W, 3) uint8."""
    depth_m: np.ndarray
    """The depth along the optical axis, (H, W) float32 metres; NaN where a ray meets no surface."""
    labels: np.ndarray
    """The objects of the pixels, (H, W) uint8: 0 = no object, otherwise 1 + index in ``objects``."""
    objects: tuple[SceneObject, ...]
    intrinsics: CameraIntrinsics
    camera_to_world: np.ndarray
    """The transform from the optical frame (x right, y down, z forward) to the world, (4, 4) float64."""

    def mask_of(self, color: str | None = None, kind: str | None = None) -> np.ndarray:
        """Returns the visible pixels of all objects of a colour and kind, (H, W) bool; ``None`` stands for any."""
        ids = [
            1 + index
            for index, item in enumerate(self.objects)
            if color in (None, item.color) and kind in (None, item.kind)
        ]
        return np.isin(self.labels, ids)


def _load_mujoco() -> ModuleType:
    """Imports MuJoCo with a GL back end that can draw."""
    if "mujoco" in sys.modules:
        return sys.modules["mujoco"]
    if importlib.util.find_spec("mujoco") is None:
        raise RendererUnavailable(
            "the simulated world is drawn by MuJoCo, which is not installed: type `pip install mujoco`, or install "
            'this package with its part for the simulation, `pip install "clip_seg_ros[sim]"`'
        )
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    faults = []
    for backend in (wanted,) if wanted else ("egl", "osmesa"):
        os.environ["MUJOCO_GL"] = backend
        try:
            mujoco = importlib.import_module("mujoco")
            # Some back ends open a context that cannot draw, which only drawing reveals.
            renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
            renderer.render()
            renderer.close()
            return mujoco
        except Exception as error:  # each back end fails in its own way, and the next one may work
            faults.append(f"{backend}: {type(error).__name__}: {error}")
            for name in [n for n in sys.modules if n.split(".")[0] in ("mujoco", "OpenGL")]:
                del sys.modules[name]
            os.environ.pop("PYOPENGL_PLATFORM", None)
    if wanted:
        os.environ["MUJOCO_GL"] = wanted
    else:
        os.environ.pop("MUJOCO_GL", None)
    why = f"MUJOCO_GL={wanted} does not work; unset it and" if wanted else "neither EGL nor OSMesa works;"
    raise RendererUnavailable(
        f"the simulated camera cannot draw: {why} on Debian or Ubuntu "
        "apt-get install libegl1 libgl1-mesa-dri libosmesa6. Tried: " + "; ".join(faults)
    )


class SceneRenderer:
    """Renders scenes at one image size. Use it as a context manager, from one thread.

    Args:
        width, height: Size of the images in pixels.

    Raises:
        RendererUnavailable: Neither EGL nor OSMesa works.
    """

    def __init__(self, width: int = 640, height: int = 480) -> None:
        if width <= 0 or height <= 0:
            raise ValueError(f"the image size must be positive, got {width}x{height}")
        self.width, self.height = width, height
        self._mujoco = _load_mujoco()
        self._shape_seed: int | None = None
        self._renderer: Any = None
        self._geom_slots: np.ndarray | None = None

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the GL context; the renderer opens a new one if it is used again."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer, self._shape_seed = None, None

    def render(self, scene: Scene, camera: CameraPose | None = None, depth: bool = True) -> RenderedView:
        """Renders ``scene`` from its own camera, or from another one.

        Without ``depth``, that pass is skipped and ``depth_m`` is all NaN.
        """
        camera = camera or scene.camera
        if scene.shape_seed != self._shape_seed:
            self._compile(scene.shape_seed)
        self._apply(scene, camera)
        renderer, data = self._renderer, self._data
        self._mujoco.mj_forward(self._model, data)
        renderer.update_scene(data, camera=0)
        rgb = renderer.render()
        renderer.enable_segmentation_rendering()
        labels = self._labels(renderer.render(), scene)
        renderer.disable_segmentation_rendering()
        depth_m = np.full((self.height, self.width), np.nan, np.float32)
        if depth:
            renderer.enable_depth_rendering()
            depth_m = renderer.render().astype(np.float32)
            depth_m[depth_m > FAR_M * 0.99] = np.nan
            renderer.disable_depth_rendering()
        return RenderedView(
            rgb, depth_m, labels, scene.objects, self._intrinsics(camera.fovy_deg), camera_to_world(camera)
        )

    def _intrinsics(self, fovy_deg: float) -> CameraIntrinsics:
        focal = self.height / 2 / np.tan(np.radians(fovy_deg) / 2)
        return CameraIntrinsics(focal, focal, (self.width - 1) / 2, (self.height - 1) / 2, self.width, self.height)

    def _labels(self, segmentation: np.ndarray, scene: Scene) -> np.ndarray:
        """Converts MuJoCo's (H, W, 2) geom ids into labels: 1 + the index of the object, 0 for no object."""
        slot_to_label = np.zeros(len(self._kinds) * SHAPES_PER_KIND + 1, np.uint8)
        for index, item in enumerate(scene.objects):
            slot_to_label[self._slot_index(item)] = 1 + index
        geom_to_label = np.append(slot_to_label[self._geom_slots], np.uint8(0))  # geom id -1 is the background
        is_geom = segmentation[..., 1] == int(self._mujoco.mjtObj.mjOBJ_GEOM)
        return geom_to_label[np.where(is_geom, segmentation[..., 0], -1)]

    def _compile(self, shape_seed: int) -> None:
        """Builds the model with every shape of the set once; scenes then only move and colour the shapes."""
        self.close()
        self._kinds = tuple(shape_set(shape_seed))
        mujoco = self._mujoco
        spec = mujoco.MjSpec()
        spec.visual.map.znear, spec.visual.map.zfar = NEAR_M, FAR_M
        spec.stat.extent, spec.stat.center = 1.0, (0, 0, 0)
        spec.visual.quality.shadowsize = 1024
        spec.visual.global_.offwidth, spec.visual.global_.offheight = self.width, self.height
        self._add_table(spec, np.random.default_rng([shape_seed, 3]))
        spec.worldbody.add_camera(name="camera", pos=(0, 0, 1))
        for _ in range(2):
            light = spec.worldbody.add_light(pos=(0, 0, 3), dir=(0, 0, -1))
            light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
            light.castshadow = True
        self._add_shapes(spec, shape_seed)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        no_slot = len(self._kinds) * SHAPES_PER_KIND
        # Geoms 0 and 1 are the floor and the table.
        self._geom_slots = np.array([no_slot, no_slot, *self._part_slots])
        self._renderer = mujoco.Renderer(self._model, self.height, self.width)
        self._shape_seed = shape_seed

    def _add_table(self, spec: Any, rng: np.random.Generator) -> None:
        mujoco = self._mujoco
        for name in (*TABLE_TEXTURES, *UNSEEN_TABLE_TEXTURES):
            image = table_texture(name, rng)
            texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, nchannel=3)
            texture.width, texture.height, texture.data = image.shape[1], image.shape[0], image.tobytes()
            material = spec.add_material(name=name, texrepeat=(1.5, 1.5), specular=0.1, shininess=0.2)
            material.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name
        sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        sky.builtin = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
        sky.rgb1, sky.rgb2, sky.width, sky.height = (0.75, 0.78, 0.82), (0.45, 0.45, 0.47), 64, 64
        body = spec.worldbody
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(FLOOR_REACH_M, FLOOR_REACH_M, 0.1), pos=(0, 0, FLOOR_Z))
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=TABLE_HALF_SIZE,
            pos=(0, 0, -TABLE_HALF_SIZE[2]),
            material=TABLE_TEXTURES[0],
        )

    def _add_shapes(self, spec: Any, shape_seed: int) -> None:
        rng = np.random.default_rng([shape_seed, 4])
        self._part_slots: list[int] = []
        self._part_fixed: list[bool] = []
        for kind_index, (kind, shapes) in enumerate(shape_set(shape_seed).items()):
            for slot, shape in enumerate(shapes):
                name = f"{kind}{slot}"
                gloss = float(rng.uniform(0.0, 0.6))
                spec.add_material(name=name, specular=gloss, shininess=float(rng.uniform(0.2, 0.9)))
                body = spec.worldbody.add_body(name=name, mocap=True)
                for index, part in enumerate(shape.parts):
                    mesh = spec.add_mesh(name=f"{name}_{index}")
                    mesh.uservert, mesh.userface = part.vertices.ravel(), part.faces.ravel().astype(np.int32)
                    mesh.inertia = self._mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
                    body.add_geom(
                        type=self._mujoco.mjtGeom.mjGEOM_MESH,
                        meshname=mesh.name,
                        material=name,
                        rgba=part.rgba or (0.5, 0.5, 0.6, 1.0),
                        contype=0,
                        conaffinity=0,
                    )
                    self._part_slots.append(kind_index * SHAPES_PER_KIND + slot)
                    self._part_fixed.append(part.rgba is not None)

    def _apply(self, scene: Scene, camera: CameraPose) -> None:
        model, data = self._model, self._data
        present = {self._slot_index(item): item for item in scene.objects}
        for geom, (slot, fixed) in enumerate(zip(self._part_slots, self._part_fixed, strict=True), start=2):
            item = present.get(slot)
            if item is None:
                model.geom_rgba[geom, 3] = 0.0  # MuJoCo does not draw fully transparent geoms
            else:
                model.geom_rgba[geom] = [*model.geom_rgba[geom, :3], 1.0] if fixed else item.rgba
        for slot, item in present.items():
            shape = shape_set(scene.shape_seed)[item.kind][item.slot]
            position, rotation = object_pose(item, shape.height)
            data.mocap_pos[slot] = position
            self._mujoco.mju_mat2Quat(data.mocap_quat[slot], rotation.ravel())
        model.geom_rgba[0] = scene.floor_rgba
        model.geom_rgba[1] = scene.table_rgba
        model.geom_matid[1] = (*TABLE_TEXTURES, *UNSEEN_TABLE_TEXTURES).index(scene.table_texture)
        model.vis.headlight.ambient[:] = scene.ambient
        model.vis.headlight.diffuse[:] = 0.12
        model.vis.headlight.specular[:] = 0.0
        for index, light in enumerate(scene.lights):
            model.light_dir[index], model.light_diffuse[index] = light.direction, light.diffuse
            model.light_pos[index] = -2.0 * np.array(light.direction)
        pose = camera_to_world(camera)
        model.cam_pos[0], model.cam_fovy[0] = pose[:3, 3], camera.fovy_deg
        # MuJoCo's cameras look along -z with y up; the optical frame looks along +z with y down.
        self._mujoco.mju_mat2Quat(model.cam_quat[0], (pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])).ravel())

    def _slot_index(self, item: SceneObject) -> int:
        return self._kinds.index(item.kind) * SHAPES_PER_KIND + item.slot


def object_pose(item: SceneObject, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the position (3,) of the shape's origin and the rotation (3, 3) from shape to world."""
    c, s = np.cos(item.yaw), np.sin(item.yaw)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    position = np.array(item.position)
    if not item.lying:
        return position, turn
    rotation = turn @ np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    return position - rotation @ np.array([0.0, 0.0, height / 2]), rotation


def camera_to_world(camera: CameraPose) -> np.ndarray:
    """Returns the (4, 4) transform from the optical frame (x right, y down, z forward) to the world."""
    eye, target = np.array(camera.eye), np.array(camera.target)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose
