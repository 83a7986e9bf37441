# SPDX-License-Identifier: Apache-2.0
"""``clip-seg annotate`` as people run it: to the end, stopped and begun again, and where it cannot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.linking import all_frames
from clip_seg_ros.annotation.manifest import read_job
from clip_seg_ros.annotation.running import looked_here
from clip_seg_ros.annotation.spreading import InProcess
from clip_seg_ros.sim.sequences import sequence
from clip_seg_ros.tools import annotate, cli
from written_sources import write_bag, write_video

OPTIONS = ["--model", "clipseg-pocket", "--engine", "eager", "--shard-frames", "4", "--prompts", "cup", "box = 0.6"]


@pytest.fixture(scope="module")
def moving():
    return [each.view for each in sequence(3, 14, (160, 120))]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, moving):
    """A bag and a video."""
    folder = tmp_path_factory.mktemp("recordings")
    return [
        str(write_bag(folder / "kitchen", moving)),
        str(write_video(folder / "hall.avi", [v.rgb for v in moving[:6]])),
    ]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory, recordings):
    """What a run without a stop writes."""
    folder = tmp_path_factory.mktemp("data") / "set"
    assert cli.main(["annotate", *recordings, *OPTIONS, "--out", str(folder)]) == 0
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert files.pop("run_time.json")
    return files


def test_a_run_says_what_it_found_and_keeps_what_went_in(data_set, recordings):
    manifest = json.loads((data_set / "run.json").read_text())
    assert manifest["is_finished"]
    assert [(each["name"], each["images"]) for each in manifest["sources"]] == [("kitchen", 14), ("hall", 6)]
    assert manifest["counts"]["images"] == 20
    assert manifest["counts"]["objects_of"]["cup"] > 0
    assert manifest["models"][0]["name"] == "clipseg-pocket"
    frames = list(all_frames(data_set, read_job(data_set)))
    assert [(frame.source, frame.index) for frame in frames] == [
        *(("kitchen", index) for index in range(14)),
        *(("hall", index) for index in range(6)),
    ]
    coco = json.loads((data_set / "annotations" / "instances_default.json").read_text())
    assert len(coco["images"]) == 20
    assert len(coco["annotations"]) == manifest["counts"]["objects"]


def test_ids_last_from_shard_to_shard(data_set):
    frames = [frame for frame in all_frames(data_set, read_job(data_set)) if frame.source == "kitchen"]
    cups = [{each.track for each in frame.objects if each.prompt == "cup"} for frame in frames]
    assert any(cups)
    together = set.union(*cups)
    assert len(together) == max(len(each) for each in cups)


def test_the_same_command_again_changes_nothing(data_set, recordings, capsys):
    before = files_of(data_set)
    assert cli.main(["annotate", *recordings, *OPTIONS, "--out", str(data_set)]) == 0
    assert files_of(data_set) == before
    said = capsys.readouterr().out
    assert "20 images" in said
    assert "note: the weights of clipseg-pocket know the simulated table alone" in said


def test_other_parameters_in_the_same_folder_are_refused(data_set, recordings, capsys):
    before = files_of(data_set)
    options = ["--smoothing", "0.3", "--out", str(data_set)]
    assert cli.main(["annotate", *recordings, *OPTIONS, *options]) == 2
    words = capsys.readouterr().err
    assert "smoothing: 0.6 then, 0.3 now" in words
    assert "name another folder" in words
    assert files_of(data_set) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, data_set, recordings, workers):
    folder = tmp_path / "set"
    command = ["annotate", *recordings, *OPTIONS, "--out", str(folder), "--workers", str(workers)]
    program = [sys.executable, "-m", "clip_seg_ros.tools.cli", *command]
    said = tmp_path / "said.txt"
    with said.open("wb") as stderr, subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        while not any((folder / "shards").rglob("*.jsonl")):
            assert process.poll() is None, f"it ended before: {said.read_text()}"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # However many were done by then: these are left as they are, and the rest is done.
    done = {file: file.stat().st_mtime_ns for file in (folder / "shards").rglob("*.jsonl")}
    assert done
    assert cli.main(command) == 0
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert files_of(folder) == files_of(data_set)


def test_a_cut_recording_is_annotated_up_to_the_cut_and_that_is_said(tmp_path, moving, capsys):
    bag = write_bag(tmp_path / "bag", moving * 4)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    options = ["--every", "8", "--formats", "", "--out", str(tmp_path / "set")]
    assert cli.main(["annotate", str(bag), *OPTIONS, *options]) == 0
    (source,) = json.loads((tmp_path / "set" / "run.json").read_text())["sources"]
    frames = list(all_frames(tmp_path / "set", read_job(tmp_path / "set")))
    assert 10 < source["images"] < 56
    assert [frame.index for frame in frames] == list(range(0, source["images"], 8))
    assert "only the part before is there" in capsys.readouterr().out


def test_a_bag_of_two_cameras_is_hashed_once(recordings):
    job = Job("out", (Source("one", recordings[0]), Source("two", recordings[0])), (Phrase("cup"),))
    read = []
    (one, _), (two, _) = looked_here(job, read.append)
    assert sum(read) == one.size_bytes == two.size_bytes > 0
    assert one.sha256 == two.sha256


def test_near_duplicates_are_left_out(tmp_path, moving):
    still = write_video(tmp_path / "still.avi", [moving[0].rgb] * 8 + [255 - moving[0].rgb] * 2, codec="MJPG")
    options = ["--least-change", "0.1", "--formats", "", "--out", str(tmp_path / "set")]
    assert cli.main(["annotate", str(still), *OPTIONS, *options]) == 0
    frames = list(all_frames(tmp_path / "set", read_job(tmp_path / "set")))
    assert [frame.index for frame in frames] == [0, 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4", "--prompts", "cup"], "there is no file or folder nowhere.mp4"),
        (["0", "--prompts", "cup"], "record it first"),
        ([f"{index}.jpg" for index in range(101)] + ["--prompts", "cup"], "101 pictures are named one by one"),
        (["{bag}", "--prompts", "things.txt"], "there is no file things.txt"),
        (["{bag}", "--prompts", "cup", "--formats", "coco,xml"], "there is no format xml: use coco"),
        (["{bag}", "--prompts", "cup", "--topic", "/nothing"], "no colour images on /nothing; it holds /camera"),
        (["{bag}", "--prompts", "cup", "--model", "nobody"], "there is no model"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, recordings, capsys, arguments, words):
    given = [each.replace("{bag}", recordings[0]) for each in arguments]
    assert cli.main(["annotate", *given, "--out", str(tmp_path / "set")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path, recordings, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["annotate", recordings[0], *OPTIONS, "--out", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_recording_that_cannot_be_read_ends_nothing(tmp_path, moving, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    good = write_video(tmp_path / "good.avi", [moving[0].rgb, moving[1].rgb], codec="MJPG")
    sources = [str(tmp_path / "broken.mp4"), str(good)]
    assert cli.main(["annotate", *sources, *OPTIONS, "--formats", "", "--out", str(tmp_path / "set")]) == 1
    said = capsys.readouterr()
    assert "2 images" in said.out
    assert f"not annotated: broken: {sources[0]} is no video" in said.err
    assert not json.loads((tmp_path / "set" / "run.json").read_text())["is_finished"]


@pytest.mark.parametrize(
    ("source", "more"),
    [("table.mcap", []), ("~/table.mcap", []), ("{here}/table.mcap", ["--out", "set"])],
)
def test_a_path_that_machines_of_a_cluster_would_not_share_is_refused(tmp_path, capsys, source, more):
    given = [source.replace("{here}", str(tmp_path)), "--prompts", "cup", "--out", str(tmp_path / "set"), *more]
    assert cli.main(["annotate", *given, "--ray", "127.0.0.1:1"]) == 2
    assert "is another path on the other machines of a cluster" in capsys.readouterr().err


def test_shards_that_are_not_there_in_the_end_are_named(tmp_path, moving, capsys, monkeypatch):
    class Forgetful(InProcess):
        """Its workers see another folder than the driver."""

        def run(self, job, shards, on_report):
            super().run(replace(job, out=str(tmp_path / "elsewhere")), shards, on_report)

    video = write_video(tmp_path / "hall.avi", [view.rgb for view in moving[:2]])
    monkeypatch.setattr(annotate, "InProcess", Forgetful)
    options = ["--formats", "", "--out", str(tmp_path / "set")]
    assert cli.main(["annotate", str(video), *OPTIONS, *options]) == 1
    assert "hall, images 0 to 1: it was done, but is not in" in capsys.readouterr().err
    assert not json.loads((tmp_path / "set" / "run.json").read_text())["is_finished"]
