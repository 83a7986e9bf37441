# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --data DATA``: evaluates any model on any data set, by the papers' protocols."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from clip_seg_ros.config import AUTO
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.class_splits import chosen_classes
from clip_seg_ros.data.samples import (
    DataError,
    InstanceDataset,
    InstanceSample,
    ReferringDataset,
    SemanticDataset,
    SemanticSample,
)
from clip_seg_ros.evaluation.answers import MULTI_SCALES, LabelAnswers, PhraseAnswers, with_antialias, with_templates
from clip_seg_ros.evaluation.corruptions import CorruptedImages, Corruption, parse_corruptions
from clip_seg_ros.evaluation.instances import InstanceEvaluation, evaluate_instances
from clip_seg_ros.evaluation.metrics.referring import MASK_THRESHOLD
from clip_seg_ros.evaluation.pages import page, report
from clip_seg_ros.evaluation.prefetch import spread
from clip_seg_ros.evaluation.protocols import (
    PHRASE_THRESHOLD,
    SemanticEvaluation,
    evaluate_phrases,
    evaluate_referring,
    evaluate_semantic,
)
from clip_seg_ros.evaluation.wording import class_prompts, phrase_wording
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.data_options import WrongCall, antialias_of, exit_code_of, parse_data, templates_of
from clip_seg_ros.tools.engine_options import complain
from clip_seg_ros.tools.evaluate_corruptions import evaluate_corrupted
from clip_seg_ros.zoo.caution import in_options

PROTOCOL_OF_KIND = {"refcoco": "referring"}
"""The protocols of kinds of data sets with phrases; it is "phrases" for all others."""
FITTING: dict[str, tuple[str, ...]] = {
    "phrases": ("referring", "phrases"),
    "a class a pixel": ("semantic",),
    "objects": ("instances",),
}
"""The protocols that fit what data sets yield."""
KINDS_OF_CLASSES = ("coco", "coco20i", "pascal5i")
"""The kinds of data sets whose phrases are classes; mIoU is the mean over these."""


@dataclass(frozen=True)
class Data:
    """An open data set."""

    dataset: ReferringDataset | SemanticDataset | InstanceDataset
    kind: str
    holds: str
    """What it yields: one of ``FITTING``."""

    @property
    def semantic(self) -> bool:
        """Whether it yields a class for every pixel."""
        return self.holds == "a class a pixel"


def run_dataset(args: argparse.Namespace) -> int:
    """Evaluates, prints tables and writes the requested files; returns the exit code."""
    return exit_code_of(_run, args)


def _run(args: argparse.Namespace) -> None:
    _check_numbers(args)
    corruptions = _corruptions(args)
    data = _open(args.data)
    protocol = _protocol(args, data)
    predictor = Predictor.from_name(args.model or AUTO, args.device, args.weights, args.precision, args.engine)
    predictor = with_templates(with_antialias(predictor, antialias_of(args)), templates_of(args))
    complain("clip-seg evaluate", predictor.chosen)
    if words := in_options(predictor.spec):
        print(f"clip-seg evaluate: {words}", file=sys.stderr)
    if len(corruptions) > 1:
        evaluate_corrupted(
            args,
            data.dataset,
            corruptions,
            lambda dataset: _measure(args, replace(data, dataset=dataset), protocol, predictor)[0],
        )
    else:
        shown = CorruptedImages(data.dataset, corruptions[0]) if corruptions else data.dataset
        _evaluate(args, replace(data, dataset=shown), protocol, predictor)


def _check_numbers(args: argparse.Namespace) -> None:
    for name, value in (("--threshold", args.threshold), ("--text-weight", args.text_weight)):
        if value is not None and not 0.0 <= value <= 1.0:
            raise WrongCall(f"{name} must lie in 0..1, got {value}")
    if args.limit is not None and args.limit < 1:
        raise WrongCall(f"--limit must be 1 or more, got {args.limit}")
    if args.text_weight is not None and args.prompt != "mixed":
        raise WrongCall("--text-weight is for --prompt mixed")
    if args.page and (args.page.is_file() or not args.page.parent.is_dir()):
        raise WrongCall(f"{args.page} cannot be written: name a folder in a folder that exists")


def _corruptions(args: argparse.Namespace) -> tuple[Corruption, ...]:
    try:
        corruptions = parse_corruptions(args.corruption or [])
    except ValueError as error:
        raise WrongCall(f"--corruption: {error}") from error
    if args.page and len(corruptions) > 1:
        raise WrongCall("--page is for one corruption at one level")
    return corruptions


def _open(text: str) -> Data:
    values = parse_data(text)
    dataset = open_dataset(values)
    if not len(dataset):
        raise DataError(f"{text} holds no sample")
    holds = {SemanticSample: "a class a pixel", InstanceSample: "objects"}.get(type(dataset[0]), "phrases")
    return Data(dataset, str(values["kind"]), holds)


def _protocol(args: argparse.Namespace, data: Data) -> str:
    """Returns the requested protocol, or the one that suits the data set."""
    fitting = FITTING[data.holds]
    protocol = args.protocol or PROTOCOL_OF_KIND.get(data.kind, fitting[-1])
    if protocol not in fitting:
        raise WrongCall(f"the data set {data.kind} holds {data.holds}: use --protocol {' or '.join(fitting)}")
    if args.multi_scale and not data.semantic:
        raise WrongCall("--multi-scale is for --protocol semantic")
    if args.unseen is not None and not data.semantic:
        raise WrongCall("--unseen is for --protocol semantic")
    if args.background_phrases is not None and not data.semantic:
        raise WrongCall("--background-phrases is for --protocol semantic")
    if args.prompt is not None and data.holds != "phrases":
        raise WrongCall("--prompt is for phrases; other data sets are asked with the names of their classes")
    if data.holds == "objects":
        for name, value in (("--threshold", args.threshold), ("--names", args.names), ("--page", args.page)):
            if value is not None:
                raise WrongCall(f"{name} is not for --protocol instances")
    return protocol


def _evaluate(args: argparse.Namespace, data: Data, protocol: str, predictor: Predictor) -> None:
    started = time.monotonic()
    evaluation, answers, settings = _measure(args, data, protocol, predictor)
    run = {
        "model": args.model or predictor.spec.name,
        "data": args.data,
        "protocol": protocol,
        "names": args.names or "data",
        "antialias": predictor.spec.input.antialias,
        "templates": args.templates,
        **settings,
        "corruption": args.corruption[0] if args.corruption else None,
        "samples": len(spread(len(data.dataset), args.limit)),
        "samples_in_data": len(data.dataset),
        "device": str(predictor.device),
        "engine": predictor.chosen.engine,
        "precision": predictor.chosen.precision,
        "seconds": round(time.monotonic() - started, 1),
    }
    _report(args, run, evaluation, answers, data.dataset)


def _measure(
    args: argparse.Namespace, data: Data, protocol: str, predictor: Predictor
) -> tuple[report.Evaluation, PhraseAnswers | LabelAnswers | None, dict[str, Any]]:
    """Returns the figures, what gave the answers, and the settings of the protocol."""
    indices = spread(len(data.dataset), args.limit)

    def progress(samples: Iterable) -> Iterable:
        return tqdm(samples, desc=protocol, total=len(indices), mininterval=1.0)

    settings: dict[str, Any] = {}
    if protocol == "semantic":
        scales = MULTI_SCALES if args.multi_scale else (1.0,)
        names = data.dataset.class_names
        prompts = class_prompts(names, args.names or "data", predictor.spec.class_names)
        phrases = None if args.background_phrases is None else args.background_phrases == "on"
        answers = LabelAnswers(predictor, names, scales, args.multi_scale, args.threshold, prompts, phrases)
        unseen = _unseen(args, data.dataset)
        evaluation = evaluate_semantic(answers, data.dataset, indices, progress, unseen)
        settings = {"multi_scale": args.multi_scale, "threshold": args.threshold, "unseen": list(unseen)}
    elif protocol == "instances":
        answers, evaluation = None, evaluate_instances(predictor, data.dataset, indices, progress)
    else:
        weight = 0.5 if args.text_weight is None else args.text_weight
        wording = phrase_wording(data.kind, args.names or "data")
        answers = PhraseAnswers(predictor, args.prompt or "text", weight, wording)
        threshold = {"referring": MASK_THRESHOLD, "phrases": PHRASE_THRESHOLD}[protocol]
        threshold = threshold if args.threshold is None else args.threshold
        if protocol == "referring":
            evaluation = evaluate_referring(answers, data.dataset, indices, threshold, progress)
        else:
            classes = data.kind in KINDS_OF_CLASSES
            evaluation = evaluate_phrases(answers, data.dataset, indices, threshold, classes, progress)
        settings = {"threshold": threshold, "prompt": answers.prompt}
        if answers.prompt == "mixed":
            settings["text_weight"] = weight
    return evaluation, answers, settings


def _unseen(args: argparse.Namespace, dataset: SemanticDataset) -> tuple[str, ...]:
    """Returns the classes that are measured apart: those of ``--unseen``, or those that the data set names."""
    if args.unseen is None:
        return getattr(dataset, "unseen", ())
    names = tuple(name.strip() for name in args.unseen.split(","))
    return chosen_classes(names[0] if len(names) == 1 else names, dataset.class_names)


def _report(
    args: argparse.Namespace,
    run: Mapping[str, Any],
    evaluation: report.Evaluation,
    answers: PhraseAnswers | LabelAnswers | None,
    dataset: ReferringDataset | SemanticDataset | InstanceDataset,
) -> None:
    semantic = isinstance(evaluation, SemanticEvaluation)
    if isinstance(evaluation, InstanceEvaluation):
        print(report.precision_table(evaluation), end="\n\n")
    elif semantic:
        print(report.class_table(evaluation), end="\n\n")
    elif evaluation.sweep is not None:
        print(report.sweep_table(evaluation.sweep), end="\n\n")
    print(report.figure_table(evaluation))
    if args.json:
        report.write_json(args.json, run, evaluation)
    if args.page:
        write = page.write_semantic_page if semantic else page.write_phrase_page
        print(f"page of pictures: {write(args.page, run, evaluation, answers, dataset)}")
