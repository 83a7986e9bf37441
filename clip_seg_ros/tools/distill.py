# SPDX-License-Identifier: Apache-2.0
"""``clip-seg distill``: trains a small network for a user's scene and classes from images without labels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from clip_seg_ros.config import ENGINE_NAMES
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.evaluation.metrics.classes import ClassScores
from clip_seg_ros.evaluation.pages.pictures import write_picture
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import ModifiedResNet
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input
from clip_seg_ros.models.student.networks import known_networks
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.devices import PRECISIONS, resolve_device
from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.sources.images import BagPictures, DatasetPictures, FolderPictures, PictureSource, ScenePictures
from clip_seg_ros.tools.data_options import parse_data
from clip_seg_ros.tools.engine_options import complain
from clip_seg_ros.training.distillation.agreement import agreement, keep_the_better, median_ms
from clip_seg_ros.training.distillation.examples import example_grid
from clip_seg_ros.training.distillation.maskclip_plus import MaskCLIPPlus, TrainSettings
from clip_seg_ros.training.distillation.pseudo_labels import (
    LabelledPictures,
    Labeller,
    LabelSettings,
    label_pictures,
)
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.factory import build_segmenter
from clip_seg_ros.zoo.writing import store

TEACHER_NETWORK = "teacher"
_SMALLEST_SIZE = 64
_TIMED_PICTURES = 20
_EXAMPLES = 6


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``distill`` subcommand."""
    parser = subparsers.add_parser(
        "distill",
        help="teach a small, fast network your classes from your pictures, without labels",
        description="A teacher that understands phrases labels the pictures, a small network learns from it and then "
        "from itself (MaskCLIP+). Stopped at any moment, the same command goes on where it was.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", type=Path, metavar="DIR", help="folder of pictures, looked through below too")
    where.add_argument(
        "--data", metavar="DATA", help="the pictures of a data set: DATA.yaml, or KIND:ROOT[:SPLIT][:OPTION=VALUE]"
    )
    where.add_argument("--bag", type=Path, metavar="FILE", help="ROS bag: its folder, or a .db3, .mcap or .bag file")
    where.add_argument("--rendered", type=int, metavar="N", help="N rendered scenes, to try it with")
    parser.add_argument("--topic", help="topic of the bag's images, where it holds several")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take one of N images of the bag")
    parser.add_argument(
        "--classes", metavar="A,B,...", help="what to tell apart, e.g. cup,book,table (default: the classes of --data)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for labels and state (default: beside --out)")
    parser.add_argument("--teacher", default="maskclip-pocket", metavar="NAME", help="a model (%(default)s)")
    parser.add_argument(
        "--engine",
        choices=ENGINE_NAMES,
        default="eager",
        help="what runs the teacher; auto: the fastest of this machine, in --precision (%(default)s)",
    )
    parser.add_argument(
        "--network",
        default="lraspp_mobilenet_v3_large",
        metavar="NAME",
        help=f"{TEACHER_NETWORK}: begins with the teacher's image tower, where that is a ResNet; {known_networks()} "
        "(%(default)s)",
    )
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="short side of what it sees (%(default)s)")
    _add_training_options(parser)
    parser.set_defaults(run=run)


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    labels, training = LabelSettings(), TrainSettings(1)
    parser.add_argument("--steps", type=int, default=4000, help="steps of training, both phases (%(default)s)")
    parser.add_argument("--batch", type=int, default=training.batch, help="pictures a step (%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=training.learning_rate, help="of the first phase (%(default)s)"
    )
    parser.add_argument(
        "--self-share",
        type=float,
        default=training.self_share,
        metavar="0..1",
        help="share of the steps on the network's own labels (%(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=labels.confidence,
        metavar="0..1",
        help="probability from which an answer is a label (%(default)s)",
    )
    parser.add_argument(
        "--background-below",
        type=float,
        default=labels.background_below,
        metavar="0..1",
        help="where no class has this probability is background, unless --classes has one (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=training.seed, help="of all that is random (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto (CUDA if there is any), cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="what teacher and student compute in, training included (%(default)s)",
    )
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: all)")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code: 1 if it failed, 2 for wrong arguments, 130 if interrupted."""
    if args.threads:
        torch.set_num_threads(args.threads)
    # Denormal numbers would make training on a CPU several times slower.
    torch.set_flush_denormal(True)
    try:
        _distill(args)
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
    source, names = _asked_for(args)
    _check_out(args.out)
    labels = LabelSettings(args.confidence, args.background_below)
    training = TrainSettings(
        args.steps,
        args.self_share,
        batch=args.batch,
        learning_rate=args.learning_rate,
        confidence=args.confidence,
        precision=args.precision,
        seed=args.seed,
    )
    device = resolve_device(args.device)
    work = args.work or args.out.with_suffix(".work")
    teacher = Predictor.from_name(args.teacher, args.device, precision=args.precision, engine=args.engine)
    complain("clip-seg distill", teacher.chosen)
    labeller = Labeller(teacher, names, labels)
    # The network is built before minutes of labelling, because its name may be wrong.
    torch.manual_seed(args.seed)
    student = _student(args, labeller).to(device)
    for name in names:
        if unknown := labeller.teacher.spec.unknown_words(name):
            print(f'note: {args.teacher} never learnt {", ".join(unknown)} of "{name}"')
    pictures = label_pictures(source, labeller, work, lambda items: tqdm(items, desc="label", unit="picture"))
    _say_what_was_labelled(pictures, labeller)
    trained, held_out = pictures.split()
    recipe = repr((student.config, training, len(trained)))
    trainer = MaskCLIPPlus(student, pictures, trained, training)
    trainer.run(Runner(student, work / "state.pt", args.seed, recipe))
    keep_the_better(student, trainer.guided_weights(), args.device, pictures, held_out)
    store(Converted(student.file_config(), student.state_dict()), args.out)
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


def _student(args: argparse.Namespace, labeller: Labeller) -> Student:
    name, size = args.out.stem, _size(args.size)
    if args.network != TEACHER_NETWORK:
        return Student(name, StudentConfig(args.network, labeller.class_names, imagenet_input(size)))
    # The teacher is built anew, because the one that labels is only made for inference.
    teacher = build_segmenter(args.teacher)
    visual = getattr(teacher, "visual", getattr(getattr(teacher, "clip", None), "visual", None))
    if not isinstance(visual, ModifiedResNet):
        raise ValueError(
            f"--network {TEACHER_NETWORK} needs a teacher with a ResNet of CLIP's, which {teacher.name} has not"
        )
    spec = replace(imagenet_input(size), mean=teacher.input_spec.mean, std=teacher.input_spec.std)
    return Student.from_tower(name, visual, labeller.class_names, spec)


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


def _check_out(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end with .safetensors, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)


def _size(size: int) -> int:
    if size < _SMALLEST_SIZE:
        raise ValueError(f"--size must be at least {_SMALLEST_SIZE}, got {size}")
    return size


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


def _say_what_was_labelled(pictures: LabelledPictures, labeller: Labeller) -> None:
    for reason in pictures.unreadable[:5]:
        print(f"skipped: {reason}")
    print(f"{len(pictures.indices)} pictures labelled, {len(pictures.unreadable)} skipped because they cannot be read")
    if labeller.background_added:
        print(f'no class of the list is a background: "{labeller.class_names[-1]}" was added for what is none of them')
    if not pictures.indices:
        return
    *counts, ignored = shares = pictures.pixel_counts(len(labeller.class_names))
    total = max(1, shares.sum())
    told = [f"{name} {100 * count / total:.1f} %" for name, count in zip(labeller.class_names, counts, strict=True)]
    print(f"pixels: {', '.join(told)}; unsure and ignored {100 * ignored / total:.1f} %")
    never = [name for name, count in zip(labeller.class_names, counts, strict=True) if not count]
    if len(never) == len(counts):
        raise ValueError(
            f"{labeller.teacher.spec.name} is sure of no class anywhere: lower --confidence, or use other words or "
            "another teacher"
        )
    if never:
        print(
            f"dropped: {', '.join(never)}. The teacher is sure of them in no picture; they stay in the list, but the "
            "network cannot learn them. Use other words, more pictures or a lower --confidence if they are there"
        )


def _say_agreement(scores: ClassScores, class_names: Sequence[str]) -> None:
    print(
        f"agreement with the teacher where it is sure: {100 * scores.pixel_accuracy:.1f} % of the pixels, "
        f"mean IoU {scores.mean_iou:.3f}"
    )
    print("  IoU: " + ", ".join(f"{name} {iou:.2f}" for name, iou in zip(class_names, scores.iou, strict=True)))


def _say_speed(labeller: Labeller, student: Predictor, pictures: LabelledPictures, indices: Sequence[int]) -> None:
    asked = [name for name in labeller.class_names if not labeller.background_added or name != labeller.class_names[-1]]
    teacher_ms = median_ms(labeller.teacher, asked, pictures, indices)
    student_ms = median_ms(student, student.spec.class_names, pictures, indices)
    print(
        f"an image, on {student.device}: teacher {teacher_ms:.0f} ms, student {student_ms:.0f} ms "
        f"({teacher_ms / student_ms:.1f} times as fast)"
    )
