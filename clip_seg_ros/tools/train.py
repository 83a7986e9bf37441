# SPDX-License-Identifier: Apache-2.0
"""``clip-seg train CONFIG``: trains a model, from rendered scenes or from a data set, and writes its weights."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.tools.scenes import training_scenes
from clip_seg_ros.training import distributed
from clip_seg_ros.training.methods import DATA_METHODS, METHODS, TrainConfig, build_recipe
from clip_seg_ros.training.runner import Runner, Stage

_FAULTS = (
    DataError,
    WeightsError,
    RendererUnavailable,
    OSError,
    ValueError,
    FloatingPointError,
    distributed.ProcessLost,
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``train`` subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a model, from rendered scenes or from a data set",
        description="Trains what the recipe names and writes its weights. Recipes for the embedded models render their "
        "scenes first. Stopped at any moment, the same command goes on where it was. Under torchrun, several "
        "processes share the work.",
    )
    parser.add_argument("config", type=Path, help="recipe, e.g. config/train_pocket.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder that the weights are written to")
    parser.add_argument("--work", type=Path, required=True, help="folder for rendered scenes and the training state")
    parser.add_argument("--device", default="auto", help="auto (CUDA if there is any), cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: all)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains and writes the weights; returns the exit code, 2 for a recipe that cannot be used."""
    if args.threads:
        torch.set_num_threads(args.threads)
    # Denormal numbers would make this kind of training several times slower on a CPU.
    torch.set_flush_denormal(True)
    try:
        config = TrainConfig.from_mapping(yaml.safe_load(args.config.read_text()))
        config.check()
    except (OSError, yaml.YAMLError, ValueError) as error:
        print(f"clip-seg train: the recipe {args.config} cannot be used: {error}", file=sys.stderr)
        return 2
    try:
        with distributed.joined(resolve_device(args.device)) as device:
            _train(args.work, args.out, config, device)
    except _FAULTS as error:
        print(f"clip-seg train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"clip-seg train: stopped; the same command goes on with what is in {args.work}", file=sys.stderr)
        return 130
    return 0


def _train(work: Path, out: Path, config: TrainConfig, device: torch.device) -> None:
    scenes = None
    if config.method not in DATA_METHODS:
        scenes = training_scenes(work / "scenes", config.scenes, METHODS[config.method].arrangements)
    recipe = build_recipe(config, scenes, device)
    runner = Runner(recipe.module, work / "state.pt", config.seed, repr(config), log_dir=work / "log")
    for stage in recipe.stages():
        _warn_of_warmup(stage)
        runner.run(stage)
    for path in recipe.save(out):
        print(f"weights written to {path}")
    if distributed.rank() == 0:
        record = out / f"{config.name or config.method}.json"
        record.write_text(json.dumps(_record(config, runner.seconds, device), indent=2, default=str) + "\n")


def _warn_of_warmup(stage: Stage) -> None:
    """Says so if the learning rate still rises at the end of a stage, as in a short run with the authors' warm-up."""
    if stage.warmup.steps >= stage.steps and distributed.rank() == 0:
        share = stage.warmup.share(stage.steps - 1)
        print(
            f"note: the learning rate rises for {stage.warmup.steps} steps, and there are {stage.steps}: it gets to "
            f"{share * stage.learning_rate:.1g} instead of {stage.learning_rate:g}. For a short run, set warmup"
        )


def _record(config: TrainConfig, seconds: dict[str, float], device: torch.device) -> dict[str, object]:
    """Returns the facts about a training for a model card."""
    processor = f"{torch.get_num_threads()} threads, {platform.machine()}"
    return {
        "config": asdict(config),
        "seconds": {stage: round(spent) for stage, spent in seconds.items()},
        "processes": distributed.world_size(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "torch": torch.__version__,
    }
