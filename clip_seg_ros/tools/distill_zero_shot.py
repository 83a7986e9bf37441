# SPDX-License-Identifier: Apache-2.0
"""``clip-seg distill --unseen``: true labels for seen classes, pseudo-labels for unseen ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from tqdm import tqdm

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.class_splits import chosen_classes
from clip_seg_ros.data.samples import SemanticDataset, SemanticSample
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, load_training_scenes, render_training_scenes
from clip_seg_ros.data.tabletop_classes import TabletopClasses
from clip_seg_ros.evaluation.wording import class_prompts
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.tools.data_options import parse_data
from clip_seg_ros.tools.distill_options import label_settings, zero_shot_settings
from clip_seg_ros.tools.distill_student import build_student
from clip_seg_ros.tools.engine_options import complain
from clip_seg_ros.training.distillation.pseudo_labels import Labeller
from clip_seg_ros.training.distillation.zero_shot import ZeroShot
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.writing import store


def distill_zero_shot(args: argparse.Namespace) -> None:
    """Runs the command. Raises what ``clip-seg distill`` reports."""
    _check(args)
    settings = zero_shot_settings(args)
    work = args.work or args.out.with_suffix(".work")
    device = resolve_device(args.device)
    dataset = None if args.data is None else _opened(args.data)
    class_names = SEMANTIC_CLASSES if dataset is None else tuple(dataset.class_names)
    asked = [name.strip() for name in args.unseen.split(",")]
    unseen = chosen_classes(asked[0] if len(asked) == 1 else asked, class_names)
    teacher = Predictor.from_name(args.teacher, args.device, precision=args.precision, engine=args.engine)
    complain("clip-seg distill", teacher.chosen)
    prompts = class_prompts(unseen, args.names, teacher.spec.class_names)
    labeller = Labeller(teacher, unseen, label_settings(args), background=False, asked=prompts)
    # The network is built before minutes of rendering, because its name may be wrong.
    student = build_student(args, class_names, teacher).to(device)
    print(f"{len(class_names) - len(unseen)} seen classes; unseen: {', '.join(unseen)}")
    if dataset is None:
        dataset = _rendered(args.rendered, work / "scenes", args.threads)
    trainer = ZeroShot(student, dataset, unseen, labeller, settings)
    recipe = repr((student.config, settings, labeller.settings, unseen, len(dataset)))
    trainer.run(Runner(student, work / "state.pt", args.seed, recipe))
    store(Converted(student.file_config(), student.state_dict()), args.out, args.half)
    print(f'written to {args.out}\nto use it: Predictor.from_name("{args.out}")')
    if args.data:
        print(
            "seen, unseen and harmonic mean IoU, with the data set's split for validation: clip-seg evaluate "
            f"--model {args.out} --data DATA --unseen {args.unseen}"
        )


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options of the setting without labels."""
    if args.data is None and args.rendered is None:
        raise ValueError("--unseen needs true labels of the other classes: give --data or --rendered")
    if args.rendered is not None and args.rendered < 1:
        raise ValueError(f"--rendered must be at least 1, got {args.rendered}")
    strange = {
        "--classes": args.classes is not None,
        "--self-share": args.self_share > 0,
        "--labels": args.labels != "stored",
        "--no-background": args.no_background,
        "--background-below": args.background_below is not None,
        "--topic": args.topic is not None,
        "--every": args.every != 1,
    }
    if wrong := [name for name, given in strange.items() if given]:
        raise ValueError(f"{wrong[0]} does not go with --unseen, whose classes and labels are those of the data set")


def _opened(text: str) -> SemanticDataset:
    dataset = open_dataset(parse_data(text))
    if not len(dataset) or not isinstance(dataset[0], SemanticSample):
        raise ValueError(f"{text} has no images with a class for every pixel, which --unseen needs")
    return cast(SemanticDataset, dataset)


def _rendered(count: int, folder: Path, threads: int) -> SemanticDataset:
    with tqdm(desc="render", total=count, unit="scene") as bar:
        for ready in render_training_scenes(folder, count, workers=threads or 2):
            bar.update(ready - bar.n)
    return TabletopClasses(load_training_scenes(folder, count))
