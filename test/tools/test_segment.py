# SPDX-License-Identifier: Apache-2.0
"""``clip-seg segment`` on every kind of source, with the embedded weights on rendered tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clip_seg_ros.annotation.segment_files import SegmentFiles
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.tools.cli import main
from written_sources import COLOR_TOPIC, FRAME, Joint, write_bag, write_pictures, write_video

MODEL = ("--model", "clipseg-pocket", "--engine", "eager")


@pytest.fixture(scope="module")
def table() -> RenderedView:
    """320x240, with a red cup and a blue box."""
    with SceneRenderer(320, 240) as renderer:
        return renderer.render(sample_scene(3, required=[("red", "cup"), ("blue", "box")]))


@pytest.fixture(scope="module")
def picture(table, tmp_path_factory) -> Path:
    return write_png(tmp_path_factory.mktemp("picture") / "table.png", table.rgb)


def write_png(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(out: Path) -> dict[str, bytes]:
    """The files in a folder, by their names."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def segment(out: Path, *arguments: object) -> int:
    return main(["segment", *map(str, arguments), "--out", str(out), *MODEL])


def test_one_picture_tells_what_was_found_where_how_sure_and_what_to_look_at(table, picture, tmp_path, capsys):
    assert segment(tmp_path / "out", picture, "--prompts", "red cup") == 0
    (thing,) = lines(tmp_path / "out" / "objects.jsonl")
    said = capsys.readouterr()
    first, found, where, took, look, *_ = said.out.splitlines()
    x, y = (round(each) for each in thing["centroid_px"])
    assert first == f"{picture}, 320 x 240 pixels"
    assert found == "  red cup: 1 found"
    assert f"score {thing['score']:.2f}  at ({x}, {y})" in where
    assert "s by clipseg-pocket (eager on cpu)" in took
    assert look == f"look at {tmp_path / 'out' / 'overlays' / 'table.jpg'}"
    assert "know the simulated table alone" in said.err
    drawn = cv2.imread(look.removeprefix("look at "))
    assert drawn.shape == (240, 320, 3)
    assert np.abs(drawn[..., ::-1].astype(int) - table.rgb)[table.mask_of("red", "cup")].mean() > 10
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "table.png"), cv2.IMREAD_UNCHANGED) == thing["id"]
    truth = table.mask_of("red", "cup")
    assert (mask & truth).sum() > 0.6 * (mask | truth).sum()


def test_a_command_is_answered_as_a_node_answers_it(picture, tmp_path, capsys):
    command = "how many red cups are left of the blue box?"
    command = f"{command} with threshold 0.6"
    assert segment(tmp_path / "out", picture, "--command", command, "--prompts", "blue box = 0.7") == 0
    told = summary(tmp_path / "out")
    assert (told["threshold"], told["own_thresholds"]) == (0.6, {"blue box": 0.7})
    (image,) = lines(tmp_path / "out" / "images.jsonl")
    assert "not left of the blue box; nearest miss" in image["answer"]
    assert image["found"]["blue box"] == 1
    assert "nearest miss" in capsys.readouterr().out


def test_what_is_related_says_to_what(picture, tmp_path):
    assert segment(tmp_path / "out", picture, "--command", "find the cup right of the blue box") == 0
    things = lines(tmp_path / "out" / "objects.jsonl")
    ties = {(each["words"], each["to"]) for thing in things for each in thing["relations"]}
    assert ties == {("right of", "blue box")}


def test_folders_patterns_and_pictures_keep_their_names(table, tmp_path, capsys):
    folder = tmp_path / "photos"
    for name in ("a.png", "b/a.png", "größe 1.png"):
        write_png(folder / name, table.rgb)
    out = tmp_path / "out"
    assert (
        segment(out, folder, folder / "a.png", f"{folder}/b/*.png", f"{tmp_path}/*/b/*.png", "--prompts", "red cup")
        == 0
    )
    found = sorted(str(path.relative_to(out / "overlays")) for path in (out / "overlays").rglob("*.jpg"))
    assert found == ["a.jpg", "a_2.jpg", "photos/a.jpg", "photos/b/a.jpg", "photos/b/a_2.jpg", "photos/größe_1.jpg"]
    assert f"look at {out}/overlays/photos/ (3 pictures, a.jpg is the first)" in capsys.readouterr().out
    images = lines(out / "images.jsonl")
    expected = ["overlays/a.jpg", "overlays/a_2.jpg", "overlays/photos/b/a_2.jpg"]
    assert [each["overlay"] for each in images][-3:] == expected
    assert all((out / each["mask"]).is_file() for each in images)


def test_pictures_that_are_not_wanted_are_not_read_and_damaged_ones_count(table, tmp_path, capsys):
    folder = tmp_path / "photos"
    for name in "acde":
        write_png(folder / f"{name}.png", table.rgb[::4, ::4])
    for name in ("a2", "b"):  # a, a2, b, c, d, e
        (folder / f"{name}.png").write_bytes(b"no picture")
    assert segment(tmp_path / "out", folder, "--prompts", "red cup", "--every", 2, "--no-overlay") == 3

    found = [(Path(each["image"]).name, each["index"]) for each in lines(tmp_path / "out" / "images.jsonl")]
    assert found == [("a.png", 0), ("d.png", 4)]
    said = capsys.readouterr().err
    assert "b.png" in said
    assert "a2.png" not in said


def test_many_pictures_of_one_name_get_numbers(tmp_path):
    files = SegmentFiles(tmp_path, (), "", False, False)
    assert [files._free(name) for name in ("a", "A", "a_2", "a", "a_2")] == ["a", "A_2", "a_2_2", "a_3", "a_2_3"]


@pytest.mark.parametrize("kind", ["grey", "16 bits", "grey of 16 bits", "with transparency", "turned"])
def test_pictures_of_every_kind_are_answered(table, tmp_path, kind):
    rgb, path = table.rgb, tmp_path / "a.png"
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if kind == "turned":
        from PIL import Image

        image, path = Image.fromarray(np.ascontiguousarray(np.rot90(rgb))), tmp_path / "a.jpg"
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif, quality=95)
    else:
        kinds = {
            "grey": grey,
            "16 bits": rgb.astype(np.uint16) * 257,
            "grey of 16 bits": grey.astype(np.uint16) * 257,
            "with transparency": np.dstack([np.full_like(grey, 255), rgb]),  # its channels are turned around
        }
        write_png(path, kinds[kind])
    assert segment(tmp_path / "out", path, "--prompts", "cup") == 0
    (image,) = lines(tmp_path / "out" / "images.jsonl")
    assert (image["width"], image["height"]) == (320, 240)
    assert image["found"]["cup"] >= 1


def test_a_video_becomes_a_video(table, tmp_path, capsys):
    video = write_video(tmp_path / "drive.mp4", [table.rgb] * 6)
    assert segment(tmp_path / "out", video, "--prompts", "red cup", "bowl", "--every", 2) == 0
    read = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "drive.mp4"))
    assert read.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(5, abs=0.1)
    assert [each["index"] for each in lines(tmp_path / "out" / "images.jsonl")] == [0, 2, 4]
    assert len({each["id"] for each in lines(tmp_path / "out" / "objects.jsonl") if each["prompt"] == "red cup"}) == 1
    assert "red cup  in 3 of 3, best score 0.9" in capsys.readouterr().out


def test_a_bag_gives_metres_and_pictures(table, tmp_path):
    bag = write_bag(tmp_path / "bag", [table] * 3)
    assert segment(tmp_path / "out", bag, "--prompts", "red cup", "--seconds", 0.15) == 0
    things = lines(tmp_path / "out" / "objects.jsonl")
    assert [each["stamp_ns"] for each in things] == [10**18, 10**18 + 10**8]
    assert things[0]["frame"] == FRAME
    place = np.array(things[0]["position_m"])
    lens, (x, y) = table.intrinsics, things[0]["centroid_px"]
    assert np.abs(place[:2] / place[2] - ((x - lens.cx) / lens.fx, (y - lens.cy) / lens.fy)).max() < 0.02
    assert abs(place[2] - np.nanmedian(table.depth_m[table.mask_of("red", "cup")])) < 0.02
    assert len(things[0]["box_m"]["size_m"]) == 3
    assert sorted(path.name for path in (tmp_path / "out" / "overlays" / "bag").iterdir()) == [
        "000000.jpg",
        "000001.jpg",
    ]


def test_positions_are_given_in_a_frame_of_the_tf(table, tmp_path, capsys):
    joints = [
        *(Joint("map", "base", (10 * at_s, 0, 0), at_s=at_s) for at_s in (0.0, 0.15)),
        Joint("base", FRAME, (0, 0, 2)),
    ]
    bag = write_bag(tmp_path / "bag", [table] * 3, joints=joints)
    arguments = (bag, "--prompts", "red cup")
    assert segment(tmp_path / "camera", *arguments) == 0
    assert segment(tmp_path / "map", *arguments, "--frame", "map", "--video") == 3
    seen, placed = (lines(tmp_path / name / "objects.jsonl") for name in ("camera", "map"))
    assert placed[0]["frame"] == "map"
    moved = np.array([each["position_m"] for each in placed[:2]]) - [each["position_m"] for each in seen[:2]]
    assert np.abs(moved - [[0, 0, 2], [1, 0, 2]]).max() < 1e-3
    assert placed[2]["position_m"] is None
    assert "0.050 s after the last transform from base to map" in capsys.readouterr().err
    assert (tmp_path / "map" / "overlays" / "bag.mp4").is_file()
    assert main(["segment", str(bag), "--prompts", "cup", "--frame", "odom", "--out", str(tmp_path / "o"), *MODEL]) == 3
    assert "there is no frame odom in the transforms; they hold base, camera_optical, map" in capsys.readouterr().err


def test_two_cameras_are_two_sources(table, tmp_path, capsys):
    topics = ["/left/image_raw", "/right/image_raw"]
    bag = write_pictures(tmp_path / "bag", [(topic, table.rgb, "rgb8") for topic in topics])
    assert segment(tmp_path / "none", bag, "--prompts", "red cup", "--topic", "/front") == 1
    assert "no colour images on /front; it holds /left/image_raw, /right/image_raw" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert segment(tmp_path / "one", bag, "--prompts", "red cup", "--topic", topics[1]) == 0
    assert [each["source"] for each in lines(tmp_path / "one" / "images.jsonl")] == ["bag"]
    assert segment(tmp_path / "out", bag, "--prompts", "red cup") == 0
    names = [each["source"] for each in lines(tmp_path / "out" / "images.jsonl")]
    assert names == ["bag_left_image_raw", "bag_right_image_raw"]


def test_what_is_damaged_is_noted_and_the_rest_is_done(table, picture, tmp_path, capsys):
    whole = write_bag(tmp_path / "whole", [table] * 8)  # MCAPs are written in pieces of a megabyte
    file = next(whole.glob("*.mcap"))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    (tmp_path / "nothing.png").write_bytes(b"nothing")
    jpeg = cv2.imencode(".jpg", table.rgb[..., ::-1])[1].tobytes()
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "empty").mkdir()
    sources = [tmp_path / "empty", cut, picture, tmp_path / "nothing.png", tmp_path / "half.jpg"]
    assert segment(tmp_path / "out", *sources, "--prompts", "red cup") == 3
    said = capsys.readouterr().err
    assert "empty holds no pictures" in said
    assert "nothing.png is no picture that can be read" in said
    assert "half.jpg is cut off" in said
    assert said.count("cut.mcap is cut off") == 1
    told = summary(tmp_path / "out")
    assert told["ended"] == "in part"
    assert [bool(each["faults"]) for each in told["sources"]] == [True, True, True]
    assert told["sources"][1]["images"] >= 1
    assert told["images"] == told["sources"][1]["images"] + 2


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["{folder}", "--prompts", "cup"], 1, "holds no pictures"),
        (["nowhere.jpg", "--prompts", "cup"], 1, "nowhere.jpg: this file or folder is not there"),
        (["nowhere/*.jpg", "--prompts", "cup"], 1, "this pattern matches no file"),
        (["{picture}"], 2, "nothing to look for"),
        (["{picture}", "--prompts", "red cip"], 2, 'did you mean "red cup"?'),
        (["{picture}", "--prompts", "cup = 2"], 2, "a threshold lies in 0..1"),
        (["{picture}", "--command", "stop"], 2, '"stop" is no search'),
        (["{picture}", "--command", "find cups left of"], 2, "left of"),
        (["{picture}", "--prompts", "cup", "--topic", "/camera"], 1, "--topic /camera is for bags"),
        (["{picture}", "--prompts", "cup", "--model", "nothing"], 2, 'there is no model "nothing"'),
        (["{picture}", "--prompts", "cup", "--model", "clipseg-rd64"], 1, "clip-seg weights download clipseg-rd64"),
        (["--prompts", "cup", "{picture}"], 2, "was taken for something to look for, name sources first"),
        (["{picture}", "--prompts", "cup", "--device", "cuda:99"], 2, "cuda"),
    ],
)
def test_what_cannot_be_done_is_said(picture, tmp_path, capsys, monkeypatch, arguments, code, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    named = [each.format(folder="folder", picture=picture) for each in arguments]
    assert main(["segment", *named]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clip-seg segment: ")
    assert why in last
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("option", [("--threshold", "2"), ("--every", "0"), ("--seconds", "-1"), ("--engine", "steam")])
def test_wrong_options_are_refused(picture, option):
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(picture), "--prompts", "cup", *option])
    assert ended.value.code == 2


def test_nothing_is_overwritten_without_a_word(picture, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["segment", str(picture), "--prompts", "red cup", "--no-overlay", "--no-masks", *MODEL]
    assert main(arguments) == main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["segmented", "segmented_2"]
    assert main([*arguments, "--out", "segmented"]) == 1
    assert "segmented is not empty: name another --out, or add --overwrite" in capsys.readouterr().err
    (tmp_path / "segmented" / "mine.txt").touch()
    (tmp_path / "segmented" / "objects.jsonl").write_text("old")
    assert main([*arguments, "--out", "segmented", "--overwrite"]) == 0
    assert (tmp_path / "segmented" / "mine.txt").exists()
    assert len(lines(tmp_path / "segmented" / "objects.jsonl")) == 1
    shutil.rmtree(tmp_path / "segmented_2")
    (tmp_path / "segmented_2").mkdir()
    (tmp_path / "segmented_2" / "mine.txt").touch()
    assert main([*arguments, "--out", "segmented_2", "--overwrite"]) == 1
    assert "was not written by clip-seg segment" in capsys.readouterr().err


def test_two_runs_give_the_same_bytes(table, tmp_path):
    bag = write_bag(tmp_path / "bag", [table] * 2)
    for name in ("a", "b"):
        assert segment(tmp_path / name, bag, "--prompts", "red cup", "blue box", "--video") == 0
    one, other = written(tmp_path / "a"), written(tmp_path / "b")
    assert len(one) == 6
    unequal = [name for name in one if one[name] != other[name]]
    assert unequal == ["summary.json"], "it has the times"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_what_is_there(table, tmp_path, number):
    video = write_video(tmp_path / "drive.mp4", [table.rgb] * 200)
    out = tmp_path / "out"
    arguments = [str(video), "--prompts", "red cup", "--out", str(out), *MODEL]
    command = [sys.executable, "-m", "clip_seg_ros.tools.cli", "segment", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out / "images.jsonl").exists():
            time.sleep(0.05)
        while process.poll() is None and not (out / "images.jsonl").stat().st_size:
            time.sleep(0.05)
        process.send_signal(number)
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "clip-seg segment: stopped; what was answered before is there"
    told, images = summary(out), lines(out / "images.jsonl")
    assert told["ended"] == "stopped"
    assert 1 <= told["images"] == len(images) < 200
    assert cv2.VideoCapture(str(out / "overlays" / "drive.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(images)
    assert f"look at {out}" in said


def test_a_webcam_is_named_by_its_number(tmp_path, capsys):
    if any(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    assert segment(tmp_path / "out", 0, "--prompts", "cup", "--seconds", 2) == 1
    assert "there is no webcam 0 that can be opened; the cameras of this machine: none" in capsys.readouterr().err


def test_a_thing_that_is_named_like_a_source_of_bags_is_still_a_picture(table, tmp_path):
    # A folder whose name is a number is a folder.
    write_png(tmp_path / "0" / "a.png", table.rgb)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert segment(tmp_path / "out", "0", "--prompts", "red cup") == 0
    finally:
        os.chdir(before)
    assert COLOR_TOPIC not in lines(tmp_path / "out" / "images.jsonl")[0]["image"]
