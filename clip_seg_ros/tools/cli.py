# SPDX-License-Identifier: Apache-2.0
"""The command ``clip-seg``."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from clip_seg_ros.runtime.chosen import EngineWarning
from clip_seg_ros.zoo.caution import EmbeddedWeightsWarning

# This maps names to help texts; the module clip_seg_ros.tools.<name> adds the arguments and runs the command.
COMMANDS: dict[str, str] = {
    "demo": "watch the simulated robot camera find what you name",
    "render": "render a folder of pictures, masks and phrases, an example to train on",
    "record": "record cameras over a rendered table with the exact truth, as an MCAP bag",
    "segment": "find what you name in pictures, a video, a webcam or a bag",
    "view": "see pictures, a video, a webcam or a bag answered live in the browser, without ROS",
    "say": "give a running node a command, and print its answers",
    "watch": "print what running nodes answer and find, as it changes",
    "mcp": "serve running nodes to an assistant, as tools of the Model Context Protocol",
    "train": "train a model, from rendered scenes or from a data set",
    "annotate": "make a data set of recordings: masks of what you name, without labelling",
    "review": "look at what annotate found, the doubtful first, and decide about it in the browser",
    "distill": "teach a small, fast network your classes from your pictures, without labels",
    "calibrate": "fit a model's threshold and probabilities to your pictures",
    "evaluate": "measure how well a model does",
    "bench": "time the models",
    "rehearse": "try out downloading and serving weights of the published size, without the network",
    "export": "write a model as ONNX, which TensorRT reads, too, or for OpenVINO",
    "weights": "list, download, convert and verify published weights",
    "cache": "show what the package keeps on the disk, and remove it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``clip-seg`` with ``argv`` (default: the command line) and returns the exit code, 130 after Ctrl-C."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("clip-seg: stopped", file=sys.stderr)
        return 130


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line without the program's name; ``args.run(args)`` runs it. Exits with 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="clip-seg", description="Language-guided segmentation for robots.")
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        # Only the module of the requested command is imported, because help and the demo need no torch.
        if name in argv[:1]:
            importlib.import_module(f"clip_seg_ros.tools.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser.parse_args(argv)


def _run(argv: Sequence[str]) -> int:
    args = parse(argv)
    # The commands give these warnings in their own words if they matter.
    for known in (EmbeddedWeightsWarning, EngineWarning):
        warnings.simplefilter("ignore", known)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
