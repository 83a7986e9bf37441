# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --data``: rendered scenes as a person's own folder, and as VOC."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.tools import evaluate_datasets
from clip_seg_ros.tools.cli import main
from clip_seg_ros.types import ProbabilityMaps
from clip_seg_ros.zoo.writing import store
from small_models import detector_config, small_detector

SEEDS = range(10_000, 10_003)


@pytest.fixture(scope="module")
def views() -> list:
    with SceneRenderer(320, 240) as renderer:
        return [renderer.render(sample_scene(seed), depth=False) for seed in SEEDS]


@pytest.fixture(scope="module")
def folder(views: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects a scene, and a phrase that names nothing."""
    root = tmp_path_factory.mktemp("folder")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rows = [("image", "mask", "phrase")]
    for number, view in enumerate(views):
        cv2.imwrite(str(root / f"images/{number}.png"), view.rgb[..., ::-1])
        for item in view.objects[:2]:
            mask = f"masks/{number}_{item.color}_{item.kind}.png"
            cv2.imwrite(str(root / mask), 255 * view.mask_of(item.color, item.kind).astype(np.uint8))
            rows.append((f"images/{number}.png", mask, item.name))
        rows.append((f"images/{number}.png", "", "giraffe"))
    with (root / "phrases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def voc(views: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC2012's folders; bottles are class 5."""
    root = tmp_path_factory.mktemp("VOC2012")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for number, view in enumerate(views[:2]):
        cv2.imwrite(str(root / f"JPEGImages/2007_{number}.jpg"), view.rgb[..., ::-1])
        labels = np.where(view.mask_of(kind="bottle"), 5, 0).astype(np.uint8)
        labels[:4] = 255
        cv2.imwrite(str(root / f"SegmentationClass/2007_{number}.png"), labels)
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_0\n2007_1\n")
    return root


def evaluate(*arguments: object) -> int:
    return main(["evaluate", "--device", "cpu", *(str(argument) for argument in arguments)])


def figures(path: Path) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in json.loads(path.read_text())["figures"]}


def test_corrupted_pictures_and_a_table_of_levels(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ("--model", "clipseg-pocket", "--data", f"folder:{folder}", "--limit", 2, "--json", tmp_path / "r.json")
    assert evaluate(*asked, "--corruption", "gaussian_noise:5") == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["run"]["corruption"] == "gaussian_noise:5"
    one = figures(tmp_path / "r.json")["phrases.mean_iou"]
    capsys.readouterr()
    assert evaluate(*asked, "--corruption", "gaussian_noise:5", "jpeg_compression:1") == 0
    *_, heading, levels, noise, jpeg = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path / "r.json").read_text())["corruptions"]
    assert [(row["corruption"], row["level"]) for row in rows] == [
        ("none", 0),
        ("gaussian_noise", 5),
        ("jpeg_compression", 1),
    ]
    assert rows[1]["value"] == pytest.approx(one, abs=1e-4)
    assert heading.startswith("phrases.mean_iou")
    assert heading.endswith(f"without corruption {rows[0]['value']:.4f}")
    assert levels.split() == ["level", "1", "2", "3", "4", "5", "mean"]
    assert noise.split() == ["gaussian_noise", f"{rows[1]['value']:.4f}", f"{rows[1]['value']:.4f}"]
    assert jpeg.split()[0] == "jpeg_compression"
    assert noise.index(noise.split()[1]) > jpeg.index(jpeg.split()[1])  # level 5 is right of level 1
    assert evaluate(*asked, "--corruption", "fog:1") == 2
    assert 'there is no corruption "fog": use gaussian_noise' in capsys.readouterr().err
    assert evaluate(*asked, "--corruption", "all", "--page", tmp_path / "page") == 2
    assert "--page is for one corruption at one level" in capsys.readouterr().err


def test_phrases_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, page = tmp_path / "r.json", tmp_path / "page"
    assert evaluate("--model", "clipseg-pocket", "--data", f"folder:{folder}", "--json", out, "--page", page) == 0
    content = json.loads(out.read_text())
    assert content["run"] | {"seconds": 0} == {
        "package": "clip_seg_ros",
        "version": content["run"]["version"],
        "model": "clipseg-pocket",
        "data": f"folder:{folder}",
        "protocol": "phrases",
        "names": "data",
        "threshold": 0.3,
        "prompt": "text",
        "corruption": None,
        "antialias": True,
        "templates": None,
        "samples": 9,
        "samples_in_data": 9,
        "device": "cpu",
        "engine": "eager",
        "precision": "float32",
        "seconds": 0,
    }
    found = figures(out)
    assert found["phrases.count"] == 9
    assert found["phrases.absent.count"] == 3
    assert 0.5 < found["phrases.mean_iou"] <= found["phrases.best_mean_iou"] + 0.01
    assert [sample["phrase"] for sample in content["samples"]][2::3] == ["giraffe"] * 3
    assert len(list(page.glob("*.jpg"))) == 36
    assert (page / "index.html").is_file()
    said = capsys.readouterr().out
    assert "phrases.mean_iou" in said
    assert "IoU_BIN" in said
    assert f"{page}/index.html" in said


def test_options_of_phrases(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    data = tmp_path / "mine.yaml"
    data.write_text(f"kind: folder\nroot: {folder}\n")
    options = ("--protocol", "referring", "--limit", 5, "--threshold", 0.5, "--antialias", "off")
    assert evaluate("--data", data, *options, "--json", out) == 0
    content = json.loads(out.read_text())
    assert content["run"]["threshold"] == 0.5
    assert content["run"]["antialias"] is False
    assert content["run"]["model"] == "clipseg-pocket"
    assert [sample["index"] for sample in content["samples"]] == [0, 1, 3, 5, 7]
    assert {"referring.mean_iou", "referring.overall_iou", "referring.precision_at_90"} <= set(figures(out))
    assert "sweep" not in content


def test_labels_of_voc(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, page = tmp_path / "r.json", tmp_path / "page"
    assert evaluate("--data", f"voc:{voc}:val", "--threshold", 0.5, "--json", out, "--page", page) == 0
    content = json.loads(out.read_text())
    classes = {item["name"]: item["iou"] for item in content["classes"]}
    assert len(classes) == 21
    assert classes["background"] > 0.5
    assert classes["bottle"] > 0.1
    assert content["run"]["protocol"] == "semantic"
    assert content["run"]["multi_scale"] is False
    assert len(list(page.glob("*.jpg"))) == 8
    assert "bottle" in capsys.readouterr().out


def test_edges_of_labels(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ("--suite", "edges", "--data", f"voc:{voc}:val", "--limit", 1)
    assert evaluate(*asked, "--json", tmp_path / "r.json") == 0
    found = {figure["name"]: figure["value"] for figure in json.loads((tmp_path / "r.json").read_text())}
    assert found["edges.images"] == 1
    assert found["edges.coarse_unrefined.count"] == found["edges.blurred_refined.count"] > 0
    assert "edges.coarse_refined\n  boundary_f" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [("--model", "clipseg-pocket"), ("--limit", 0), ("--threshold", 0.5), ("--scenes", 3)]
)
def test_edges_of_labels_ask_no_model(voc: Path, capsys: pytest.CaptureFixture, options: tuple) -> None:
    assert evaluate("--suite", "edges", "--data", f"voc:{voc}:val", *options) == 2
    assert f"clip-seg evaluate: {options[0]} " in capsys.readouterr().err


def test_edges_need_labels(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate("--suite", "edges", "--data", f"folder:{folder}") == 1
    assert "holds no pictures with a class for each pixel" in capsys.readouterr().err


def test_names_of_the_authors(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()
    predict = Predictor.predict

    def noted(self: Predictor, rgb: np.ndarray, prompts: tuple[str, ...]) -> ProbabilityMaps:
        asked.update(prompts)
        return predict(self, rgb, prompts)

    monkeypatch.setattr(Predictor, "predict", noted)
    out = tmp_path / "r.json"
    data = f"voc:{voc}:val:background=false"
    options = ["--names", "maskclip", "--background-phrases", "on"]
    assert evaluate("--model", "maskclip-pocket", "--data", data, "--limit", 1, *options, "--json", out) == 0
    run = json.loads(out.read_text())
    assert run["run"]["names"] == "maskclip"
    assert {"airplane", "tv monitor", "sofa"} <= asked
    assert "aeroplane" in {one["name"] for one in run["classes"]}, "the report has the data set's names"


def test_unseen_classes(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    for data, options, unseen in (
        (f"voc:{voc}:val", ["--unseen", "voc_15_5"], ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]),
        (f"voc:{voc}:val", ["--unseen", "bottle, cow"], ["bottle", "cow"]),
        (f"voc:{voc}:val:unseen=bottle", [], ["bottle"]),
    ):
        assert evaluate("--data", data, "--threshold", 0.5, "--limit", 1, *options, "--json", out) == 0
        assert json.loads(out.read_text())["run"]["unseen"] == unseen
        assert {"semantic.seen_iou", "semantic.unseen_iou", "semantic.harmonic_iou"} <= set(figures(out))
    assert figures(out)["semantic.unseen_iou"] == pytest.approx(
        next(c["iou"] for c in json.loads(out.read_text())["classes"] if c["name"] == "bottle")
    )


@pytest.mark.parametrize("prompt", ["image", "mixed"])
def test_example_images(prompt: str, views: list, voc: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "VOC2012", tmp_path / "r.json"
    shutil.copytree(voc, root)
    for number, view in enumerate(views[:2]):
        # All objects, for a class must cover 2048 pixels.
        labels = np.where(view.labels > 0, 5, 0).astype(np.uint8)
        cv2.imwrite(str(root / f"SegmentationClass/2007_{number}.png"), labels)
    assert evaluate("--data", f"pascal5i:{root}:val:fold=0", "--prompt", prompt, "--json", out) == 0
    content = json.loads(out.read_text())
    assert content["run"]["prompt"] == prompt
    assert content["run"].get("text_weight") == {"mixed": 0.5}.get(prompt)
    # One class: the mean over classes is the IoU of its summed areas.
    assert figures(out)["phrases.mean_iou"] == figures(out)["phrases.iou_fg"]
    assert len(content["samples"]) == 2


def test_several_scales(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate_datasets.MULTI_SCALES == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    monkeypatch.setattr(evaluate_datasets, "MULTI_SCALES", (0.25, 0.5))  # the others take their time
    out, data = tmp_path / "r.json", f"voc:{voc}:val:background=false"
    assert evaluate("--data", data, "--multi-scale", "--limit", 1, "--json", out) == 0
    content = json.loads(out.read_text())
    assert content["run"]["multi_scale"] is True
    assert len(content["classes"]) == 20
    assert len(content["samples"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "clipseg-pocket"], "--model needs a data set: give --data"),
        (["--data", "folder:{folder}", "--scenes", "3"], "--scenes measures held-out scenes: leave --data out"),
        (["--data", "folder"], "KIND:ROOT"),
        (["--data", "folder:{folder}", "--limit", "0"], "--limit must be 1 or more, got 0"),
        (["--data", "folder:{folder}", "--threshold", "2"], "--threshold must lie in 0..1, got 2.0"),
        (["--data", "folder:{folder}", "--protocol", "semantic"], "use --protocol referring or phrases"),
        (["--data", "folder:{folder}", "--multi-scale"], "--multi-scale is for --protocol semantic"),
        (["--data", "folder:{folder}", "--text-weight", "0.3"], "--text-weight is for --prompt mixed"),
        (["--data", "voc:{voc}:val", "--protocol", "phrases"], "use --protocol semantic"),
        (["--data", "voc:{voc}:val", "--prompt", "image"], "--prompt is for phrases"),
        (
            ["--data", "folder:{folder}", "--background-phrases", "on"],
            "--background-phrases is for --protocol semantic",
        ),
        (["--data", "folder:{folder}", "--unseen", "cup"], "--unseen is for --protocol semantic"),
        (["--data", "folder:{folder}", "--page", "{folder}/none/page"], "name a folder in a folder that exists"),
        (["--data", "folder:{folder}", "--json", "{folder}/none/r.json"], "name a file in a folder that exists"),
    ],
)
def test_wrong_calls_are_said_in_one_line(
    arguments: list[str], said: str, folder: Path, voc: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(*(argument.format(folder=folder, voc=voc) for argument in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("clip-seg evaluate: ")
    assert said in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nothing:{folder}"], "nothing"),
        (["--data", "folder:{folder}/none"], "there is no folder"),
        (["--data", "none.yaml"], "none.yaml cannot be read"),
        (["--data", "voc:{voc}:val", "--unseen", "moon"], "moon is no class of the data set"),
        (["--data", "folder:{folder}", "--model", "best"], 'there is no model "best"'),
        (["--data", "folder:{folder}", "--prompt", "image"], "has no example image"),
        (["--data", "voc:{voc}:val:background=false", "--threshold", "0.5"], "the data set has no such class"),
    ],
)
def test_failures_are_said_without_a_traceback(
    arguments: list[str], said: str, folder: Path, voc: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(*(argument.format(folder=folder, voc=voc) for argument in arguments)) == 1
    # A progress bar may stand before it.
    _, _, error = capsys.readouterr().err.rpartition("clip-seg evaluate: ")
    assert said in error
    assert "\n" not in error.strip()


@pytest.fixture(scope="module")
def objects(views: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cups and books of the scenes in COCO's format, with the kinds of the tiny detector's classes."""
    root = tmp_path_factory.mktemp("coco")
    images, annotations = [], []
    for number, view in enumerate(views):
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 240})
        cv2.imwrite(str(root / f"{number}.png"), view.rgb[..., ::-1])
        for index in range(len(view.objects)):
            left, top, width, height = cv2.boundingRect((view.labels == index + 1).astype(np.uint8))
            if width:
                right, bottom = left + width, top + height
                outline = [left, top, right, top, right, bottom, left, bottom]
                entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + index % 2}
                annotations.append({**entry, "segmentation": [outline], "bbox": [left, top, width, height]})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "cup"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def test_objects_of_coco_are_measured_by_precision(
    objects: Path, detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, out = f"coco:{objects}:task=instances:annotations={objects / 'annotations.json'}", tmp_path / "r.json"
    assert evaluate("--model", detector_file, "--data", data, "--json", out) == 0
    values = figures(out)
    assert {"instances.ap", "instances.ap50", "instances.box.ap75", "instances.touching.found"} <= values.keys()
    assert 0 <= values["instances.ap"] <= values["instances.ap50"] <= 1
    content = json.loads(out.read_text())
    assert content["run"]["protocol"] == "instances"
    assert [entry["name"] for entry in content["classes"]] == ["red", "cup"]
    assert len(content["samples"]) == 3
    shown = capsys.readouterr().out
    assert "AP50" in shown
    assert evaluate("--model", "denseclip-pocket", "--data", data) == 1
    assert "denseclip-pocket does not find objects one by one: use a detector" in capsys.readouterr().err
    for options, fault in (
        (("--protocol", "semantic"), "holds objects: use --protocol instances"),
        (("--threshold", "0.5"), "--threshold is not for --protocol instances"),
        (("--prompt", "text"), "--prompt is for phrases"),
    ):
        assert evaluate("--model", detector_file, "--data", data, *options) == 2
        assert fault in capsys.readouterr().err


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a tiny detector of red, green and cup."""
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    store(Converted(detector_config(), small_detector().state_dict()), path)
    return path
