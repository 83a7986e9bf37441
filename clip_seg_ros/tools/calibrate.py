# SPDX-License-Identifier: Apache-2.0
"""``clip-seg calibrate MODEL --data DATA``: fits a model's threshold and probabilities to pictures of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from clip_seg_ros import resources
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.samples import DataError, ReferringDataset, ReferringSample
from clip_seg_ros.evaluation.answers import PhraseAnswers
from clip_seg_ros.evaluation.calibrating import Asked, Figures, collect, fit, measure
from clip_seg_ros.evaluation.pages.reliability import write_reliability_page
from clip_seg_ros.evaluation.prefetch import spread
from clip_seg_ros.models.calibration import Calibration
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.data_options import parse_data
from clip_seg_ros.zoo.embedded import embedded_name
from clip_seg_ros.zoo.factory import read_stored
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS, file_name, is_name
from clip_seg_ros.zoo.writing import store

_FOLDS = 2


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``calibrate`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit a model's threshold and probabilities to your pictures",
        description="Finds the threshold with which phrases are answered best, and the temperature with which "
        "probabilities mean what they say, on pictures with phrases and masks. A hundred pictures suffice. The result "
        "is a copy of the weights that keeps both, under a name that nodes and programs take.",
    )
    parser.add_argument("model", metavar="MODEL", help="a name or a .safetensors file: a CLIPSeg or a CRIS")
    parser.add_argument("--data", required=True, metavar="DATA", help="DATA.yaml, or KIND:ROOT[:SPLIT][:OPTION=VALUE]")
    parser.add_argument("--name", help="keep the result under this name (default: only the figures are shown)")
    parser.add_argument("--limit", type=int, metavar="N", help="use N samples of the data, evenly spread")
    parser.add_argument("--per-phrase", action="store_true", help="also find a threshold for each frequent phrase")
    parser.add_argument(
        "--most-answered",
        type=float,
        metavar="SHARE",
        help="let no more than this share of the phrases that name nothing in their picture be answered",
    )
    parser.add_argument("--device", default="auto", help="auto (CUDA if there is any), cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the calibration")
    parser.add_argument("--page", type=Path, metavar="DIR", help="write index.html with the reliability diagram")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates; returns the exit code: 1 for data and weights that cannot be used, 2 for wrong arguments."""
    try:
        _check(args)
        _calibrate(args)
    except (DataError, WeightsError, OSError) as error:
        print(f"clip-seg calibrate: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"clip-seg calibrate: {error}", file=sys.stderr)
        return 2
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.name is not None and not (is_name(args.name) and ":" not in args.name):
        raise ValueError(f'"{args.name}" is no name: use letters, digits, ".", "-" and "_"')
    if args.name is not None and (args.name in PUBLIC_WEIGHTS or embedded_name(args.name)):
        raise ValueError(f"{args.name} is the name of other weights: choose a name of your own")
    if args.limit is not None and args.limit < _FOLDS:
        raise ValueError(f"--limit must be {_FOLDS} or more, got {args.limit}")
    if args.most_answered is not None and not 0 <= args.most_answered <= 1:
        raise ValueError(f"--most-answered must lie in 0..1, got {args.most_answered}")


def _calibrate(args: argparse.Namespace) -> None:
    stored = read_stored(args.model)
    model = replace(stored, config=_plain(stored.config)).build(args.model)
    if model.spec.competition != "sigmoid" or model.spec.finds_objects:
        raise ValueError(
            f"{args.model} lets its prompts compete, so that no threshold decides: calibrate a CLIPSeg or a CRIS"
        )
    before = stored.build(args.model).spec
    dataset = open_dataset(parse_data(args.data))
    if len(dataset) < _FOLDS or not isinstance(dataset[0], ReferringSample):
        raise DataError(f"{args.data} does not hold several phrases with masks")
    indices = spread(len(dataset), args.limit)
    answers = PhraseAnswers(Predictor.from_model(model, args.device))

    def progress(samples: Any) -> Any:
        return tqdm(samples, desc="calibrate", total=len(indices), mininterval=1.0)

    asked = collect(answers, cast(ReferringDataset, dataset), indices, progress)
    options = {"per_phrase": args.per_phrase, "most_answered": args.most_answered}
    calibration, threshold = fit(asked, **options)
    figures = {
        "before": measure(asked, before.calibration, before.threshold),
        "after": _cross_validated(asked, options),
    }
    _tell(figures, calibration, threshold, before.threshold)
    if args.json:
        result = {name: asdict(each) for name, each in figures.items()}
        values = {**result, "threshold": threshold, "calibration": asdict(calibration), "samples": len(asked)}
        args.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if args.page:
        lines = [f"{args.model} on {args.data}, {len(asked)} samples", *map(_line, figures, figures.values())]
        page = write_reliability_page(args.page, lines, asked, before.calibration, calibration, threshold)
        print(f"reliability diagram: {page}")
    if args.name is not None:
        config = {**_plain(stored.config), "threshold": threshold, "calibration": asdict(calibration)}
        path = resources.cache_dir() / file_name(args.name)
        store(Converted(config, dict(stored.tensors)), path, name=args.name)
        print(f"{path} is written: use it with `model:={args.name}`, or the command `use {args.name}`")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration of the weights without an earlier calibration."""
    return {name: value for name, value in config.items() if name != "calibration"}


def _cross_validated(asked: Sequence[Asked], options: Mapping[str, Any]) -> Figures:
    """Returns the mean figures on each part of the samples with the calibration of the others."""
    # Neighbours often show the same picture, and must not be on both sides.
    parts = [asked[place * len(asked) // _FOLDS : (place + 1) * len(asked) // _FOLDS] for place in range(_FOLDS)]
    measured = []
    for place, part in enumerate(parts):
        others = [each for other, each in enumerate(parts) if other != place]
        measured.append(measure(part, *fit([one for other in others for one in other], **options)))
    values = {name: [asdict(each)[name] for each in measured] for name in asdict(measured[0])}
    return Figures(**{name: _mean(each) for name, each in values.items()})


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def _tell(figures: Mapping[str, Figures], calibration: Calibration, threshold: float, before: float) -> None:
    for name, each in figures.items():
        print(_line(name, each))
    print(
        f"threshold {threshold:.3f} (before: {before:.3f}), temperature {calibration.temperature:.2f}, objects with a "
        f"mean probability below {calibration.least_score:.3f} do not count"
    )
    if calibration.thresholds:
        low, high = min(calibration.thresholds.values()), max(calibration.thresholds.values())
        print(f"{len(calibration.thresholds)} phrases have thresholds of their own, {low:.3f} to {high:.3f}")


def _line(name: str, figures: Figures) -> str:
    what = {"before": "before:", "after": "after, each half of the data with the other's calibration:"}[name]
    return (
        f"{what} mean IoU {figures.named_iou:.3f}, phrases that name nothing answered {figures.absent_answered:.1%}, "
        f"error of the probabilities {figures.error:.4f}"
    )
