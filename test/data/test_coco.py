# SPDX-License-Identifier: Apache-2.0
"""Annotations in COCO's format, in the layouts of the tools that export it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.coco import CocoInstances, open_coco
from clip_seg_ros.data.phrasecut_plus import PhraseCutPlus
from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.training.recipes.dataset_batches import SemanticBatches
from run_lengths import compress, run_lengths

SIZE = (20, 30)


def square(left: int, top: int, side: int) -> list[float]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def filled(left: int, top: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


BOX, CUP = filled(2, 2, 12), filled(5, 4, 4)
OBJECTS = [
    # The small cup comes first, and the large box would hide it.
    {"id": 7, "image_id": 11, "category_id": 90, "segmentation": [square(5, 4, 4)], "bbox": [5, 4, 4, 4], "area": 16},
    {
        "id": 8,
        "image_id": 11,
        "category_id": 3,
        "segmentation": [square(2, 2, 12)],
        "bbox": [2, 2, 12, 12],
        "area": 144.5,
        "iscrowd": 0,
    },
    {"id": 9, "image_id": 11, "category_id": 3, "segmentation": run_lengths(filled(20, 10, 6)), "iscrowd": 1},
]
CONTENT: dict[str, Any] = {
    "info": {},
    "images": [
        {"id": 11, "file_name": "000000000011.jpg", "width": SIZE[1], "height": SIZE[0]},
        {"id": 12, "file_name": "000000000012.jpg", "width": SIZE[1], "height": SIZE[0]},
    ],
    "annotations": OBJECTS,
    "categories": [{"id": 90, "name": "cup"}, {"id": 3, "name": "box"}],
}
# box is the first class, because of its smaller id
PLAIN = np.where(CUP, 2, np.where(BOX | filled(20, 10, 6), 1, 0))


@pytest.fixture
def root(tmp_path: Path, write_jpeg) -> Path:
    """As COCO is published."""
    root = tmp_path / "coco"
    write(root / "annotations" / "instances_val2017.json", CONTENT)
    for number in (11, 12):
        write_jpeg(root / "val2017" / f"{number:012d}.jpg", SIZE)
    return root


def changed(root: Path, **changes: Any) -> Path:
    write(root / "annotations" / "instances_val2017.json", {**CONTENT, **changes})
    return root


def test_every_pixel_has_the_class_of_the_smallest_object_over_it(root: Path) -> None:
    dataset = open_coco(root, "val2017")

    assert dataset.class_names == ("background", "box", "cup")
    assert dataset.names == ("000000000011", "000000000012")
    assert dataset[0].labels.tolist() == PLAIN.tolist()
    assert dataset[0].labels.dtype == np.uint8
    assert dataset[0].rgb.shape == (*SIZE, 3)
    assert not dataset[1].labels.any()


def test_pixels_of_no_object_may_be_ignored(root: Path) -> None:
    dataset = open_coco(root, "val2017", background=False)

    assert dataset.class_names == ("box", "cup")
    assert dataset.names == ("000000000011",), "an image without any label teaches nothing"
    assert dataset[0].labels.tolist() == np.where(PLAIN, PLAIN.astype(int) - 1, IGNORED).tolist()


def test_the_classes_that_count_are_chosen_in_their_order(root: Path) -> None:
    dataset = open_coco(root, "val2017", classes=("cup",))

    assert dataset.class_names == ("background", "cup")
    assert dataset[0].labels.tolist() == CUP.astype(int).tolist()
    assert open_coco(root, "val2017", classes=("cup", "box")).class_names == ("background", "cup", "box")
    with pytest.raises(DataError, match=r"has no category cupp, only box, cup; did you mean cup\?"):
        open_coco(root, "val2017", classes=("cupp",))


def test_a_class_called_background_is_the_background(root: Path) -> None:
    categories = [{"id": 90, "name": "cup"}, {"id": 3, "name": "background"}]

    dataset = open_coco(changed(root, categories=categories), "val2017")

    assert dataset.class_names == ("background", "cup")
    assert dataset[0].labels.tolist() == CUP.astype(int).tolist()


def test_objects_have_boxes_masks_and_areas(root: Path) -> None:
    dataset = open_coco(root, "val2017", "instances")

    sample = dataset[0]
    assert isinstance(dataset, CocoInstances)
    assert dataset.class_names == ("box", "cup")
    assert sample.labels.tolist() == [1, 0, 0]
    # The third has neither box nor area in the file.
    assert sample.boxes_px.tolist() == [[5, 4, 9, 8], [2, 2, 14, 14], [20, 10, 26, 16]]
    assert sample.areas_px.tolist() == [16, 144.5, 36]
    assert sample.crowd.tolist() == [False, False, True]
    assert (sample.masks == [CUP, BOX, filled(20, 10, 6)]).all()
    assert (sample.labels.dtype, sample.boxes_px.dtype, sample.masks.dtype) == (np.int64, np.float32, bool)
    empty = dataset[1]
    assert (empty.labels.shape, empty.boxes_px.shape, empty.masks.shape) == ((0,), (0, 4), (0, *SIZE))


def test_boxes_stay_inside_the_image_and_those_without_area_are_left_out(root: Path) -> None:
    objects = [
        {"image_id": 11, "category_id": 3, "bbox": [-4, 15, 10, 10]},
        {"image_id": 11, "category_id": 3, "bbox": [5, 5, 0, 3]},
        {"image_id": 11, "category_id": 90, "bbox": [40, 2, 3, 3]},
    ]

    sample = open_coco(changed(root, annotations=objects), "val2017", "instances")[0]

    assert sample.boxes_px.tolist() == [[0, 15, 6, 20]]
    assert sample.masks is None, "nothing has an outline"
    assert sample.areas_px.tolist() == [30]


def test_images_without_an_object_to_learn_are_left_out_if_asked(root: Path) -> None:
    cup, _, crowd = OBJECTS
    without_area, outside = ({"category_id": 3, "bbox": box} for box in ([5, 5, 0, 3], [40, 2, 3, 3]))
    outline_alone = {"category_id": 90, "segmentation": [square(5, 4, 4)]}
    shown = [[], [crowd], [without_area, outside], [crowd, cup], [outline_alone]]
    images = [{**CONTENT["images"][0], "id": place, "file_name": f"{place}.jpg"} for place in range(5)]
    objects = [{**thing, "image_id": place} for place, things in enumerate(shown) for thing in things]
    (root / "val2017" / "0.jpg").touch()
    changed(root, images=images, annotations=objects)

    dataset = open_coco(root, "val2017", "instances", masks=False)
    learnt = dataset.with_objects()

    assert learnt.names == ("3", "4")
    assert learnt.class_names == ("box", "cup")
    assert dataset.names == ("0", "1", "2", "3", "4"), "whoever measures sees all"


def test_where_the_file_has_no_sizes_the_images_tell_which_boxes_are_outside(root: Path) -> None:
    images = [{key: image[key] for key in ("id", "file_name")} for image in CONTENT["images"]]
    objects = [{"image_id": 11, "category_id": 3, "bbox": [40, 2, 3, 3]}, {**OBJECTS[1], "image_id": 12}]

    learnt = open_coco(changed(root, images=images, annotations=objects), "val2017", "instances", masks=False)

    assert learnt.with_objects()[0].boxes_px.tolist() == [[2, 2, 14, 14]]


def test_without_any_object_to_learn_the_file_is_refused(root: Path) -> None:
    dataset = open_coco(changed(root, annotations=[OBJECTS[2]]), "val2017", "instances")

    with pytest.raises(DataError, match=r"instances_val2017\.json has no object to learn of these classes: box, cup"):
        dataset.with_objects()
    with pytest.raises(DataError, match="no object to learn of these classes: cup"):
        open_coco(changed(root, annotations=OBJECTS[1:]), "val2017", "instances", classes=("cup",)).with_objects()


def test_the_classes_of_an_image_are_phrases(root: Path) -> None:
    dataset = open_coco(root, "val2017", "phrases")

    assert dataset.phrases == ("box", "cup")
    assert dataset.pictures == ("000000000011", "000000000011")
    assert not hasattr(dataset, "class_names")
    assert dataset[0].mask.tolist() == (BOX | filled(20, 10, 6)).tolist()
    assert (dataset[1].phrase, dataset[1].name) == ("cup", "000000000011/cup")
    assert dataset[1].mask.tolist() == CUP.tolist()


def test_both_can_be_trained_on(root: Path) -> None:
    plus = PhraseCutPlus(open_coco(root, "val2017", "phrases"), size_px=16)
    batches = SemanticBatches(open_coco(root, "val2017"), batch=2, side_px=16, seed=0)
    batches.load(0)

    assert {plus.draw(index, np.random.default_rng(index)).mask.shape for index in range(2)} == {(16, 16)}
    assert set(batches(np.random.default_rng(0)).labels.unique().tolist()) <= {0, 1, 2, IGNORED}


def test_it_opens_from_a_mapping(root: Path) -> None:
    values = {"kind": "coco", "root": str(root), "split": "val2017"}

    assert len(open_dataset({**values, "task": "phrases", "classes": ["cup"]})) == 1
    with pytest.raises(
        DataError, match=r"task of the data set coco is 'boxes'; it must be semantic, instances, phrases"
    ):
        open_dataset({**values, "task": "boxes"})


def cvat(root: Path) -> dict[str, Any]:
    """Images of sub-folders; rectangles have an empty outline, masks are run lengths."""
    write(root / "annotations" / "instances_default.json", CONTENT)
    return {"file_name": "day/desk.jpg", "path": root / "images" / "default" / "day" / "desk.jpg"}


def label_studio(root: Path) -> dict[str, Any]:
    """Names are encoded, and hold the folder of the machine that exported them."""
    return {"file_name": r"..\images\1\a%20desk.jpg", "path": root / "images" / "a desk.jpg", "json": "result.json"}


def roboflow(root: Path) -> dict[str, Any]:
    """Images lie beside the annotations of their split, and the group of all classes is a category."""
    path = root / "valid" / "desk_jpg.rf.1.jpg"
    return {"file_name": path.name, "path": path, "json": "valid/_annotations.coco.json", "split": "valid"}


def lvis(root: Path) -> dict[str, Any]:
    """Images have addresses and no names."""
    path = root / "val2017" / "000000000011.jpg"
    return {"coco_url": f"http://images.cocodataset.org/val2017/{path.name}", "path": path, "json": "lvis_v1_val.json"}


@pytest.mark.parametrize("tool", [cvat, label_studio, roboflow, lvis])
def test_exports_are_found_where_tools_put_them(tool, tmp_path: Path, write_jpeg) -> None:
    layout = tool(tmp_path)
    names = {key: value for key, value in layout.items() if key in ("file_name", "coco_url")}
    write_jpeg(layout["path"], SIZE)
    groups = [{"id": 0, "name": "things", "supercategory": "none"}] if tool is roboflow else []
    content = {
        **CONTENT,
        # Without the size, which some exports leave out.
        "images": [{"id": 11, **names}],
        "categories": [*groups, *({**category, "supercategory": "things"} for category in CONTENT["categories"])],
    }
    write(tmp_path / layout.get("json", "annotations/instances_default.json"), content)

    dataset = open_coco(tmp_path, layout.get("split"))

    assert dataset.class_names == ("background", "box", "cup")
    assert dataset[0].labels.tolist() == PLAIN.tolist()


def test_compressed_run_lengths_are_read(root: Path) -> None:
    plain = run_lengths(BOX & ~CUP)
    objects = [{"image_id": 11, "category_id": 3, "segmentation": {**plain, "counts": compress(plain["counts"])}}]

    labels = open_coco(changed(root, annotations=objects), "val2017")[0].labels

    assert labels.tolist() == (BOX & ~CUP).astype(int).tolist()


def test_a_polygon_that_is_no_list_of_polygons_is_read(root: Path) -> None:
    objects = [{"image_id": 11, "category_id": 3, "segmentation": square(2, 2, 12)}]

    assert open_coco(changed(root, annotations=objects), "val2017")[0].labels.tolist() == BOX.astype(int).tolist()


@pytest.fixture
def panoptic(root: Path) -> Path:
    """A thing, stuff, and pixels of neither, whose colours use all three bytes."""
    numbers = np.where(BOX, 70_001, np.where(filled(15, 0, 10), 300, 0))
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 256**2], axis=-1).astype(np.uint8)
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir()
    Image.fromarray(colours).save(folder / "000000000011.png")
    segments = [{"id": 70_001, "category_id": 3, "bbox": [2, 2, 12, 12], "area": 144, "iscrowd": 0}]
    segments.append({"id": 300, "category_id": 187, "area": 100})
    content = {
        **CONTENT,
        "annotations": [{"image_id": 11, "file_name": "000000000011.png", "segments_info": segments}],
        "categories": [{"id": 187, "name": "sky", "isthing": 0}, {"id": 3, "name": "box", "isthing": 1}],
    }
    (root / "annotations" / "instances_val2017.json").unlink()
    write(root / "annotations" / "panoptic_val2017.json", content)
    return root


def test_panoptic_segments(panoptic: Path) -> None:
    semantic, instances, phrases = (
        open_coco(panoptic, "val2017", task) for task in ("semantic", "instances", "phrases")
    )

    assert semantic.class_names == ("box", "sky")
    expected = np.where(BOX, 0, np.where(filled(15, 0, 10), 1, IGNORED))
    assert semantic[0].labels.tolist() == expected.tolist()
    assert len(semantic) == 1, "the other image has no annotation"
    assert instances.class_names == ("box",)
    assert (instances[0].masks == [BOX]).all()
    assert instances[0].boxes_px.tolist() == [[2, 2, 14, 14]]
    assert phrases.phrases == ("box", "sky")
    assert phrases[1].mask.tolist() == filled(15, 0, 10).tolist()


def test_a_segment_that_the_file_does_not_name_is_refused(panoptic: Path) -> None:
    Image.fromarray(np.full((*SIZE, 3), 1, np.uint8)).save(
        panoptic / "annotations" / "panoptic_val2017" / "000000000011.png"
    )

    with pytest.raises(DataError, match=r"000000000011\.png holds the segment 65793, which .* does not name"):
        open_coco(panoptic, "val2017")[0]


def test_boxes_alone_give_objects_and_no_pixels(root: Path) -> None:
    objects = [OBJECTS[0], {**OBJECTS[1], "segmentation": []}]
    changed(root, annotations=objects)

    for task in ("semantic", "phrases"):
        with pytest.raises(DataError, match=r"1 of 2 objects in .* have a box and no outline.* use task: instances"):
            open_coco(root, "val2017", task)
    with pytest.raises(DataError, match=r"1 of 2 objects in .* say masks: false"):
        open_coco(root, "val2017", "instances")
    sample = open_coco(root, "val2017", "instances", masks=False)[0]
    assert sample.masks is None
    assert sample.boxes_px.tolist() == [[5, 4, 9, 8], [2, 2, 14, 14]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "names no image"),
        ({"categories": []}, "has an object of category 90, which it does not name"),
        ({"categories": None}, "has no lists of images, annotations and categories"),
        ({"categories": [{"id": 3, "name": "cup"}, {"id": 90, "name": "cup"}]}, "two categories called cup"),
        ({"categories": [{"id": 3, "name": " "}, {"id": 90, "name": "cup"}]}, "without a name"),
        ({"annotations": [{**OBJECTS[0], "image_id": 99}]}, "has an object on image 99, which is not among its images"),
        ({"annotations": [{"id": 1}]}, "is not in COCO's format: KeyError"),
        ({"images": [{"id": 11}]}, "is not in COCO's format: KeyError"),
        ({"images": [{"id": 11, "file_name": "a.jpg"}]}, r"such as a\.jpg, are in none of these folders: .*val2017"),
    ],
)
def test_files_that_are_wrong_are_said(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_coco(changed(root, **changes), "val2017")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([{**OBJECTS[0], "segmentation": [[1, 2, 3]]}], r"an object on .*11\.jpg in .*: a polygon is not a flat list"),
        ([{**OBJECTS[0], "segmentation": {"size": [1, 2], "counts": [2]}}], "run lengths of size"),
    ],
)
def test_outlines_that_are_wrong_are_said(root: Path, objects: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_coco(changed(root, annotations=objects), "val2017")[0]


def test_an_object_needs_a_box_or_an_outline(root: Path) -> None:
    objects = [{"image_id": 11, "category_id": 3}]

    with pytest.raises(DataError, match=r"has neither a box nor an outline"):
        open_coco(changed(root, annotations=objects), "val2017", "instances")[0]


def test_images_of_another_size_are_refused(root: Path, write_jpeg) -> None:
    write_jpeg(root / "val2017" / "000000000011.jpg", (10, 30))

    with pytest.raises(DataError, match=r"is 30 x 10 pixels, but 30 x 20 in .*: use the images that were labelled"):
        open_coco(root, "val2017")[0]


def test_missing_annotations_say_what_there_is(root: Path) -> None:
    with pytest.raises(DataError, match=r"no file of annotations at a usual place \(annotations/instances_test\.json"):
        open_coco(root, "test")
    with pytest.raises(DataError, match=r"\(JSON files there: annotations/instances_val2017\.json\)"):
        open_coco(root, "test")
    with pytest.raises(DataError, match=r"mine\.json is missing: export the annotations again"):
        open_coco(root, annotations="mine.json")
    assert len(open_coco(root, annotations="annotations/instances_val2017.json", images="val2017")) == 2
