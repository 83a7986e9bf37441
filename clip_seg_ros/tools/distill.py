# SPDX-License-Identifier: Apache-2.0
"""``clip-seg distill``: trains a small network for a user's scene and classes from images without labels."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import torch
from tqdm import tqdm

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.evaluation.metrics.classes import ClassScores
from clip_seg_ros.evaluation.pages.pictures import write_picture
from clip_seg_ros.evaluation.wording import class_prompts
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.sources.images import BagPictures, DatasetPictures, FolderPictures, PictureSource, ScenePictures
from clip_seg_ros.tools.data_options import parse_data
from clip_seg_ros.tools.distill_dataset import distill_dataset
from clip_seg_ros.tools.distill_options import add_options, label_settings, train_settings
from clip_seg_ros.tools.distill_student import build_student, check_out
from clip_seg_ros.tools.distill_zero_shot import distill_zero_shot
from clip_seg_ros.tools.engine_options import complain
from clip_seg_ros.training.distillation.agreement import agreement, keep_the_better, median_ms
from clip_seg_ros.training.distillation.examples import example_grid
from clip_seg_ros.training.distillation.maskclip_plus import MaskCLIPPlus
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures, Labeller, label_pictures
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.writing import store

_TIMED_PICTURES = 20
_EXAMPLES = 6
_NAMED = 20
"""The most classes that one line names as dropped."""
_MEASURED_EVERY = 10
"""One of so many pictures is measured, and needs labels even where the teacher labels views."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``distill`` subcommand."""
    parser = subparsers.add_parser(
        "distill",
        help="teach a small, fast network your classes from your pictures, without labels",
        description="A teacher that understands phrases labels the pictures, and a small network learns from it "
        "(MaskCLIP+). Stopped at any moment, the same command goes on where it was.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code: 1 if it failed, 2 for wrong arguments, 130 if interrupted."""
    if args.threads:
        torch.set_num_threads(args.threads)
    # Denormal numbers would make training on a CPU several times slower.
    torch.set_flush_denormal(True)
    try:
        check_out(args.out)
        if args.dataset is not None:
            distill_dataset(args)
        elif args.unseen is None:
            _distill(args)
        else:
            distill_zero_shot(args)
    except ValueError as error:  # DataError is one
        print(f"clip-seg distill: {error}", file=sys.stderr)
        return 2
    except (WeightsError, RendererUnavailable, OSError, FloatingPointError) as error:
        print(f"clip-seg distill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nclip-seg distill: interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


def _distill(args: argparse.Namespace) -> None:
    if args.without_pseudo_labels:
        raise ValueError("--without-pseudo-labels goes with --unseen")
    source, names = _asked_for(args)
    labels = label_settings(args)
    training = train_settings(args, labels.confidence)
    device = resolve_device(args.device)
    work = args.work or args.out.with_suffix(".work")
    teacher = Predictor.from_name(args.teacher, args.device, precision=args.precision, engine=args.engine)
    complain("clip-seg distill", teacher.chosen)
    asked = class_prompts(names, args.names, teacher.spec.class_names)
    labeller = Labeller(teacher, names, labels, background=not args.no_background, asked=asked)
    for name in asked:
        if unknown := labeller.teacher.spec.unknown_words(name):
            print(f'note: {args.teacher} never learnt {", ".join(unknown)} of "{name}"')
    # The network is built before minutes of labelling, because its name may be wrong.
    student = build_student(args, labeller.class_names, teacher).to(device)
    online = args.labels == "views"
    every = _MEASURED_EVERY if online and not training.self_share else 1
    progress = "store" if online else "label"
    pictures = label_pictures(source, labeller, work, lambda items: tqdm(items, desc=progress, unit="picture"), every)
    _say_what_was_labelled(pictures, pictures.indices[::every], labeller)
    split = pictures.split(to_choose=training.self_share > 0)
    recipe = repr((student.config, training, args.labels, len(split.trained)))
    trainer = MaskCLIPPlus(student, pictures, split.trained, training, labeller if online else None)
    trainer.run(Runner(student, work / "state.pt", args.seed, recipe))
    keep_the_better(student, trainer.guided_weights(), args.device, pictures, split.to_choose)
    store(Converted(student.file_config(), student.state_dict()), args.out, args.half)
    held_out = split.measured
    print(f"written to {args.out}; measuring it on {len(held_out)} pictures that training never saw")
    # The measurements use the weights as they are on disk.
    served = Predictor.from_name(str(args.out), args.device, precision=args.precision, engine="eager")
    _say_agreement(agreement(served, pictures, held_out), labeller.class_names)
    _say_speed(labeller, served, pictures, held_out[:_TIMED_PICTURES])
    examples = args.out.with_suffix(".png")
    write_picture(examples, example_grid(served, pictures, held_out[:_EXAMPLES]))
    print(f'examples: {examples}\nto use it: Predictor.from_name("{args.out}")')
    if args.data and args.classes is None:
        print(f"to measure it on true labels: clip-seg evaluate --model {args.out} --data {args.data}")


def _asked_for(args: argparse.Namespace) -> tuple[PictureSource, tuple[str, ...]]:
    """Returns the pictures and the classes."""
    if args.data is None:
        if args.classes is None:
            raise ValueError("--classes is missing: name what to tell apart, such as cup,book,table")
        names = _class_names(args.classes)
        return _source(args), names
    if args.topic is not None or args.every != 1:
        raise ValueError("--topic and --every go with --bag")
    dataset = open_dataset(parse_data(args.data))
    if args.classes is not None:
        return DatasetPictures(dataset), _class_names(args.classes)
    if not hasattr(dataset, "class_names"):
        raise ValueError(f"{args.data} holds phrases and no classes: name what to tell apart with --classes")
    return DatasetPictures(dataset), tuple(dataset.class_names)


def _class_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not any(names):
        raise ValueError("--classes is empty: name what to tell apart, such as cup,book,table")
    return tuple(filter(None, names))


def _source(args: argparse.Namespace) -> PictureSource:
    if args.bag is not None:
        return BagPictures(args.bag.expanduser(), args.topic, args.every)
    if args.topic is not None or args.every != 1:
        raise ValueError("--topic and --every go with --bag")
    if args.rendered is not None:
        if args.rendered < 1:
            raise ValueError(f"--rendered must be at least 1, got {args.rendered}")
        return ScenePictures(args.rendered)
    return FolderPictures(args.images.expanduser())


def _say_what_was_labelled(pictures: LabelledPictures, labelled: Sequence[int], labeller: Labeller) -> None:
    for reason in pictures.unreadable[:5]:
        print(f"skipped: {reason}")
    print(f"{len(labelled)} pictures labelled, {len(pictures.unreadable)} skipped because they cannot be read")
    if labeller.background_added:
        print(f'no class of the list is a background: "{labeller.class_names[-1]}" was added for what is none of them')
    if not pictures.indices:
        return
    *counts, ignored = shares = pictures.pixel_counts(len(labeller.class_names), labelled)
    total = max(1, shares.sum())
    pairs = zip(labeller.class_names, counts, strict=True)
    told = [f"{name} {100 * count / total:.1f} %" for name, count in pairs if count]
    print(f"pixels: {', '.join(told) or 'none'}; unsure and ignored {100 * ignored / total:.1f} %")
    never = [name for name, count in zip(labeller.class_names, counts, strict=True) if not count]
    if len(never) == len(counts):
        raise ValueError(
            f"{labeller.teacher.spec.name} is sure of no class anywhere: lower --confidence, or use other words or "
            "another teacher"
        )
    if never:
        print(
            f"dropped: {_listed(never)}. The teacher is sure of them in no picture; they stay in the list, but the "
            "network cannot learn them. Use other words, more pictures or a lower --confidence if they are there"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _say_agreement(scores: ClassScores, class_names: Sequence[str]) -> None:
    print(
        f"agreement with the teacher where it is sure: {100 * scores.pixel_accuracy:.1f} % of the pixels, "
        f"mean IoU {scores.mean_iou:.3f}"
    )
    # A class that neither of them sees has no IoU.
    ious = [f"{name} {iou:.2f}" for name, iou in zip(class_names, scores.iou, strict=True) if not math.isnan(iou)]
    print(f"  IoU: {', '.join(ious)}")


def _say_speed(labeller: Labeller, student: Predictor, pictures: LabelledPictures, indices: Sequence[int]) -> None:
    asked = [name for name in labeller.class_names if not labeller.background_added or name != labeller.class_names[-1]]
    teacher_ms = median_ms(labeller.teacher, asked, pictures, indices)
    student_ms = median_ms(student, student.spec.class_names, pictures, indices)
    print(
        f"an image, on {student.device}: teacher {teacher_ms:.0f} ms, student {student_ms:.0f} ms "
        f"({teacher_ms / student_ms:.1f} times as fast)"
    )
