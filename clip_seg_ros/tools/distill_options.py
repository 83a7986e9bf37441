# SPDX-License-Identifier: Apache-2.0
"""The options of ``clip-seg distill``, and the settings that they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clip_seg_ros.config import ENGINE_NAMES
from clip_seg_ros.evaluation.wording import AUTHORS
from clip_seg_ros.models.student.networks import known_networks
from clip_seg_ros.runtime.devices import PRECISIONS
from clip_seg_ros.training.distillation.maskclip_plus import TrainSettings
from clip_seg_ros.training.distillation.pseudo_labels import LabelSettings
from clip_seg_ros.training.distillation.zero_shot import ZeroShotSettings

TEACHER_NETWORK = "teacher"
_LABELS = LabelSettings()
_AS_IN_THE_PAPER = LabelSettings(confidence=0.0, background_below=0.0, denoising=0.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds all options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", type=Path, metavar="DIR", help="folder of pictures, looked through below too")
    where.add_argument(
        "--data", metavar="DATA", help="the pictures of a data set: DATA.yaml, or KIND:ROOT[:SPLIT][:OPTION=VALUE]"
    )
    where.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="what clip-seg annotate wrote: its labels instead of a teacher's; doubtful objects are not learnt",
    )
    where.add_argument("--bag", type=Path, metavar="FILE", help="ROS bag: its folder, or a .db3, .mcap or .bag file")
    where.add_argument("--rendered", type=int, metavar="N", help="N rendered scenes, to try it with")
    parser.add_argument("--topic", help="topic of the bag's images, where it holds several")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take one of N images of the bag")
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="what to tell apart, e.g. cup,book,table (default: the classes of --data or --dataset)",
    )
    parser.add_argument(
        "--names",
        choices=AUTHORS,
        default="data",
        help="whose words ask the teacher for a class: the data set's names (default), or those that the authors ask",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--half", action="store_true", help="store float16: half the size, rounded")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for labels and state (default: beside --out)")
    _add_network_options(parser.add_argument_group("teacher and network"))
    _add_label_options(parser.add_argument_group("labels"))
    _add_zero_shot_options(parser.add_argument_group("zero-shot setting, with --data or --rendered"))
    _add_training_options(parser.add_argument_group("training"))


def _add_network_options(parser: argparse._ArgumentGroup) -> None:
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
    parser.add_argument(
        "--classifier",
        choices=("text", "learnt"),
        help="text: the teacher's text embeddings of the classes, so that words make further classes afterwards "
        "(default where a MaskCLIP is the teacher); learnt: a layer of weights (default of --dataset)",
    )
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="weights to begin with, such as a backbone trained on ImageNet"
    )
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="short side of what it sees (%(default)s)")


def _add_label_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--labels",
        choices=("stored", "views"),
        default="stored",
        help="stored: the teacher labels each picture once; views: what the network sees at each step, as in the paper "
        "(%(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="0..1",
        help=f"probability from which an answer is a label ({_LABELS.confidence}; with --unseen 0)",
    )
    parser.add_argument(
        "--denoising",
        type=float,
        metavar="0..1",
        help=f"a class that is nowhere as probable as this is not there ({_LABELS.denoising}; with --unseen 0)",
    )
    parser.add_argument(
        "--background-below",
        type=float,
        metavar="0..1",
        help="where no class has this probability is background, unless --classes has one "
        f"({_LABELS.background_below}; with --no-background 0)",
    )
    parser.add_argument(
        "--no-background",
        action="store_true",
        help="every pixel belongs to one of --classes, as in the paper: no background is added, and the teacher's own "
        "background phrases do not compete",
    )


def _add_zero_shot_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--unseen",
        metavar="SPLIT|A,B",
        help="learn from the true labels of all classes but these, and from pseudo-labels for these: names of classes, "
        "or a split such as voc_15_5",
    )
    parser.add_argument(
        "--guided-share",
        type=float,
        default=ZeroShotSettings(1).guided_share,
        metavar="0..1",
        help="share of the steps in which the teacher labels the unseen classes; then the network does (%(default)s)",
    )
    parser.add_argument(
        "--without-pseudo-labels", action="store_true", help="ignore the pixels of unseen classes, for comparison"
    )


def _add_training_options(parser: argparse._ArgumentGroup) -> None:
    training = TrainSettings(1)
    parser.add_argument("--steps", type=int, default=4000, help="steps of training, all phases (%(default)s)")
    parser.add_argument("--batch", type=int, default=training.batch, help="pictures a step (%(default)s)")
    parser.add_argument(
        "--optimizer",
        choices=("adamw", "sgd"),
        default=training.optimizer,
        help="sgd: momentum 0.9, weight decay 0.0005, a polynomial rate down to 0.0001, as in the paper (%(default)s)",
    )
    parser.add_argument("--learning-rate", type=float, help="the highest one (adamw: 0.002, sgd: 0.01)")
    parser.add_argument(
        "--scales",
        type=float,
        nargs=2,
        default=training.scales,
        metavar=("LOW", "HIGH"),
        help="range of the pictures' size in training, in times of --size (%(default)s)",
    )
    parser.add_argument("--crop", type=int, metavar="PX", help="side of the views (default: two thirds of --size)")
    parser.add_argument(
        "--self-share",
        type=float,
        default=training.self_share,
        metavar="0..1",
        help="share of the steps on the network's own labels (%(default)s)",
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


def label_settings(args: argparse.Namespace) -> LabelSettings:
    """Returns the thresholds of the labels. Raises ValueError if they do not fit together."""
    usual = _LABELS if args.unseen is None else _AS_IN_THE_PAPER
    below = 0.0 if args.no_background else usual.background_below
    return LabelSettings(
        usual.confidence if args.confidence is None else args.confidence,
        below if args.background_below is None else args.background_below,
        usual.denoising if args.denoising is None else args.denoising,
    )


def train_settings(args: argparse.Namespace, confidence: float) -> TrainSettings:
    """Returns the settings of a training without labels. Raises ValueError if one is wrong."""
    return TrainSettings(**_shared(args), self_share=args.self_share, confidence=confidence)


def zero_shot_settings(args: argparse.Namespace) -> ZeroShotSettings:
    """Returns the settings of a training in the zero-shot setting. Raises ValueError if one is wrong."""
    own = {"guided_share": args.guided_share, "pseudo_labels": not args.without_pseudo_labels}
    return ZeroShotSettings(**_shared(args), **own)


def _shared(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "steps": args.steps,
        "batch": args.batch,
        "optimizer": args.optimizer,
        "learning_rate": args.learning_rate,
        "scales": tuple(args.scales),
        "crop_px": args.crop,
        "precision": args.precision,
        "seed": args.seed,
    }
