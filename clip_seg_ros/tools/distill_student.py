# SPDX-License-Identifier: Apache-2.0
"""Builds the network that ``clip-seg distill`` trains, with what it begins with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clip_seg_ros.evaluation.wording import class_prompts
from clip_seg_ros.models.clip.backbone import ModifiedResNet
from clip_seg_ros.models.student.model import Student, StudentConfig, TextClassifier, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.distill_options import TEACHER_NETWORK
from clip_seg_ros.training.distillation.start import begin_with
from clip_seg_ros.zoo.factory import build_segmenter, read_stored

_SMALLEST_SIZE = 64


def check_out(out: Path) -> None:
    """Makes the folder of the file to write. Raises ValueError if the file's name is wrong."""
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end with .safetensors, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)


def build_student(args: argparse.Namespace, class_names: Sequence[str], teacher: Predictor | None) -> Student:
    """Builds the network for some classes, on the CPU; the seed draws its new weights.

    Without a teacher, the last layer is learnt.

    Raises:
        ValueError: An option is wrong, or does not fit the teacher.
        WeightsError: The weights to begin with cannot be used.
    """
    if args.size < _SMALLEST_SIZE:
        raise ValueError(f"--size must be at least {_SMALLEST_SIZE}, got {args.size}")
    if args.start is not None and args.network == TEACHER_NETWORK:
        raise ValueError(f"--start and --network {TEACHER_NETWORK} both say what to begin with: leave out one of them")
    rows = None if teacher is None else _text_embeddings(args, class_names, teacher)
    classifier = None if rows is None else TextClassifier(args.teacher, rows.shape[1])
    name, names = args.out.stem, tuple(class_names)
    torch.manual_seed(args.seed)
    if args.network == TEACHER_NETWORK:
        student = _like_teacher(args, names, classifier)
    else:
        student = Student(name, StudentConfig(args.network, names, imagenet_input(args.size), classifier=classifier))
    if rows is not None:
        student.set_text_embeddings(rows)
    if args.start is not None:
        print(f"the network {begin_with(student, args.start.expanduser())}")
    return student


def _like_teacher(args: argparse.Namespace, names: tuple[str, ...], classifier: TextClassifier | None) -> Student:
    # The teacher is built anew, because the one that labels is only made for inference.
    teacher = build_segmenter(args.teacher)
    visual = getattr(teacher, "visual", getattr(getattr(teacher, "clip", None), "visual", None))
    if not isinstance(visual, ModifiedResNet):
        raise ValueError(
            f"--network {TEACHER_NETWORK} needs a teacher with a ResNet of CLIP's, which {teacher.name} has not"
        )
    spec = replace(imagenet_input(args.size), mean=teacher.input_spec.mean, std=teacher.input_spec.std)
    return Student.from_tower(args.out.stem, visual, names, spec, classifier)


def _text_embeddings(args: argparse.Namespace, names: Sequence[str], teacher: Predictor) -> torch.Tensor | None:
    """Returns the teacher's text embeddings of the classes (K, D), or ``None`` for a learnt classifier."""
    is_maskclip = read_stored(args.teacher).config.get("kind") == "maskclip"
    if args.classifier == "text" and not is_maskclip:
        raise ValueError(f"--classifier text needs a MaskCLIP as the teacher, which {args.teacher} is not")
    if args.classifier == "learnt" or not is_maskclip:
        return None
    known = teacher.spec.class_names
    # A list without the background has no embedding of it, and needs none, because that is learnt.
    words = class_prompts(names, args.names, known)
    asked = [word if known is None or word in known else known[0] for word in words]
    return teacher.engine.encode_text(asked).pooled.float().cpu().clone()
