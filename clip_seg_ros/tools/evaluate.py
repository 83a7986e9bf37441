# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate``: evaluates a model on a data set, or the embedded weights on held-out scenes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from clip_seg_ros.data import tabletop
from clip_seg_ros.evaluation.answers import with_antialias, with_templates
from clip_seg_ros.evaluation.pages.pictures import write_picture
from clip_seg_ros.evaluation.suite import Examiner, Figure, run_suite
from clip_seg_ros.evaluation.suites.clicks import ClickExaminer
from clip_seg_ros.evaluation.suites.edges import EdgeExaminer
from clip_seg_ros.evaluation.suites.embedded import PhraseExaminer
from clip_seg_ros.evaluation.suites.embedded_suite import PARTS, examiners, parts_there
from clip_seg_ros.evaluation.suites.recollection import run_recollection
from clip_seg_ros.evaluation.suites.relations import RelationsExaminer, run_relations
from clip_seg_ros.evaluation.suites.separation import SeparationExaminer
from clip_seg_ros.evaluation.suites.sequences import run_sequences
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.space.understanding import FAINT
from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.tools.data_options import antialias_of, templates_of
from clip_seg_ros.tools.engine_options import add_engine_options, complain
from clip_seg_ros.tools.figures import figure_table

_SEQUENCES, _FRAMES = 20, 200


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``evaluate`` subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on a data set, or the embedded weights on held-out scenes",
        description="With --data: asks a model about every sample of a data set and gives the figures of the papers. "
        "Without: renders scenes that training never saw, asks for what is there and for what is not, and prints the "
        "figures.",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    # Figures must not depend on the machine unless somebody says so.
    add_engine_options(parser, "eager", "float32", "whose figures are the same everywhere")
    parser.add_argument("--weights", type=Path, help="folder of the weights (default: the embedded ones)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="probability above which a pixel counts, 0..1 (default: 0.5 for the suites, but 0.3 for relations; 0.35 "
        "for referring, 0.3 for phrases; semantic: above which it is no background, by default a class like others)",
    )
    parser.add_argument(
        "--antialias",
        choices=["on", "off"],
        help="whether images are smoothed before they shrink (default: as the model's weights say)",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        metavar="SENTENCE",
        help="average the texts of each phrase over sentences such as 'a photo of a {}.'; or clipseg, for the nine of "
        "its training, maskclip, for its 85, or none (default: as the model's weights say)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    _add_suite_options(parser)
    _add_data_options(parser)
    _add_annotation_options(parser)
    parser.set_defaults(run=run)


def _add_suite_options(parser: argparse.ArgumentParser) -> None:
    suite = parser.add_argument_group("held-out scenes")
    suite.add_argument(
        "--suite",
        choices=["embedded", "sequences", "edges", "instances", "clicks", "relations", "memory"],
        help="embedded: what the embedded models know (default, without --data); sequences: how steady masks, ids and "
        "positions are while the camera and things move; edges: what it brings to fit masks to the image's edges, with "
        "--data on the labels of pictures; instances: whether things of one name that touch are found one by one; "
        "clicks: the masks of things at a point or in a box; "
        'relations: whether "the second cup left of the bowl" is found; '
        "memory: whether things are remembered where they are while the camera looks elsewhere",
    )
    available = len(tabletop.TEST_SEEDS)
    suite.add_argument(
        "--scenes", type=int, help=f"how many of the {available} held-out scenes, spread evenly (default: all)"
    )
    suite.add_argument(
        "--parts", nargs="+", choices=PARTS, help="what of the suite (default: all whose weights are there)"
    )
    suite.add_argument(
        "--refine-edges", action="store_true", help="fit the masks of --parts phrases to the edges of the image"
    )
    suite.add_argument("--pictures", type=Path, metavar="FOLDER", help="write random and worst answers as pictures")
    suite.add_argument("--sequences", type=int, metavar="N", help=f"how many sequences (default: {_SEQUENCES})")
    suite.add_argument("--frames", type=int, metavar="N", help=f"pictures in each sequence (default: {_FRAMES})")


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data sets")
    data.add_argument("--data", metavar="DATA", help="DATA.yaml, or KIND:ROOT[:SPLIT][:OPTION=VALUE]")
    data.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="which model (default: clipseg-rd64-refined if it was downloaded, else clipseg-pocket); for held-out "
        "scenes only with --parts phrases or --suite clicks",
    )
    data.add_argument(
        "--protocol",
        choices=["referring", "phrases", "semantic", "instances", "alignment"],
        help="default: what suits the data",
    )
    data.add_argument("--limit", type=int, metavar="N", help="measure N samples, spread evenly over the data set")
    data.add_argument(
        "--prompt", choices=["text", "image", "mixed"], help="ask with phrases (default), example images, or both"
    )
    data.add_argument(
        "--text-weight", type=float, metavar="W", help="share of the phrase in --prompt mixed, 0..1 (default: 0.5)"
    )
    data.add_argument("--multi-scale", action="store_true", help="semantic: look at six sizes and mirrored")
    data.add_argument(
        "--names",
        choices=["data", "maskclip", "clipseg"],
        help="whose words ask for a class: the data set's names (default), or those that the authors ask",
    )
    data.add_argument(
        "--background-phrases",
        choices=["on", "off"],
        help="semantic: whether MaskCLIP's phrases for the surroundings compete with the classes (default: only if the "
        "data set has a background)",
    )
    data.add_argument(
        "--unseen",
        metavar="SPLIT|A,B",
        help="semantic: measure these classes apart: names of classes, or a split such as voc_15_5",
    )
    data.add_argument(
        "--corruption",
        nargs="+",
        metavar="NAME[:LEVEL]",
        help="corrupt the pictures first, such as gaussian_noise:3; several, a name without a level, or all: a table",
    )
    data.add_argument("--page", type=Path, metavar="FOLDER", help="write a page of the worst answers")


def _add_annotation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("annotations")
    group.add_argument("--annotations", type=Path, metavar="DIR", help="the folder that clip-seg annotate wrote")
    group.add_argument(
        "--truth", type=Path, metavar="RECORDING", help="the recording that was annotated, as clip-seg record writes it"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints a table and writes the requested files; returns the exit code."""
    if args.annotations is not None or args.truth is not None:
        from clip_seg_ros.tools.evaluate_annotations import run_annotations

        return run_annotations(args)
    if args.data is not None and args.suite == "edges":
        from clip_seg_ros.tools.evaluate_edges import run_label_edges

        return run_label_edges(args)
    wrong = _wrong_call(args)
    if wrong:
        print(f"clip-seg evaluate: {wrong}", file=sys.stderr)
        return 2
    if args.data is not None and args.protocol == "alignment":
        from clip_seg_ros.tools.evaluate_alignment import run_alignment

        return run_alignment(args)
    if args.data is not None:
        # The import is not at the top, because the suite does not need the readers of data sets.
        from clip_seg_ros.tools.evaluate_datasets import run_dataset

        return run_dataset(args)
    return _run_suite(args)


def _wrong_call(args: argparse.Namespace) -> str | None:
    """Returns what is wrong with the arguments, or ``None``."""
    of_suite = {
        "--suite": args.suite,
        "--scenes": args.scenes,
        "--parts": args.parts,
        "--pictures": args.pictures,
        "--sequences": args.sequences,
        "--frames": args.frames,
        "--refine-edges": args.refine_edges or None,
    }
    of_data = {
        "--model": args.model if args.parts != ["phrases"] and args.suite != "clicks" else None,
        "--protocol": args.protocol,
        "--limit": args.limit,
        "--prompt": args.prompt,
        "--text-weight": args.text_weight,
        "--multi-scale": args.multi_scale or None,
        "--names": args.names,
        "--background-phrases": args.background_phrases,
        "--unseen": args.unseen,
        "--corruption": args.corruption,
        "--page": args.page,
    }
    strange = [name for name, value in (of_suite if args.data else of_data).items() if value is not None]
    if strange:
        belongs = "measures held-out scenes: leave --data out" if args.data else "needs a data set: give --data"
        return f"{strange[0]} {belongs}"
    of_other = {
        "sequences": ("--scenes", "--parts", "--pictures", "--refine-edges"),
        "edges": ("--parts", "--sequences", "--frames", "--refine-edges"),
        "instances": ("--parts", "--sequences", "--frames", "--refine-edges"),
        "clicks": ("--parts", "--sequences", "--frames", "--refine-edges"),
        "relations": ("--parts", "--sequences", "--frames", "--refine-edges"),
        "memory": ("--scenes", "--parts", "--pictures", "--frames", "--refine-edges"),
    }.get(args.suite, ("--sequences", "--frames"))
    if others := [name for name in of_other if of_suite[name] is not None]:
        return f"{others[0]} is for the other suite, not for --suite {args.suite or 'embedded'}"
    if args.templates and args.data is None and args.parts != ["phrases"]:
        return "--templates is for --parts phrases, or for --data"
    if args.refine_edges and args.parts != ["phrases"]:
        return "--refine-edges is for --parts phrases alone"
    for name in ("--sequences", "--frames"):
        if of_suite[name] is not None and of_suite[name] < 1:
            return f"{name} must be at least 1, got {of_suite[name]}"
    available = len(tabletop.TEST_SEEDS)
    if args.scenes is not None and not 1 <= args.scenes <= available:
        return f"--scenes must lie in 1..{available}, got {args.scenes}"
    if args.threshold is not None and not 0.0 <= args.threshold <= 1.0:
        return f"--threshold must lie in 0..1, got {args.threshold}"
    # The files are checked now rather than after minutes of measuring.
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        return f"{args.json} cannot be written: name a file in a folder that exists"
    if args.pictures and args.pictures.exists() and not args.pictures.is_dir():
        return f"{args.pictures} is a file: --pictures names a folder"
    return None


def _run_suite(args: argparse.Namespace) -> int:
    try:
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
        figures, asked = _SUITES.get(args.suite, _embedded)(args)
    except (WeightsError, RendererUnavailable, ValueError, OSError) as error:
        print(f"clip-seg evaluate: {error}", file=sys.stderr)
        return 1
    print(figure_table(figures))
    if args.json:
        args.json.write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")
    if args.pictures:
        for name, picture in ((name, shown) for each in asked for name, shown in each.pictures().items()):
            write_picture(args.pictures / f"{name}.jpg", picture)
    return 0


def _clipseg(args: argparse.Namespace, name: str = "clipseg-pocket") -> Predictor:
    predictor = Predictor.from_name(name, args.device, args.weights, args.precision, args.engine)
    complain("clip-seg evaluate", predictor.chosen)
    return with_antialias(predictor, antialias_of(args))


def _edges(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    asked: list[Examiner] = [EdgeExaminer(_clipseg(args), 0.5 if args.threshold is None else args.threshold)]
    return _on_scenes(args, asked), asked


def _instances(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    threshold = 0.5 if args.threshold is None else args.threshold
    asked: list[Examiner] = [SeparationExaminer(_clipseg(args), Separator.load(args.weights), threshold)]
    return _on_scenes(args, asked, touching=True), asked


def _clicks(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    asked: list[Examiner] = [ClickExaminer(_clipseg(args, args.model or "clipseg-pocket"))]
    return _on_scenes(args, asked), asked


def _relations(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    threshold = FAINT if args.threshold is None else args.threshold
    asked = RelationsExaminer(_clipseg(args), Separator.load(args.weights), threshold)
    seeds = tabletop.held_out_seeds(args.scenes or len(tabletop.TEST_SEEDS))
    return run_relations(asked, seeds, lambda items: tqdm(items, desc="scenes", mininterval=1.0)), [asked]


def _on_scenes(args: argparse.Namespace, asked: list[Examiner], touching: bool = False) -> list[Figure]:
    seeds = tabletop.held_out_seeds(args.scenes or len(tabletop.TEST_SEEDS))
    return run_suite(asked, seeds, lambda items: tqdm(items, desc="scenes", mininterval=1.0), touching)


def _sequences(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    predictor = _clipseg(args)
    count, frames = args.sequences or _SEQUENCES, args.frames or _FRAMES
    return run_sequences(predictor, count, frames, lambda seeds: tqdm(seeds, desc="sequences")), []


def _memory(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    predictor, separator = _clipseg(args), Separator.load(args.weights)
    count = args.sequences or _SEQUENCES
    return run_recollection(predictor, separator, count, lambda seeds: tqdm(seeds, desc="sequences")), []


def _embedded(args: argparse.Namespace) -> tuple[list[Figure], list[Examiner]]:
    if args.parts == ["phrases"] and (args.model or args.refine_edges or args.templates):
        predictor = with_templates(_clipseg(args, args.model or "clipseg-pocket"), templates_of(args))
        threshold = predictor.spec.threshold if args.threshold is None else args.threshold
        asked: list[Examiner] = [PhraseExaminer(predictor, threshold, refine_edges=args.refine_edges)]
        return _on_scenes(args, asked), asked
    parts = args.parts or parts_there(args.weights)
    if not parts:
        raise WeightsError(f"{args.weights or 'the folder of the package'} holds the weights of no embedded model")
    for part in PARTS if not args.parts else ():
        if part not in parts:
            print(f"left out: {part}, for the weights of {' and '.join(PARTS[part])} are not all there")
    threshold = 0.5 if args.threshold is None else args.threshold
    asked = examiners(parts, args.device, args.weights, threshold, args.precision, args.engine, antialias_of(args))
    return _on_scenes(args, asked), asked


_SUITES = {
    "sequences": _sequences,
    "edges": _edges,
    "instances": _instances,
    "clicks": _clicks,
    "relations": _relations,
    "memory": _memory,
}
"""The suites by their names; all others are of the embedded models."""
