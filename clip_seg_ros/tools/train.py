"""``clip-seg train CONFIG``: renders the training scenes, trains the embedded weights and writes them."""

from __future__ import annotations

import argparse
from pathlib import Path


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
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: all)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains and writes the weights; returns the exit code."""
    import torch
    import yaml
    from tqdm import tqdm

    from clip_seg_ros.data.tabletop import TEST_SEEDS, load_training_scenes, render_training_scenes
    from clip_seg_ros.evaluation.embedded import evaluate_embedded, summarise
    from clip_seg_ros.pipeline.predictor import Predictor
    from clip_seg_ros.training.card import write_card
    from clip_seg_ros.training.pocket import PocketSettings, PocketTrainer, save_pocket
    from clip_seg_ros.training.runner import Runner

    if args.threads:
        torch.set_num_threads(args.threads)
    # Numbers too small to matter slow this kind of training several times over on a CPU.
    torch.set_flush_denormal(True)
    settings = PocketSettings.from_mapping(yaml.safe_load(args.config.read_text()))
    scenes_folder = args.work / "scenes"
    with tqdm(total=settings.scenes, desc="render", unit="scene") as bar:
        for ready in render_training_scenes(scenes_folder, settings.scenes, workers=torch.get_num_threads()):
            bar.update(min(ready, settings.scenes) - bar.n)
    trainer = PocketTrainer(settings, load_training_scenes(scenes_folder, settings.scenes))
    runner = Runner(trainer, args.work / "state.pt", settings.seed)
    trainer.run(runner)
    save_pocket(trainer, args.out)
    print(f"weights written to {args.out}; measuring them on scenes that training never saw")
    questions = evaluate_embedded(Predictor(trainer.model), TEST_SEEDS, progress=lambda seeds: tqdm(seeds, desc="measure"))
    write_card(
        args.out / "clipseg_pocket.md",
        settings,
        summarise(questions),
        runner.seconds,
        tuple(sum(p.numel() for p in part.parameters()) for part in (trainer.model.clip, trainer.model.decoder)),
        sum(file.stat().st_size for file in args.out.glob("*.safetensors")),
        torch.get_num_threads(),
    )
    print(f"figures written to {args.out / 'clipseg_pocket.md'}")
    return 0
