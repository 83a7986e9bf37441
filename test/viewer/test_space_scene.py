# SPDX-License-Identifier: Apache-2.0
"""What a client of viser is sent of the rendered table, image after image."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("viser")

from clip_seg_ros.pipeline.overlay import PALETTE
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.types import OrientedBox
from clip_seg_ros.viewer import space_scene
from clip_seg_ros.viewer.space_door import KEY_HEADER
from clip_seg_ros.viewer.space_geometry import first_look, up_of, upright
from clip_seg_ros.viewer.space_nodes import GREY, MOST_POINTS
from clip_seg_ros.viewer.space_scene import SpaceScene
from clip_seg_ros.viewer.views import View
from patience import until
from table_view import table_view
from viser_client import CAMERA, CLICK, ViserClient, near

BODY, EDGES, LABEL = "/cameras/0/1_body", "/cameras/0/1_edges", "/cameras/0/1_label"
Nodes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def view(rendered: RenderedView) -> View:
    return table_view(rendered)


@pytest.fixture
def picked() -> queue.Queue:
    return queue.Queue()


@pytest.fixture
def scene(picked: queue.Queue) -> Iterator[SpaceScene]:
    scene = SpaceScene(lambda *what: picked.put(what))
    yield scene
    scene.close()


@pytest.fixture
def client(scene: SpaceScene) -> Iterator[ViserClient]:
    with near(scene.door, "me") as client:
        yield client


def labels(nodes: Nodes) -> set[str]:
    return {props["text"] for props in nodes.values() if props["type"] == "LabelMessage"}


def has(name: str) -> Callable[[Nodes], bool]:
    """Whether a node is there with its place, and a label with its text, which comes after the box that it names."""
    return lambda nodes: "visible" in nodes.get(name, {}) and nodes[name].get("text") != ""


def test_things_are_named_with_score_and_distance(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    wanted = {"blue box"}
    for thing in view.things:
        if thing.id:
            wanted.add(f"{thing.prompt} {thing.score:.2f} · {np.linalg.norm(thing.position_m):.2f} m")

    client.until(lambda nodes: labels(nodes) >= wanted, "the names of all things")
    assert labels(client.nodes) == wanted


def test_boxes_lie_where_they_were_measured(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    box = view.things[0].box_m
    client.until(has(LABEL), "the box of the red cup")

    for name in (BODY, EDGES):
        node = client.nodes[name]
        x, y, z, w = box.orientation_xyzw
        assert node["position"] == pytest.approx(box.center_m, abs=1e-6)
        assert node["scale"] == pytest.approx(box.size_m, abs=1e-6)
        assert node["wxyz"] == pytest.approx((w, x, y, z), abs=1e-6)
        assert tuple(node.get("color", node.get("colors"))) == PALETTE[0]


def test_what_others_relate_to_is_grey_and_not_clickable(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has("/cameras/0/anchor_1_label"), "the name of the blue box")

    assert tuple(client.nodes["/cameras/0/anchor_1_body"]["color"]) == GREY
    assert "bindings" not in client.nodes["/cameras/0/anchor_1_body"]
    assert client.nodes["/cameras/0/anchor_1_edges"]["thickness"] < client.nodes[EDGES]["thickness"]


def cloud_of(nodes: Nodes, name: str) -> np.ndarray:
    node = nodes[f"/cameras/0/{name}"]
    return node["points"].reshape(-1, 3).astype(np.float64) + node["position"]


def test_points_are_those_of_the_view(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has("/cameras/0/surroundings"), "the points")

    assert np.abs(cloud_of(client.nodes, "things") - view.cloud.points_m).max() < 1e-3
    assert (client.nodes["/cameras/0/things"]["colors"].reshape(-1, 3) == view.cloud.rgb).all()
    assert len(cloud_of(client.nodes, "surroundings")) == len(view.surroundings.points_m)
    pale = client.nodes["/cameras/0/surroundings"]["colors"].reshape(-1, 3).astype(int)
    assert pale.std() < 0.5 * view.surroundings.rgb.astype(int).std()


def test_points_far_from_the_origin_keep_their_digits(scene: SpaceScene, client: ViserClient, view: View) -> None:
    shift = np.array([812.5, -377.25, 4.0], np.float32)
    pose = np.eye(4)
    pose[:3, 3] = shift
    cloud = replace(view.cloud, points_m=view.cloud.points_m + shift)
    scene.update(replace(view, cloud=cloud, camera_pose=pose, frame="map", things=(), table=None))
    client.until(has("/cameras/0/things"), "the points")

    assert np.abs(cloud_of(client.nodes, "things") - cloud.points_m).max() < 2e-3


def test_of_too_many_points_some_are_sent(scene: SpaceScene, client: ViserClient, view: View) -> None:
    count = 5 * MOST_POINTS
    cloud = PointCloud(np.zeros((count, 3), np.float32), np.zeros((count, 3), np.uint8), np.ones(count, np.uint8))
    scene.update(replace(view, cloud=cloud))
    client.until(has("/cameras/0/things"), "the points")

    assert len(cloud_of(client.nodes, "things")) == MOST_POINTS


def test_what_is_there_is_moved_and_not_made_again(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has(LABEL), "the red cup")
    before = len([m for m in client.messages if "props" in m])
    cup = view.things[0]
    moved = replace(cup.box_m, center_m=(0.3, 0.1, 0.9))
    fewer = replace(view.cloud, points_m=view.cloud.points_m[:500], rgb=view.cloud.rgb[:500], ids=view.cloud.ids[:500])
    scene.update(replace(view, things=(replace(cup, box_m=moved, score=0.5), *view.things[1:]), cloud=fewer))
    client.until(lambda nodes: nodes[BODY]["position"] == pytest.approx((0.3, 0.1, 0.9)), "the moved cup")
    client.until(lambda nodes: nodes[LABEL]["text"].startswith("red cup 0.50"), "the new score")
    client.until(lambda nodes: len(cloud_of(nodes, "things")) == 500, "fewer points")

    assert len([m for m in client.messages if "props" in m]) == before
    assert not [m for m in client.messages if m["type"] == "RemoveSceneNodeMessage"]


def test_what_is_gone_is_removed_and_comes_back(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has(LABEL), "the red cup")
    scene.update(replace(view, things=view.things[1:], cloud=None, table=None, intrinsics=None))
    client.until(lambda nodes: LABEL not in nodes and "/cameras/0/camera" not in nodes, "all that is gone")

    assert {BODY, EDGES, "/cameras/0/table", "/cameras/0/things"} & set(client.nodes) == set()
    assert "/cameras/0/3_body" in client.nodes
    scene.update(view)
    client.until(lambda nodes: {BODY, EDGES, LABEL, "/cameras/0/table", "/cameras/0/things"} <= set(nodes), "all of it")


def test_a_thing_without_a_box_is_a_ball(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(replace(view, things=(replace(view.things[0], box_m=None),)))
    client.until(has(LABEL), "the red cup")
    assert client.nodes[BODY]["type"] == "IcosphereMessage"
    assert EDGES not in client.nodes

    scene.update(view)
    client.until(lambda nodes: nodes.get(BODY, {}).get("type") == "BoxMessage", "its box")


def test_a_thing_without_depth_is_not_drawn(scene: SpaceScene, client: ViserClient, view: View) -> None:
    flat = replace(view.things[0], position_m=None, box_m=None)
    scene.update(replace(view, things=(flat, *view.things[1:])))
    client.until(has("/cameras/0/3_label"), "the other things")

    assert BODY not in client.nodes


def test_colours_are_those_of_the_picture(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(replace(view, prompts=("green cup", *view.prompts)))
    client.until(has(LABEL), "the red cup")

    assert tuple(client.nodes[BODY]["color"]) == PALETTE[1]


def test_cameras_of_one_frame_share_their_place(scene: SpaceScene, client: ViserClient, rendered: RenderedView) -> None:
    for camera in ("left", "right"):
        scene.update(table_view(rendered, camera, in_world=True))
    client.until(lambda nodes: {"left", "right"} <= labels(nodes), "both cameras")
    client.until(lambda nodes: has("/cameras/1/3_label")(nodes) and has("/cameras/0/3_label")(nodes), "things of both")

    assert client.nodes["/cameras/0/3_body"]["position"] == pytest.approx(client.nodes["/cameras/1/3_body"]["position"])
    assert client.nodes["/cameras/1"]["position"] == pytest.approx((0, 0, 0))


def test_cameras_that_know_no_common_frame_stand_apart(scene: SpaceScene, client: ViserClient, view: View) -> None:
    for camera in ("left", "right"):
        scene.update(replace(view, camera=camera))
    client.until(has("/cameras/1"), "the second camera")

    assert client.nodes["/cameras/1"]["position"] == pytest.approx((space_scene.ASIDE_M, 0, 0))


def test_clear_removes_everything(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has(LABEL), "the red cup")
    scene.clear()
    client.until(lambda nodes: not any(name.startswith("/cameras/0") for name in nodes), "an empty scene")

    scene.update(view)
    client.until(has(LABEL), "the red cup again")


def test_who_comes_later_sees_the_same(scene: SpaceScene, client: ViserClient, view: View) -> None:
    for _ in range(3):
        scene.update(replace(view, things=view.things[2:]))
        client.until(lambda nodes: has("/cameras/0/3_label")(nodes) and BODY not in nodes, "no red cup")
        scene.update(view)
        client.until(has(LABEL), "the red cup")

    with near(scene.door) as late:
        late.until(has("/cameras/0/surroundings"), "the points")
        late.until(lambda nodes: set(nodes) == set(client.nodes), "the same nodes")
        assert (late.nodes["/cameras/0/things"]["points"] == client.nodes["/cameras/0/things"]["points"]).all()


def test_a_click_names_camera_and_thing(
    scene: SpaceScene, client: ViserClient, picked: queue.Queue, view: View
) -> None:
    scene.update(replace(view, camera="left"))
    client.until(lambda nodes: "bindings" in nodes.get("/cameras/0/5_body", {}), "a box that can be clicked")
    client.send(CAMERA)
    client.send({**CLICK, "name": "/cameras/0/5_body"})

    assert picked.get(timeout=60) == ("left", 5, "me")


@pytest.mark.parametrize(
    "key", [[], [(KEY_HEADER, "")], [(KEY_HEADER, "wrong")], [(KEY_HEADER, "ä")], 2 * [(KEY_HEADER, "twice")]]
)
def test_other_users_of_the_machine_see_nothing_without_the_key(
    scene: SpaceScene, client: ViserClient, view: View, key: list[tuple[str, str]]
) -> None:
    scene.update(view)
    client.until(has(LABEL), "the red cup")
    with ViserClient(f"ws://127.0.0.1:{scene.door.port}", additional_headers=key) as stranger:
        until(lambda: stranger.closed_with is not None, "the end")

        assert stranger.closed_with == 1008
        assert stranger.received_bytes == 0
    until(lambda: len(scene._server._websock_server._client_state_from_id) == 1, "nobody but the client")


def test_each_scene_has_a_key_of_its_own(scene: SpaceScene) -> None:
    other = SpaceScene(lambda *_: None)
    assert len({scene.door.key, other.door.key}) == 2
    other.close()


def test_to_clear_does_not_wait_for_what_is_being_drawn(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(view)
    client.until(has(LABEL), "the red cup")
    with scene._drawing:  # as while a view is drawn
        scene.clear()
        scene.update(replace(view, things=view.things[2:]))
    client.until(lambda nodes: has("/cameras/0/3_label")(nodes) and BODY not in nodes, "only what came afterwards")


def test_who_opened_the_page_early_is_turned_to_the_things(scene: SpaceScene, client: ViserClient, view: View) -> None:
    client.send(CAMERA)
    client.until(lambda _: scene._server.get_clients(), "a client with a camera")
    scene.update(view)
    turned = client.until(
        lambda _: [m for m in client.messages if m["type"] == "SetCameraPositionMessage" and not m["initial"]],
        "a new place to look from",
    )

    eye, _ = first_look(view)
    up = up_of(view)
    assert turned[-1]["position"] == pytest.approx(upright(view, up) @ eye, abs=1e-4)


def test_updates_never_wait_and_the_last_one_is_drawn(scene: SpaceScene, client: ViserClient, view: View) -> None:
    start = time.monotonic()
    for index in range(1000):
        scene.update(replace(view, things=(replace(view.things[0], score=index / 1000),)))
    assert time.monotonic() - start < 5.0

    client.until(lambda nodes: nodes.get(LABEL, {}).get("text", "").startswith("red cup 1.00"), "the last score")
    scores = [m for m in client.messages if m["type"] == "SceneNodeUpdateMessage" and m["name"] == LABEL]
    assert len(scores) < 100


def test_one_bad_view_does_not_end_the_drawing(scene: SpaceScene, client: ViserClient, view: View) -> None:
    scene.update(replace(view, camera_pose=np.zeros((2, 2))))
    scene.update(replace(view, camera="other"))
    client.until(lambda nodes: "other" in labels(nodes), "the other camera")

    scene.update(view)
    client.until(lambda nodes: any(text.startswith("red cup") for text in labels(nodes)), "the next view")


def test_it_is_served_on_loopback_alone_and_says_nothing(capfd: pytest.CaptureFixture[str], view: View) -> None:
    scene = SpaceScene(lambda *_: None)
    assert scene._server.get_host() == "127.0.0.1"
    with near(scene.door) as client:
        scene.update(view)
        client.until(has(LABEL), "the red cup")
    scene.close()
    scene.close()

    assert capfd.readouterr() == ("", "")


def test_nobody_can_share_it_with_the_internet(scene: SpaceScene, client: ViserClient, view: View) -> None:
    client.send({"type": "ShareUrlRequest"})
    scene.update(view)
    client.until(has(LABEL), "what was sent afterwards")

    assert scene._server.request_share_url() is None
    assert scene._server._share_tunnel is None
    assert not [m for m in client.messages if m["type"] == "ShareUrlUpdated"]


def test_what_is_kept_for_late_comers_does_not_grow(scene: SpaceScene, view: View) -> None:
    def draw_all_ids() -> int:
        for start in range(0, 255, 5):
            things = [replace(view.things[0], id=1 + (start + index) % 255) for index in range(5)]
            scene._draw(replace(view, things=tuple(things), cloud=view.cloud if start % 2 else None))
        return len(scene._server._websock_server._broadcast_buffer.message_from_id)

    first = draw_all_ids()
    kept = [draw_all_ids() for _ in range(3)]

    assert first < 2500
    assert max(kept) <= first + 10


def test_after_long_use_viser_is_started_anew_while_nobody_looks(
    scene: SpaceScene, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_scene, "RENEW_AFTER", 3)
    first = scene.door
    with near(first) as client:
        client.send(CAMERA)
        client.until(lambda _: scene._server.get_clients(), "a client with a camera")
        for index in range(3):
            assert scene.door == first
            scene.update(replace(view, things=view.things[index:]))
            client.until(lambda nodes: f"/cameras/0/{(1, 3, 3)[index]}_label" in nodes, "the things")
            client.until(lambda nodes: (BODY in nodes) == (index == 0), "no others")
            client.until(lambda _: scene._drawings == index + 1, "the end of drawing")
    until(lambda: scene.door != first, "a new viser")

    with near(scene.door) as late:
        late.until(has("/cameras/0/8_label"), "what was drawn last")
        assert BODY not in late.nodes
        assert "/cameras/0/surroundings" in late.nodes


def test_after_close_updates_are_ignored(view: View) -> None:
    scene = SpaceScene(lambda *_: None)
    scene.close()

    scene.update(view)


@pytest.mark.parametrize("table", [None, (0.0, -0.6, -0.8, 0.75), (0.0, 0.0, -1.0, 0.75), (0.0, 0.0, 1.0, 0.5)])
def test_a_frame_is_turned_upright(view: View, table: tuple[float, float, float, float] | None) -> None:
    turned = replace(view, table=table)
    up = up_of(turned)
    rotation = upright(turned, up)

    assert rotation @ up == pytest.approx((0, 0, 1), abs=1e-9)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_boxes_need_not_be_turned(view: View) -> None:
    plain = OrientedBox((0.0, 0.0, 1.0), (0.3, 0.2, 0.1), (0.0, 0.0, 0.0, 1.0))
    scene = SpaceScene(lambda *_: None)
    with near(scene.door) as client:
        scene.update(replace(view, things=(replace(view.things[0], box_m=plain),)))
        client.until(has(LABEL), "the box")
        assert client.nodes[BODY]["wxyz"] == pytest.approx((1, 0, 0, 0))
    scene.close()
