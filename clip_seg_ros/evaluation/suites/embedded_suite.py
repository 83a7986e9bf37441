# SPDX-License-Identifier: Apache-2.0
"""The suite of the embedded weights: its parts and their models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from clip_seg_ros import resources
from clip_seg_ros.data.tabletop_classes import UNSEEN_KINDS
from clip_seg_ros.evaluation.answers import with_antialias
from clip_seg_ros.evaluation.suite import Examiner
from clip_seg_ros.evaluation.suites.embedded import PhraseExaminer
from clip_seg_ros.evaluation.suites.embedded_classes import ClassExaminer
from clip_seg_ros.evaluation.suites.embedded_examples import ExampleExaminer
from clip_seg_ros.evaluation.suites.embedded_instances import InstanceExaminer
from clip_seg_ros.evaluation.suites.embedded_relations import RelationExaminer
from clip_seg_ros.models.maskclip.dense_attention import LAST_BLOCK_VARIANTS, VARIANTS
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.embedded import build_maskclip_pocket, embedded_models

PARTS: dict[str, tuple[str, ...]] = {
    "phrases": ("clipseg-pocket",),
    "examples": ("clipseg-pocket",),
    "relations": ("cris-pocket", "clipseg-pocket"),
    "classes": ("denseclip-pocket",),
    "instances": ("denseclip-instances-pocket", "denseclip-pocket"),
    "maskclip": ("maskclip-pocket",),
    "maskclip_vit": ("maskclip-vit-pocket",),
    "maskclip_plus": ("maskclip-plus-pocket",),
    "maskclip_plus_zero_shot": ("maskclip-plus-zero-shot-pocket",),
}
"""The models that each part evaluates."""
KEY_SMOOTHING, PROMPT_DENOISING = 1.0, 0.5
"""The thresholds that MaskCLIP's authors use."""


def examiners(
    parts: Sequence[str],
    device: str,
    weights_dir: Path | None,
    threshold: float = 0.5,
    precision: str = "float32",
    engine: str = "eager",
    antialias: bool | None = None,
) -> list[Examiner]:
    """Makes the examiners of the chosen ``PARTS``, each with its models.

    Args:
        parts: Names of the parts. ``phrases`` and ``examples`` evaluate CLIPSeg, ``relations`` CRIS and CLIPSeg,
            ``classes`` DenseCLIP, ``instances`` its detector, ``maskclip`` and ``maskclip_vit`` MaskCLIP in all its
            variants, ``maskclip_plus`` the network that learnt from it, and ``maskclip_plus_zero_shot`` one that had
            true labels of all classes but two.
        device: Name of the device, as for ``resolve_device``.
        weights_dir: Folder of the weights; ``None`` for the embedded ones.
        threshold: Probability above which a pixel belongs to CLIPSeg's answer.
        precision: What the models compute in, and
        engine: what runs them, as for ``Predictor.from_name``. The figures of the weights are those of the defaults.
            The variants of MaskCLIP are always run by these.
        antialias: Whether images are smoothed before they shrink; ``None``: as each model says.

    Raises:
        WeightsError: A weight file is missing or damaged.
        ValueError: The device does not exist.
    """
    folder = weights_dir or resources.weights_dir()

    def predictor(name: str) -> Predictor:
        return with_antialias(Predictor.from_name(name, device, folder, precision, engine), antialias)

    def maskclips(tower: Literal["resnet", "vit"]) -> dict[str, Predictor]:
        found = _maskclips(folder, tower, device)
        return {variant: with_antialias(one, antialias) for variant, one in found.items()}

    makers: dict[str, Callable[[], Examiner]] = {
        "phrases": lambda: PhraseExaminer(predictor("clipseg-pocket"), threshold),
        "examples": lambda: ExampleExaminer(predictor("clipseg-pocket"), threshold),
        "relations": lambda: RelationExaminer(
            {
                "cris": (cris := predictor("cris-pocket"), cris.spec.threshold),
                "clipseg": (predictor("clipseg-pocket"), threshold),
            }
        ),
        "classes": lambda: ClassExaminer({"denseclip": predictor("denseclip-pocket")}),
        "instances": lambda: InstanceExaminer(predictor("denseclip-instances-pocket"), predictor("denseclip-pocket")),
        "maskclip": lambda: ClassExaminer(maskclips("resnet")),
        "maskclip_vit": lambda: ClassExaminer(maskclips("vit")),
        "maskclip_plus": lambda: ClassExaminer({"maskclip_plus": predictor("maskclip-plus-pocket")}),
        "maskclip_plus_zero_shot": lambda: ClassExaminer(
            {"maskclip_plus.zero_shot": predictor("maskclip-plus-zero-shot-pocket")}, unseen=UNSEEN_KINDS
        ),
    }
    return [makers[part]() for part in PARTS if part in parts]


def parts_there(weights_dir: Path | None) -> list[str]:
    """Returns the ``PARTS`` whose models all have weights in a folder; ``None`` stands for that of the package."""
    there = embedded_models(weights_dir)
    return [part for part, models in PARTS.items() if set(models) <= set(there)]


def _maskclips(folder: Path, tower: Literal["resnet", "vit"], device: str) -> dict[str, Predictor]:
    """Returns MaskCLIP with each of its refinements, and its successors."""
    plain = {"pamr_iterations": 0}
    smooth, denoised = {"key_smoothing": KEY_SMOOTHING}, {"prompt_denoising": PROMPT_DENOISING}
    successors = (LAST_BLOCK_VARIANTS if tower == "resnet" else VARIANTS)[1:]  # the first is MaskCLIP itself
    variants: dict[str, dict[str, Any]] = {
        "plain": plain,
        "key_smoothing": plain | smooth,
        "prompt_denoising": plain | denoised,
        "both": plain | smooth | denoised,
        "pamr": {},
        **{variant: plain | {"variant": variant} for variant in successors},
    }
    return {
        f"maskclip.{tower}.{name}": Predictor.from_model(build_maskclip_pocket(folder, tower, **options).eval(), device)
        for name, options in variants.items()
    }
