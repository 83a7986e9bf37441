"""The suite of the embedded weights: who is asked what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from clip_seg_ros import resources
from clip_seg_ros.evaluation.embedded import PhraseExaminer
from clip_seg_ros.evaluation.embedded_classes import ClassExaminer
from clip_seg_ros.evaluation.embedded_examples import ExampleExaminer
from clip_seg_ros.evaluation.embedded_relations import RelationExaminer
from clip_seg_ros.evaluation.suite import Examiner
from clip_seg_ros.models.factory import build_maskclip_pocket
from clip_seg_ros.pipeline.predictor import Predictor

PARTS = ("phrases", "examples", "relations", "classes", "maskclip")
KEY_SMOOTHING, PROMPT_DENOISING = 1.0, 0.5
"""The thresholds of MaskCLIP's authors."""


def examiners(parts: Sequence[str], device: str, weights_dir: Path | None, threshold: float = 0.5) -> list[Examiner]:
    """Makes the examiners of the chosen ``PARTS``, each with its models.

    Args:
        parts: ``phrases`` and ``examples`` ask CLIPSeg, ``relations`` CRIS and CLIPSeg, ``classes`` DenseCLIP and
            MaskCLIP+, ``maskclip`` MaskCLIP in all its variants.
        device: as ``resolve_device`` takes it.
        weights_dir: folder of the weights; ``None`` for the shipped ones.
        threshold: of CLIPSeg's answers.

    Raises:
        WeightsError: a weight file is missing or damaged.
        ValueError: there is no such device.
    """
    folder = weights_dir or resources.weights_dir()

    def predictor(name: str) -> Predictor:
        return Predictor.from_name(name, device, folder)

    makers: dict[str, Callable[[], Examiner]] = {
        "phrases": lambda: PhraseExaminer(predictor("clipseg-pocket"), threshold),
        "examples": lambda: ExampleExaminer(predictor("clipseg-pocket"), threshold),
        "relations": lambda: RelationExaminer(
            {"cris": (cris := predictor("cris-pocket"), cris.model.threshold),
             "clipseg": (predictor("clipseg-pocket"), threshold)}
        ),
        "classes": lambda: ClassExaminer(
            {"denseclip": predictor("denseclip-pocket"), "maskclip_plus": predictor("maskclip-plus-pocket")}
        ),
        "maskclip": lambda: ClassExaminer(_maskclips(folder, device)),
    }  # fmt: skip
    return [makers[part]() for part in PARTS if part in parts]


def _maskclips(folder: Path, device: str) -> dict[str, Predictor]:
    """MaskCLIP on both towers, with its refinements one by one, and its successors on the ViT."""
    plain = {"pamr_iterations": 0}
    variants = {}
    for tower in ("resnet", "vit"):
        variants |= {
            f"maskclip.{tower}.plain": (tower, plain),
            f"maskclip.{tower}.key_smoothing": (tower, {**plain, "key_smoothing": KEY_SMOOTHING}),
            f"maskclip.{tower}.prompt_denoising": (tower, {**plain, "prompt_denoising": PROMPT_DENOISING}),
            f"maskclip.{tower}.both": (
                tower, {**plain, "key_smoothing": KEY_SMOOTHING, "prompt_denoising": PROMPT_DENOISING}
            ),
            f"maskclip.{tower}.pamr": (tower, {}),
        }  # fmt: skip
    for variant in ("sclip", "clearclip", "naclip"):
        variants[f"maskclip.vit.{variant}"] = ("vit", {**plain, "variant": variant})
    return {
        name: Predictor(build_maskclip_pocket(folder, tower, **options).eval(), device)
        for name, (tower, options) in variants.items()
    }
