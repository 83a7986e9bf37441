# SPDX-License-Identifier: Apache-2.0
"""``clip-seg distill --dataset``: the labels are those of a folder that ``clip-seg annotate`` wrote."""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.data.annotated import AnnotatedSemantic
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.evaluation.pages.pictures import write_picture
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.tools.distill_options import label_settings, train_settings
from clip_seg_ros.tools.distill_student import build_student
from clip_seg_ros.tools.engine_options import complain
from clip_seg_ros.training.distillation.agreement import agreement, keep_the_better, median_ms
from clip_seg_ros.training.distillation.examples import example_grid
from clip_seg_ros.training.distillation.given_labels import given_split, store_given
from clip_seg_ros.training.distillation.maskclip_plus import MaskCLIPPlus
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures, Split
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.writing import store

_TIMED_PICTURES = 20
_EXAMPLES = 6


def distill_dataset(args: argparse.Namespace) -> None:
    """Runs the command. Raises what ``clip-seg distill`` reports."""
    _check(args)
    training = train_settings(args, label_settings(args).confidence)
    work = args.work or args.out.with_suffix(".work")
    root = args.dataset.expanduser()
    train, val = (_opened(args, root, split) for split in ("train", "val"))
    teacher = None
    if args.classifier == "text":
        teacher = Predictor.from_name(args.teacher, args.device, precision=args.precision, engine=args.engine)
        complain("clip-seg distill", teacher.chosen)
    student = build_student(args, train.class_names, teacher).to(resolve_device(args.device))
    identity = hashlib.sha256((root / COCO).read_bytes()).hexdigest()
    pictures, (trained, held_out) = store_given(
        (train, val), identity, work, lambda numbers: tqdm(numbers, desc="store", unit="picture")
    )
    _say_what_is_there(pictures, train.class_names)
    split = given_split(trained, held_out, training.self_share > 0)
    trainer = MaskCLIPPlus(student, pictures, split.trained, training)
    trainer.run(Runner(student, work / "state.pt", args.seed, repr((student.config, training, identity))))
    keep_the_better(student, trainer.guided_weights(), args.device, pictures, split.to_choose)
    store(Converted(student.file_config(), student.state_dict()), args.out, args.half)
    _measure(args, pictures, split)
    print(
        f"to measure it on true labels: clip-seg annotate RECORDING --model {args.out} --prompts ... --out DIR; "
        "clip-seg evaluate --annotations DIR --truth RECORDING"
    )


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options of the labels that a teacher makes."""
    strange = {
        "--unseen": args.unseen is not None,
        "--without-pseudo-labels": args.without_pseudo_labels,
        "--labels": args.labels != "stored",
        "--names": args.names != "data",
        "--no-background": args.no_background,
        "--background-below": args.background_below is not None,
        "--denoising": args.denoising is not None,
        "--topic": args.topic is not None,
        "--every": args.every != 1,
    }
    if wrong := [name for name, given in strange.items() if given]:
        raise ValueError(f"{wrong[0]} does not go with --dataset, whose pictures and labels are there already")


def _opened(args: argparse.Namespace, root: Path, split: str) -> AnnotatedSemantic:
    values: dict[str, Any] = {"kind": "annotated", "root": root, "split": split}
    if args.classes is not None:
        values["classes"] = tuple(name.strip() for name in args.classes.split(",") if name.strip())
    return cast(AnnotatedSemantic, open_dataset(values))


def _say_what_is_there(pictures: LabelledPictures, names: tuple[str, ...]) -> None:
    for reason in pictures.unreadable[:5]:
        print(f"skipped: {reason}")
    print(f"{len(pictures.indices)} annotated pictures, {len(pictures.unreadable)} that cannot be read")
    *counts, ignored = shares = pictures.pixel_counts(len(names), pictures.indices)
    total = max(1, shares.sum())
    told = [f"{name} {100 * count / total:.1f} %" for name, count in zip(names, counts, strict=True)]
    print(f"pixels: {', '.join(told)}; doubtful and ignored {100 * ignored / total:.1f} %")
    if never := [name for name, count in zip(names, counts, strict=True) if not count]:
        print(f"the network cannot learn {', '.join(never)}, of which no picture shows a sure object")


def _measure(args: argparse.Namespace, pictures: LabelledPictures, split: Split) -> None:
    """Prints how the network does on held-out images, by the weights that are on disk, and draws some."""
    served = Predictor.from_name(str(args.out), args.device, precision=args.precision, engine="eager")
    names = served.spec.class_names
    scores = agreement(served, pictures, split.measured)
    print(
        f"written to {args.out}; on {len(split.measured)} pictures of the last fifth of the time, which training never "
        f"saw, it agrees with the annotations on {100 * scores.pixel_accuracy:.1f} % of the pixels, mean IoU "
        f"{scores.mean_iou:.3f}"
    )
    ious = [f"{name} {iou:.2f}" for name, iou in zip(names, scores.iou, strict=True) if not math.isnan(iou)]
    print(f"  IoU: {', '.join(ious)}")
    print(
        f"an image, on {served.device}: {median_ms(served, names, pictures, split.measured[:_TIMED_PICTURES]):.0f} ms"
    )
    examples = args.out.with_suffix(".png")
    write_picture(examples, example_grid(served, pictures, split.measured[:_EXAMPLES], "annotations"))
    print(f'examples: {examples}\nto use it: Predictor.from_name("{args.out}")')
