# SPDX-License-Identifier: Apache-2.0
"""Draws what the models make of real photographs, for the page "Photographs": python docs/tools/draw_photographs.py

The photographs come in packages of the Python index, which are downloaded and not installed. Nothing of them is checked
in: the pictures and what the site's page says of them go to docs/photographs, which git ignores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.api import EmbeddedWeightsWarning, Predictor, Question, WeightsError, answer, draw
from clip_seg_ros.config import FOR_CLASSES, FOR_PHRASES
from clip_seg_ros.types import ObjectRegion
from clip_seg_ros.zoo.caution import in_corner
from clip_seg_ros.zoo.factory import first_there

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "photographs"
SECTION = "answers.txt"
"""What docs/tools/site_hooks.py puts into the page."""
PACKAGES = ROOT / "env" / "requirements-photographs.txt"
MODELS = (FOR_PHRASES, (FOR_CLASSES[0], "maskclip-pocket"))
"""Of each kind the model that is drawn: the first one whose weights are there."""
MIN_AREA_FRACTION = 0.002
"""The smallest object, as the nodes have it by default."""


class NoPhotographs(Exception):
    """The photographs cannot be had; the message says why."""


@dataclass(frozen=True)
class Photograph:
    """A photograph in a package, and what is asked about it."""

    package: str
    """How the name of the wheel begins."""
    path: str
    """Its place in the wheel."""
    title: str
    credit: str
    """Whose it is, and its licence, as the package says."""
    phrases: tuple[str, ...]
    """The last one names nothing that is in the photograph."""

    @property
    def name(self) -> str:
        return Path(self.path).stem


SKIMAGE, SKLEARN = ("scikit_image", "skimage/data"), ("scikit_learn", "sklearn/datasets/images")
PHOTOGRAPHS = (
    Photograph(
        SKIMAGE[0],
        f"{SKIMAGE[1]}/coffee.png",
        "A cup of coffee",
        "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0",
        ("cup", "plate", "spoon", "table", "book"),
    ),
    Photograph(
        SKIMAGE[0],
        f"{SKIMAGE[1]}/chelsea.png",
        "A cat",
        "Stefan van der Walt; CC0",
        ("cat", "orange object", "box"),
    ),
    Photograph(
        SKIMAGE[0],
        f"{SKIMAGE[1]}/astronaut.png",
        "An astronaut",
        "NASA; no known copyright restrictions",
        ("astronaut", "helmet", "flag", "white bottle"),
    ),
    Photograph(
        SKIMAGE[0],
        f"{SKIMAGE[1]}/rocket.jpg",
        "A rocket",
        "SpaceX; released into the public domain",
        ("rocket", "tower", "blue ball"),
    ),
    Photograph(
        SKLEARN[0],
        f"{SKLEARN[1]}/china.jpg",
        "A tower above a lake",
        "danielbuechele, on Flickr; CC BY 2.0. Outlines, names and scores were drawn into it",
        ("building", "tree", "sky", "red cup"),
    ),
)


@dataclass(frozen=True)
class Drawn:
    """A photograph with the answers of one model."""

    model: str
    picture: np.ndarray
    """(H, W, 3) uint8 RGB."""
    lines: tuple[str, ...]
    """What was found, a line for each phrase."""


def fetch(folder: Path) -> None:
    """Downloads the wheels of the packages to ``folder``. Raises NoPhotographs if there is no way to them."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder), "-r", str(PACKAGES)]
    found = subprocess.run([*pip, "download", *options], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        said = [line for line in found.stderr.splitlines() if line.startswith("ERROR")] or found.stderr.splitlines()
        raise NoPhotographs(f"pip cannot download {PACKAGES.name}: {said[-1] if said else 'it does not say why'}")


def read(photograph: Photograph, folder: Path) -> np.ndarray:
    """Returns the pixels, (H, W, 3) uint8 RGB, out of a wheel in ``folder``; raises NoPhotographs without it."""
    for wheel in sorted(folder.glob(f"{photograph.package}-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if photograph.path in archive.namelist():
                data = np.frombuffer(archive.read(photograph.path), np.uint8)
                bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
                if bgr is not None:
                    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    raise NoPhotographs(f"no wheel of {photograph.package} in {folder} has the picture {photograph.path}")


def drawn(predictor: Predictor, rgb: np.ndarray, phrases: tuple[str, ...]) -> Drawn:
    """Asks a model about a photograph, as the node ``referring`` does."""
    spec = predictor.spec
    found = answer(predictor, predictor.encode(rgb), Question(phrases, min_area_fraction=MIN_AREA_FRACTION))
    lines = []
    for phrase in phrases:
        regions = [region for region in found.regions if region.prompt == phrase]
        unknown = spec.unknown_words(phrase)
        note = f" (these weights never learnt {' and '.join(map(repr, unknown))})" if unknown else ""
        lines.append(f"{phrase}: {_of(regions, rgb)}{note}")
    return Drawn(spec.name, draw(rgb, found.regions, phrases, corner=in_corner(spec)), tuple(lines))


def _of(regions: Sequence[ObjectRegion], rgb: np.ndarray) -> str:
    if not regions:
        return "not found"
    share = sum(region.area_px for region in regions) / (rgb.shape[0] * rgb.shape[1])
    scores = ", ".join(f"{region.score:.2f}" for region in regions[:3])
    more = f" and {len(regions) - 3} more" if len(regions) > 3 else ""
    return f"{scores}{more}; {100 * share:.0f} % of the picture"


def section(photograph: Photograph, answers: Sequence[Drawn]) -> str:
    """Returns what the page says of one photograph, in Markdown."""
    asked = ", ".join(f'"{phrase}"' for phrase in photograph.phrases)
    pictures = [
        f"![{photograph.title}, and what {one.model} finds in it]({FOLDER.name}/{picture_name(photograph, one)})"
        for one in answers
    ]
    texts = ["<br>".join(one.lines) for one in answers]
    rows = ([f"`{one.model}`" for one in answers], ["---"] * len(answers), pictures, texts)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {photograph.title}\n\nAsked: {asked}. Photograph: {photograph.credit}.\n\n{table}\n"


def picture_name(photograph: Photograph, one: Drawn) -> str:
    return f"{photograph.name}-{one.model}.jpg"


def head(predictors: Sequence[Predictor]) -> str:
    """Returns whose answers these are, and what they are worth."""
    embedded = [one.spec.name for one in predictors if one.spec.for_real_pictures]
    others = [one.spec.name for one in predictors if not one.spec.for_real_pictures]
    lines = []
    if embedded:
        lines.append(
            f"{_named(embedded)} {_know(embedded)} one rendered table and nothing else. What is outlined below is "
            "nonsense, and the scores do not show it."
        )
    if others:
        lines.append(f"{_named(others)} {_know(others)} photographs, and answered with the weights on this machine.")
    return " ".join(lines) + "\n"


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _know(names: Sequence[str]) -> str:
    return "knows" if len(names) == 1 else "know"


def write(folder: Path, wheels: Path, models: Sequence[str], photographs: Sequence[Photograph] = PHOTOGRAPHS) -> None:
    """Draws all photographs and writes pictures and text to ``folder``, all of them or none.

    Args:
        folder: Where they go; what is there is replaced.
        wheels: The folder with the wheels.
        models: Names of models for any phrase, as ``Predictor.from_name`` takes them.
        photographs: Which ones.

    Raises:
        NoPhotographs: A photograph is not in the wheels.
        WeightsError, ValueError: A model cannot be had.
    """
    pictures = [read(photograph, wheels) for photograph in photographs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbeddedWeightsWarning)  # the page says it
        # PyTorch in float32, so that the page is the same on every machine.
        predictors = [Predictor.from_name(name, "cpu", engine="eager", precision="float32") for name in models]
    sections, made = [head(predictors)], {}
    for photograph, rgb in zip(photographs, pictures, strict=True):
        answers = [drawn(predictor, rgb, photograph.phrases) for predictor in predictors]
        made.update((picture_name(photograph, one), one.picture) for one in answers)
        sections.append(section(photograph, answers))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, picture in made.items():
        cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    (folder / SECTION).write_text("\n".join(sections), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    there = [first_there(names) for names in MODELS]
    parser.add_argument(
        "--models",
        nargs="+",
        default=there,
        metavar="NAME",
        help=f"models for any phrase (default: the published weights if they are there, else the embedded: {there})",
    )
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="a folder with the wheels, instead of a download")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            if args.wheels is None:
                fetch(Path(temporary))
            write(FOLDER, args.wheels or Path(temporary), args.models)
    except (NoPhotographs, WeightsError, ValueError) as error:
        print(f"draw_photographs: {error}", file=sys.stderr)
        return 1
    print(f"draw_photographs: {len(PHOTOGRAPHS)} photographs, asked of {' and '.join(args.models)}, are in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
