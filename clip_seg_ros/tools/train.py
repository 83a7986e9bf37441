"""``clip-seg train CONFIG``: renders the training scenes, trains the embedded weights and writes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from clip_seg_ros.data import tabletop
from clip_seg_ros.evaluation.embedded import evaluate_embedded, summarise
from clip_seg_ros.evaluation.pictures import answer_grid, write_picture
from clip_seg_ros.pipeline.predictor import Predictor, resolve_device
from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.training.card import PICTURE_NAME, write_card
from clip_seg_ros.training.pocket import PocketSettings, PocketTrainer, save_pocket
from clip_seg_ros.training.runner import Runner


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``train`` subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train the embedded weights from rendered scenes",
        description="Renders scenes, trains a small CLIP and CLIPSeg's decoder on it, and writes both as safetensors. "
        "Stopped at any moment, the same command goes on where it was. Ends by measuring them and writing their card.",
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
    # Numbers too small to matter slow this kind of training several times over on a CPU.
    torch.set_flush_denormal(True)
    try:
        settings = PocketSettings.from_mapping(yaml.safe_load(args.config.read_text()))
    except (OSError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        print(f"clip-seg train: the recipe {args.config} cannot be used: {error}", file=sys.stderr)
        return 2
    try:
        _train(args.work, args.out, settings, resolve_device(args.device))
    except (RendererUnavailable, OSError, ValueError, FloatingPointError) as error:
        print(f"clip-seg train: {error}", file=sys.stderr)
        return 1
    return 0


def _train(work: Path, out: Path, settings: PocketSettings, device: torch.device) -> None:
    folder = work / "scenes"
    with tqdm(total=settings.scenes, desc="render", unit="scene") as bar:
        for ready in tabletop.render_training_scenes(folder, settings.scenes, workers=torch.get_num_threads()):
            bar.update(min(ready, settings.scenes) - bar.n)
    trainer = PocketTrainer(settings, tabletop.load_training_scenes(folder, settings.scenes)).to(device)
    runner = Runner(trainer, work / "state.pt", settings.seed, repr(settings))
    trainer.run(runner)
    save_pocket(trainer, out)
    print(f"weights written to {out}; measuring them on scenes that training never saw")
    # As they are on disk, in half precision.
    predictor = Predictor.from_name("clipseg-pocket", str(device), out)
    questions = evaluate_embedded(
        predictor, tabletop.TEST_SEEDS, progress=lambda seeds: tqdm(seeds, desc="measure", mininterval=1.0)
    )
    write_picture(out / PICTURE_NAME, answer_grid(predictor, questions, threshold=0.5))
    write_card(
        out / "clipseg_pocket.md",
        settings,
        summarise(questions),
        runner.seconds,
        tuple(sum(p.numel() for p in part.parameters()) for part in (trainer.model.clip, trainer.model.decoder)),
        sum(file.stat().st_size for file in out.glob("*.safetensors")),
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} processor threads",
    )
    print(f"figures written to {out / 'clipseg_pocket.md'}")
