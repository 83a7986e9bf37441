# SPDX-License-Identifier: Apache-2.0
"""A shard is answered as a whole, written as a whole, and left as it is when it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from clip_seg_ros.annotation import serving
from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.results import located_frames
from clip_seg_ros.annotation.shards import as_numbered, shards_of, survey
from clip_seg_ros.annotation.worker import About, _folder_of, annotate_shard, shard_name
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sources.frames import open_frames
from color_segmenter import ColorSegmenter
from written_sources import write_bag

PHRASES = (Phrase("cup"), Phrase("box"))


def job_of(folder, source, phrases=PHRASES, **values):
    return Job(str(folder), (source,), phrases, model="clipseg-pocket", engine="eager", precision="float32", **values)


def done(job):
    """Does all shards of the only source of a job; returns the reports and the images."""
    frames = as_numbered(open_frames(job.sources[0].spec, job.sources[0].topic))
    shards = list(shards_of(job, 0, survey(frames)))
    reports = [annotate_shard(job, shard) for shard in shards]
    files = [path for shard in shards if (path := _path(job, shard)).is_file()]
    return shards, reports, [frame for file in files for _, frame in located_frames(file)]


def _path(job, shard):
    return Path(job.out) / shard_name(job, shard)


@pytest.fixture(scope="module")
def bag(tmp_path_factory, moving):
    return write_bag(tmp_path_factory.mktemp("recorded") / "bag", moving[:10])


@pytest.fixture(scope="module")
def run(tmp_path_factory, bag):
    """A recording of ten images in shards of six, its shards, their reports and the images."""
    job = job_of(tmp_path_factory.mktemp("run"), Source("bag", str(bag)), shard_frames=6)
    return (job, *done(job))


def test_each_image_is_there_once_with_its_picture_and_what_was_found(run, moving):
    job, _, reports, frames = run
    assert [report.fault for report in reports] == ["", ""]
    assert [report.images for report in reports] == [6, 4]
    assert [frame.index for frame in frames] == list(range(10))
    assert sum(report.objects for report in reports) == sum(len(frame.objects) for frame in frames) > 0
    for frame, view in zip(frames, moving, strict=False):
        picture = cv2.imread(str(Path(job.out) / frame.picture))[..., ::-1]
        assert np.abs(picture.astype(int) - view.rgb).mean() < 4
        for each in frame.objects:
            assert each.mask(frame.size).sum() == each.area_px
            assert each.position_m is not None


def test_the_images_before_are_known_and_not_counted(run):
    job, shards, _, _ = run
    about = About.read(_path(job, shards[1]).with_suffix(".json"))
    assert [frame.index for frame in about.before] == [2, 3, 4, 5]
    assert about.images == 4


def test_a_shard_that_is_done_is_left_as_it_is(run):
    job, shards, reports, _ = run
    file = _path(job, shards[0])
    before = file.stat().st_mtime_ns
    again = annotate_shard(job, shards[0])
    assert again == replace(reports[0], seconds=0.0)
    assert file.stat().st_mtime_ns == before
    file.unlink()
    assert annotate_shard(job, shards[0]).images == 6
    assert file.is_file()


def test_a_threshold_of_a_phrase_decides_what_belongs_to_it_alone(tmp_path, run, bag):
    frames = run[3]
    phrases = (Phrase("cup", 0.95), Phrase("box"))
    _, _, strict = done(job_of(tmp_path, Source("bag", str(bag)), phrases, shard_frames=6))
    assert area_of("cup", strict) < area_of("cup", frames)
    assert masks_of("box", strict) == masks_of("box", frames)


def masks_of(prompt, frames):
    return [each.counts for frame in frames for each in frame.objects if each.prompt == prompt]


def area_of(prompt, frames):
    return sum(each.area_px for frame in frames for each in frame.objects if each.prompt == prompt)


def test_pictures_are_copied_and_what_cannot_be_read_is_noted(tmp_path, moving):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, view in enumerate(moving[:2]):
        cv2.imwrite(str(folder / f"{index}.png"), view.rgb[..., ::-1])
    (folder / "1b.png").write_bytes(b"nothing")
    job = job_of(tmp_path / "out", Source("pictures", str(folder)))
    _, (report,), frames = done(job)
    assert [(frame.index, frame.stamp_ns, frame.name) for frame in frames] == [(0, 0, "0.png"), (1, 1, "1.png")]
    assert report.notes == (f"{folder / '1b.png'} is no picture that can be read",)
    assert (tmp_path / "out" / frames[1].picture).read_bytes() == (folder / "1.png").read_bytes()
    assert {each.track for frame in frames for each in frame.objects} <= {0}


def test_a_picture_that_is_turned_is_kept_as_it_is_seen(tmp_path, moving):
    file = tmp_path / "turned.jpg"
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(moving[0].rgb).save(file, exif=turned)
    (frame,) = done(job_of(tmp_path / "out", Source("turned", str(file))))[2]
    kept = cv2.imread(str(tmp_path / "out" / frame.picture), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert kept.shape[:2] == frame.size == (160, 120)


def test_the_names_of_pictures_are_those_in_their_folder(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for spec in (tmp_path / "photos", tmp_path / "photos" / "**" / "*.jpg", tmp_path / "photos" / "a.jpg"):
        assert _folder_of(str(spec)) == tmp_path / "photos"


class Stricter(ColorSegmenter):
    """Takes a pixel for a colour only if it is nearly that."""

    def decode(self, image, text):
        return super().decode(image, text) - 0.3 * self.sharpness


def test_a_second_model_is_compared(tmp_path, monkeypatch):
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :64] = (255, 0, 0)
    picture[:, 64:96] = (190, 0, 0)
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "0.png"), picture[..., ::-1])
    for name, model in (("color", ColorSegmenter()), ("stricter", Stricter())):
        monkeypatch.setitem(serving._loaded, (name, "auto", "eager", "float32", 1), Predictor.from_model(model))
    job = job_of(tmp_path / "out", Source("pictures", str(tmp_path / "pictures")), (Phrase("red"),))
    _, (report,), (frame,) = done(replace(job, model="color", second_model="stricter", refine_edges=False))
    assert report.fault == ""
    # The one finds the bright and the dark red, the other the bright red alone.
    assert frame.objects[0].area_px == 96 * 64
    assert frame.agreement == pytest.approx(64 / 96, abs=1e-4)


def test_a_source_that_is_gone_is_the_fault_of_its_shard(tmp_path, run):
    job, shards, *_ = run
    gone = replace(job, out=str(tmp_path), sources=(Source("gone", str(tmp_path / "gone.mcap")),))
    report = annotate_shard(gone, shards[0])
    assert "there is no file or folder" in report.fault
    assert not (tmp_path / "shards").exists()


def test_an_error_of_any_kind_is_the_fault_of_its_shard(tmp_path, run):
    job, shards, *_ = run
    # OpenCV raises an error of its own for a picture that it cannot write.
    report = annotate_shard(replace(job, out=str(tmp_path), picture_suffix=".nothing"), replace(shards[0], end=1))
    assert report.fault.startswith("error: OpenCV")


def test_a_phrase_that_the_model_refuses_is_no_fault_of_a_shard(tmp_path, run):
    job, shards, *_ = run
    refused = replace(job, out=str(tmp_path), model="denseclip-pocket", phrases=(Phrase("spaceship"),))
    with pytest.raises(ValueError, match=r"is not one of the .* classes"):
        annotate_shard(refused, shards[0])
