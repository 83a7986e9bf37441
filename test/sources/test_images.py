# SPDX-License-Identifier: Apache-2.0
import sys

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sources.images import BagPictures, DatasetPictures, FolderPictures, ScenePictures

ROS = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
FILE_OF = {StoragePlugin.SQLITE3: "*.db3", StoragePlugin.MCAP: "*.mcap"}


def picture(seed, height=12, width=17):
    """Smooth, for JPEG: neighbouring pixels are alike."""
    small = np.random.default_rng(seed).integers(0, 255, (2, 3, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def header(stamp):
    time = ROS.types["builtin_interfaces/msg/Time"](sec=stamp, nanosec=0)
    return ROS.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def raw(pixels, encoding="rgb8", stamp=0, padding=0):
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)), constant_values=99)
    return ROS.types[IMAGE](
        header=header(stamp),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


def compressed(rgb, suffix=".jpg", stamp=0):
    data = cv2.imencode(suffix, rgb[..., ::-1])[1].ravel()
    return ROS.types[COMPRESSED](header=header(stamp), format="jpeg", data=data)


def write_bag(path, messages, storage=StoragePlugin.SQLITE3):
    """Writes (topic, type, message) one a second."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {}
        for second, (topic, kind, message) in enumerate(messages):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=ROS)
            if message is not None:
                data = message if isinstance(message, bytes) else ROS.serialize_cdr(message, kind)
                writer.write(connections[topic], second * 10**9, data)
    return path


@pytest.mark.parametrize("storage", FILE_OF)
@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file"])
def test_images_of_a_bag_come_back_in_order(tmp_path, storage, alone):
    pictures = [picture(seed) for seed in range(5)]
    text = ("/chatter", INFO, ROS.types[INFO](data="hello"))
    bag = write_bag(tmp_path / "bag", [text, *(("/camera", IMAGE, raw(p)) for p in pictures)], storage)
    source = BagPictures(next(bag.glob(FILE_OF[storage])) if alone else bag)
    assert source.topic == "/camera"
    assert len(source) == 5
    read = [(item.name, item.read()) for item in source]
    assert [name for name, _ in read] == [f"/camera {second}000000000" for second in range(1, 6)]
    assert all(np.array_equal(rgb, true) for (_, rgb), true in zip(read, pictures, strict=True))


@pytest.mark.parametrize("storage", FILE_OF)
def test_compressed_images(tmp_path, storage):
    pictures = [picture(seed) for seed in range(2)]
    messages = [("/c", COMPRESSED, compressed(pictures[0], ".png")), ("/c", COMPRESSED, compressed(pictures[1]))]
    exact, near = (item.read() for item in BagPictures(write_bag(tmp_path / "bag", messages, storage)))
    assert np.array_equal(exact, pictures[0])
    # Red and blue in their places: a swap would be off by far more.
    assert np.abs(near.astype(int) - pictures[1]).mean() < 8 < np.abs(near[..., ::-1].astype(int) - pictures[1]).mean()


@pytest.mark.parametrize(
    ("encoding", "change"),
    [
        ("rgb8", lambda rgb: rgb),
        ("bgr8", lambda rgb: rgb[..., ::-1]),
        ("rgba8", lambda rgb: np.dstack([rgb, rgb[..., 0]])),
        ("bgra8", lambda rgb: np.dstack([rgb[..., ::-1], rgb[..., 0]])),
    ],
)
def test_encodings_and_padded_rows(tmp_path, encoding, change):
    rgb = picture(3)
    bag = write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(change(rgb), encoding, padding=5))])
    (item,) = BagPictures(bag)
    assert np.array_equal(item.read(), rgb)


def test_grey_images_have_three_equal_channels(tmp_path):
    grey = picture(1)[..., 0]
    (item,) = BagPictures(write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(grey, "mono8"))]))
    assert np.array_equal(item.read(), np.dstack([grey] * 3))


def test_one_of_several_topics_must_be_named(tmp_path):
    pictures = picture(0), picture(1)
    messages = [("/left", IMAGE, raw(pictures[0])), ("/right", COMPRESSED, compressed(pictures[1], ".png"))]
    bag = write_bag(tmp_path / "bag", messages)
    with pytest.raises(DataError, match=r"name one of them: /left \(1 pictures\), /right \(1 pictures\)"):
        BagPictures(bag)
    with pytest.raises(DataError, match=r"no images on /up; it holds /left"):
        BagPictures(bag, "/up")
    for topic, true in zip(("/left", "/right"), pictures, strict=True):
        (item,) = BagPictures(bag, topic)
        assert np.array_equal(item.read(), true)


def test_every_third_picture(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(picture(seed))) for seed in range(7)])
    source = BagPictures(bag, every=3)
    assert len(source) == 3
    assert all(np.array_equal(item.read(), picture(seed)) for item, seed in zip(source, (0, 3, 6), strict=True))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        BagPictures(bag, every=0)


def test_a_picture_that_cannot_be_read_does_not_end_the_bag(tmp_path):
    broken = raw(picture(0))
    broken.data = broken.data[:50]
    depth = raw(picture(0)[..., :2], "16UC1")
    messages = [("/camera", IMAGE, m) for m in (broken, depth, b"\0\1\0\0ab", raw(picture(5)))]
    items = list(BagPictures(write_bag(tmp_path / "bag", messages)))
    assert len(items) == 4
    faults = ("/camera 0 cannot be read: .* got 50", r"holds depth \(16UC1\), and no colours", "cannot be read")
    source = iter(BagPictures(tmp_path / "bag"))
    for fault in faults:
        with pytest.raises(DataError, match=fault):
            next(source).read()
    assert np.array_equal(next(source).read(), picture(5))


def test_what_is_no_bag_is_said(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "metadata.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    (tmp_path / "cut.mcap").write_bytes(b"\x89MCAP0\r\n")
    for name in ("damaged", "notes.txt", "cut.mcap"):
        with pytest.raises(DataError, match=f"{name} is no bag that can be read"):
            BagPictures(tmp_path / name)
    with pytest.raises(DataError, match="there is no bag"):
        BagPictures(tmp_path / "nothing")
    text = ("/chatter", INFO, ROS.types[INFO](data="hello"))
    with pytest.raises(DataError, match="holds no topic of sensor_msgs/msg/Image or"):
        BagPictures(write_bag(tmp_path / "talk", [text]))
    with pytest.raises(DataError, match="/camera, but not one picture"):
        BagPictures(write_bag(tmp_path / "empty", [text, ("/camera", IMAGE, None)]))


def test_without_rosbags_the_message_says_what_to_install(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(picture(0)))])
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(DataError, match="pip install rosbags"):
        BagPictures(bag)


def test_pictures_of_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".thumbnails").mkdir()
    for name in ("z.png", "b/a.PNG", ".thumbnails/t.png"):
        cv2.imwrite(str(tmp_path / name), picture(len(name))[..., ::-1])
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    source = FolderPictures(tmp_path)
    first, broken, last = source
    assert [item.name for item in (first, broken, last)] == ["b/a.PNG", "broken.jpg", "z.png"]
    assert len(source) == 3
    assert np.array_equal(first.read(), picture(7))
    assert np.array_equal(last.read(), picture(5))
    with pytest.raises(DataError, match=r"broken.jpg is no picture"):
        broken.read()


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(DataError, match=r"holds no pictures: looked in it and below for .png, .jpg"):
        FolderPictures(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        FolderPictures(tmp_path / "nowhere")
    (tmp_path / "drive.mp4").touch()
    for named in (tmp_path, tmp_path / "drive.mp4"):
        with pytest.raises(DataError, match=r"drive\.mp4 is a video: write its frames as images first.*ffmpeg -i"):
            FolderPictures(named)


def test_other_pictures_have_another_identity(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    before = FolderPictures(tmp_path).identity()
    assert FolderPictures(tmp_path).identity() == before
    cv2.imwrite(str(tmp_path / "b.png"), picture(1))
    assert FolderPictures(tmp_path).identity() != before
    bag = write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(picture(seed))) for seed in range(4)])
    assert BagPictures(bag).identity() == BagPictures(bag).identity() != BagPictures(bag, every=2).identity()


def test_a_bag_with_a_hole_ends_with_a_clear_error(tmp_path):
    noise = [np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8) for seed in range(20)]
    bag = write_bag(tmp_path / "bag", [("/camera", IMAGE, raw(rgb)) for rgb in noise])
    path = next(bag.glob("*.db3"))
    content = bytearray(path.read_bytes())
    content[30_000:200_000] = bytes(170_000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged|cannot be read|no bag that can be read|cut short"):
        [item.read() for item in BagPictures(bag)]


def test_scene_pictures_are_the_scenes_of_their_seeds():
    source = ScenePictures(2)
    pictures = [(picture.name, picture.read()) for picture in source]
    assert len(source) == 2
    assert [name for name, _ in pictures] == ["scene 50000", "scene 50001"]
    # The second without the first.
    alone = [picture.read() for picture in source if picture.name == "scene 50001"]
    with SceneRenderer() as renderer:
        expected = renderer.render(held_out_scene(50001), depth=False).rgb
    assert expected.shape == (480, 640, 3)
    np.testing.assert_array_equal(pictures[1][1], expected)
    np.testing.assert_array_equal(alone[0], expected)
    assert (pictures[0][1] != expected).any()


def test_pictures_of_a_data_set_come_once_each(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate("ba"):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.full((4, 6, 3), number, np.uint8))
        cv2.imwrite(str(tmp_path / f"labels/{name}.png"), np.zeros((4, 6), np.uint8))
    classes = LabelledFolder(tmp_path, ("cup",))
    rows = ("image,mask,phrase", "images/b.png,,cup", "images/a.png,,cup", "images/b.png,,box")
    (tmp_path / "phrases.csv").write_text("\n".join(rows))
    phrases = PhraseFolder(tmp_path)

    assert [(picture.name, picture.read()[0, 0, 0]) for picture in DatasetPictures(classes)] == [("a", 1), ("b", 0)]
    assert [picture.name for picture in DatasetPictures(phrases)] == ["images/b.png", "images/a.png"]
    assert len(DatasetPictures(phrases)) == 2
    assert DatasetPictures(classes).identity() != DatasetPictures(phrases).identity()
