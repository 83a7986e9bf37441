# SPDX-License-Identifier: Apache-2.0
"""Recipes for `clip-seg train` of every method, with the tiny models and data sets that they name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from PIL import Image

from clip_seg_ros.models.base import InputSpec
from clip_seg_ros.models.checkpoints import save_safetensors, update_sum
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSegConfig
from clip_seg_ros.models.cris.model import CRISConfig
from clip_seg_ros.models.denseclip.model import DenseCLIPConfig
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.build import MODEL_KINDS

STEP = {"steps": 2, "batch": 2, "learning_rate": 1.0e-3}
WINDOW = {**STEP, "phrases": 2, "scene_px": [64, 64]}
CLIPSEG_POCKET = {
    "method": "clipseg-pocket",
    "scenes": 6,
    "seed": 3,
    "recipe": {
        "width": 8,
        "layers": [1, 1, 1, 1],
        "embed_dim": 32,
        "text_width": 32,
        "text_layers": 1,
        "input_px": 64,
        "crops": {**STEP, "batch": 8},
        "joint": {**WINDOW, "crops": 4},
        "decoder": WINDOW,
    },
}
CRIS_POCKET = {
    "method": "cris-pocket",
    "scenes": 6,
    "recipe": {
        "train": {
            **STEP,
            "first_steps": 1,
            "dice_weight": 1.0,
            "contrast_weight": 5.0,
            "clip_factor": 1.0,
            "precision": "float32",
        },
        "phrases": 2,
        "scene_px": [64, 64],
        "first_scene_px": [64, 64],
        "fpn_out": [16, 32, 32],
        "feed_forward": 32,
        "input_px": 64,
    },
}
DENSECLIP_POCKET = {
    "method": "denseclip-pocket",
    "scenes": 6,
    "recipe": {"train": STEP, "scene_px": [64, 64], "input_px": 64},
}
INSTANCES_POCKET = {
    "method": "denseclip-instances-pocket",
    "scenes": 6,
    "recipe": {"train": {**STEP, "milestones": []}, "scene_px": [64, 64], "input_px": 64},
}
POOL_POCKET = {
    "method": "clip-pool-pocket",
    "scenes": 6,
    "recipe": {**STEP, "windows": 4, "crops": 4, "scene_px": [64, 64]},
}
VIT_POCKET = {
    "method": "clip-vit-pocket",
    "scenes": 6,
    "recipe": {
        **STEP,
        "crops": 4,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "scene_px": 64,
        "crop_px": 32,
    },
}
WORDS = ("red", "green", "square", "disc", "the", "a", "photo", "of", ".")


def train(folder: Path, values: Any) -> int:
    """Runs the command with everything in ``folder``; the weights come into ``folder``/out."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    places = ["--out", str(folder / "out"), "--work", str(folder / "work"), "--device", "cpu", "--threads", "1"]
    return main(["train", str(recipe), *places])


def shapes(kind: str) -> dict[str, Any]:
    """The configuration of a weight file."""
    tokenizer = {"kind": "compact", "known_words": list(WORDS), "context_length": 12}
    vocabulary = CompactTokenizer(WORDS, 12).vocab_size
    spec = InputSpec(64, "squash", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    vision = VisionConfig((1, 1, 1, 1), 8, 64, head_width=32, output_stride=16 if kind == "clipseg" else 32)
    text = TextConfig(12, vocabulary, 16, 2, 1)
    clip = ClipConfig(24, vision, text).to_dict()
    if kind == "clipseg":
        own = CLIPSegConfig(24, (2, 3, 4), (64, 128, 256), 8, 0, spec, reduce_dim=16, n_heads=2, feed_forward=32)
        return {"kind": kind, "clip": clip, kind: own.to_dict(), "tokenizer": tokenizer}
    if kind == "cris":
        own = CRISConfig((12, 16, 24), spec, n_layers=1, n_heads=2, feed_forward=32)
        return {"kind": kind, "clip": clip, kind: own.to_dict(), "tokenizer": tokenizer}
    # The longest name of VOC has few known pieces, but many.
    own = DenseCLIPConfig(
        ("red", "green"),
        spec,
        9,
        3,
        context_width=8,
        context_heads=2,
        context_layers=1,
        pyramid_channels=8,
        head_channels=8,
    )
    towers = {name: clip[name] for name in ("embed_dim", "quick_gelu", "vision", "text")}
    return {"kind": kind, **towers, kind: own.to_dict(), "tokenizer": tokenizer}


def write_start(folder: Path, kind: str) -> Path:
    """A weight file to begin with."""
    config, path = shapes(kind), folder / f"start_{kind}.safetensors"
    torch.manual_seed(0)
    model = MODEL_KINDS[kind]("start", config)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip starts residual branches at zero
            torch.nn.init.constant_(parameter, 0.5)
    save_safetensors(path, model.state_dict(), config, half=False)
    update_sum(path)
    return path


def write_phrases(root: Path) -> dict[str, str]:
    """A data set of one's own: a red square and a green disc in each of four pictures."""
    rows = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        bgr = np.full((48, 80, 3), 90, np.uint8)
        masks = {}
        for phrase, left, color in (("the red square", 6, (0, 0, 230)), ("a green disc", 44, (0, 200, 0))):
            masks[phrase] = np.zeros((48, 80), np.uint8)
            masks[phrase][8 + number : 32 + number, left : left + 24] = 255
            bgr[masks[phrase] > 0] = color
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), bgr)
        for phrase, mask in masks.items():
            name = f"{number}_{phrase.split()[-1]}.png"
            cv2.imwrite(str(root / "masks" / name), mask)
            rows.append((f"images/{number}.jpg", f"masks/{name}", phrase))
    with (root / "phrases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mask", "phrase"), *rows])
    return {"kind": "folder", "root": str(root)}


def write_voc(root: Path) -> dict[str, str]:
    """VOCdevkit/VOC2012 with four pictures: palette PNG, 0 = background, 255 = edges of objects."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"2007_00000{number}" for number in range(4)]
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("".join(f"{name}\n" for name in names))
    for number, name in enumerate(names):
        labels = np.zeros((60, 80), np.uint8)
        labels[10:40, 10:50] = 255
        labels[12:38, 12:48] = 1 + 5 * number
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.repeat((labels * 9)[..., None], 3, axis=-1))
        image = Image.fromarray(labels, "P")
        image.putpalette([value for index in range(256) for value in (255 - index, index * 7 % 256, 128)])
        image.save(root / "SegmentationClass" / f"{name}.png")
    return {"kind": "voc", "root": str(root), "split": "train"}


def write_objects(root: Path, outlined: bool = True) -> dict[str, Any]:
    """Four pictures in COCO's format, with a red square and two green ones that touch; or with boxes alone."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(4):
        rgb = np.full((60, 80, 3), 90, np.uint8)
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 60})
        for left, label in ((4 + number, 1), (30, 2), (52, 2)):
            rgb[10:40, left : left + 22] = (230, 0, 0) if label == 1 else (0, 200, 0)
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": [left, 10, 22, 30]}
            outline = [left, 10, left + 22, 10, left + 22, 40, left, 40]
            annotations.append({**entry, "segmentation": [outline]} if outlined else entry)
        cv2.imwrite(str(root / "images" / f"{number}.png"), rgb[..., ::-1])
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "objects.json").write_text(json.dumps(content))
    return {"kind": "coco", "root": str(root), "annotations": "objects.json", "images": "images", "task": "instances"}


def instances_recipe(folder: Path, outlined: bool = True) -> dict[str, Any]:
    """A detector on the towers of a DenseCLIP."""
    sizes = {"pyramid_channels": 8, "box_channels": 16, "mask_channels": 8, "anchor_px": 16.0, "proposals": 20}
    return {
        "method": "denseclip-instances",
        "model": str(write_start(folder, "denseclip")),
        "name": "my-detector",
        "data": write_objects(folder / "objects", outlined),
        "architecture": {"head": "mask_rcnn", "input_px": 64, "sampled_boxes": 16, **sizes},
        "recipe": {"steps": 2, "batch": 2, "learning_rate": 0.01, "views": {"scales": [0.5, 1.5]}},
    }


def recipe_of(kind: str, folder: Path) -> dict[str, Any]:
    data = write_voc(folder / "voc") if kind == "denseclip" else write_phrases(folder / "phrases")
    own = {"steps": 2, "batch": 2, "precision": "float32", "learning_rate": 0.1}
    start = str(write_start(folder, kind))
    return {"method": kind, "model": start, "name": f"my-{kind}", "data": data, "recipe": own}


def trained_part(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Biases and the like: what files hold in full precision, without BatchNorm's statistics."""
    return {
        name: value
        for name, value in tensors.items()
        if value.ndim == 1 and "running_" not in name and "head" not in name
    }
