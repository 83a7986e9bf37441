# SPDX-License-Identifier: Apache-2.0
"""The small models of the package: their names, their files and what was trained on the simulated table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors
from clip_seg_ros.models.clip.backbone import ClipConfig
from clip_seg_ros.models.maskclip.model import MaskCLIPConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.zoo.build import StoredModel, read_whole
from clip_seg_ros.zoo.embedded_files import EMBEDDED_FILES, missing_files


def _read_clipseg_pocket(weights_dir: Path) -> StoredModel:
    clip_path = weights_dir / "clip_pocket.safetensors"
    decoder_path = weights_dir / "clipseg_pocket.safetensors"
    clip_tensors, clip_values = load_safetensors(clip_path)
    decoder_tensors, decoder_values = load_safetensors(decoder_path)
    origin = f"{clip_path} and {decoder_path.name}"
    try:
        # The figures in the model card were measured with this threshold.
        config = {"kind": "clipseg", "clipseg": decoder_values, "threshold": 0.5, **pocket_clip_config(clip_values)}
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"the configuration in {clip_path} does not describe a model of this version ({error}): "
            "restore the file or train it again with `clip-seg train`"
        ) from error
    tensors = {f"clip.{key}": value for key, value in clip_tensors.items()}
    tensors |= {f"decoder.{key}": value for key, value in decoder_tensors.items()}
    return StoredModel(config, tensors, origin)


def pocket_clip_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``clip`` and ``tokenizer`` parts of a model's configuration from that of the embedded CLIP's file."""
    context_length = ClipConfig.from_dict(values["clip"]).text.context_length
    tokenizer = {"kind": "compact", "known_words": values["known_words"], "context_length": context_length}
    return {"clip": values["clip"], "tokenizer": tokenizer}


def build_maskclip_pocket(
    weights_dir: Path, tower: Literal["resnet", "vit"] = "resnet", name: str = "maskclip-pocket", **options: Any
) -> PromptableSegmenter:
    """Builds a MaskCLIP on one of the embedded CLIPs.

    Args:
        weights_dir: Folder of the weight files.
        tower: The CLIP: ``clip_pocket`` or ``clip_vit_pocket``.
        name: Name of the model.
        **options: Fields of ``MaskCLIPConfig`` to change.

    Raises:
        WeightsError: The file is missing, damaged or of another version.
    """
    return _read_maskclip_pocket(weights_dir, tower, **options).build(name)


def _read_maskclip_pocket(weights_dir: Path, tower: Literal["resnet", "vit"], **options: Any) -> StoredModel:
    path = weights_dir / ("clip_pocket.safetensors" if tower == "resnet" else "clip_vit_pocket.safetensors")
    tensors, clip_values = load_safetensors(path)
    try:
        own = MaskCLIPConfig(
            **{
                "input_spec": POCKET_SPECS[tower],
                "templates": ("{}",),  # they learnt phrases without templates, and a few templates change nothing
                "background": ("table", "floor"),  # their world has nothing else besides objects
                "logit_scale": float(tensors.pop("logit_scale").exp()),
                "pamr_iterations": 10,
                **options,
            }
        )
        config = {"kind": "maskclip", "maskclip": own.to_dict(), **pocket_clip_config(clip_values)}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configuration in {path} does not describe a model of this version ({error}): "
            "restore the file or train it again with `clip-seg train`"
        ) from error
    if tower == "resnet":
        tensors.pop("visual.attnpool.positional_embedding", None)  # dense labels do not use positions
    tensors = {key if key.startswith("visual.") else f"text.{key}": value for key, value in tensors.items()}
    return StoredModel(config, tensors, str(path))


POCKET_SPECS = {
    "resnet": InputSpec(192, "short_side", 16, IMAGENET_MEAN, IMAGENET_STD),
    "vit": InputSpec(192, "short_side", 8, IMAGENET_MEAN, IMAGENET_STD),
}
"""How images are prepared for the embedded CLIPs, by the kind of their image tower."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A small model that was trained on the simulated world."""

    read: Callable[[Path], StoredModel]
    """Reads its files in their folder."""
    files: tuple[str, ...]
    made_by: str
    """The command that makes the files; ``{}`` stands for their folder."""
    for_real_pictures: str
    """The name of published weights for real images, a key of ``PUBLIC_WEIGHTS``."""

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that are missing in ``folder``."""
        return missing_files(self.files, folder)

    def command(self, folder: Path) -> str:
        """Returns the command that makes the files in ``folder``."""
        return self.made_by.format(folder)


def _trained(recipe: str) -> str:
    return f"clip-seg train config/{recipe} --work work --out {{}}"


_REFERRING, _DENSE = "clipseg-rd64-refined", "maskclip-vit-b16"


def _whole(name: str, made_by: str, for_real_pictures: str) -> EmbeddedModel:
    (file,) = EMBEDDED_FILES[name]
    return EmbeddedModel(lambda folder: read_whole(folder / file), (file,), made_by, for_real_pictures)


EMBEDDED_MODELS: dict[str, EmbeddedModel] = {
    "clipseg-pocket": EmbeddedModel(
        _read_clipseg_pocket,
        EMBEDDED_FILES["clipseg-pocket"],
        _trained("train_pocket.yaml"),
        _REFERRING,
    ),
    "maskclip-pocket": EmbeddedModel(
        lambda folder: _read_maskclip_pocket(folder, "resnet"),
        EMBEDDED_FILES["maskclip-pocket"],
        _trained("train_pocket.yaml"),
        _DENSE,
    ),
    "denseclip-pocket": _whole("denseclip-pocket", _trained("train_denseclip_pocket.yaml"), _DENSE),
    "denseclip-instances-pocket": _whole(
        "denseclip-instances-pocket", _trained("train_denseclip_instances_pocket.yaml"), _DENSE
    ),
    "cris-pocket": _whole("cris-pocket", _trained("train_cris_pocket.yaml"), _REFERRING),
    "maskclip-vit-pocket": EmbeddedModel(
        lambda folder: _read_maskclip_pocket(folder, "vit"),
        EMBEDDED_FILES["maskclip-vit-pocket"],
        _trained("train_vit_pocket.yaml"),
        _DENSE,
    ),
    "maskclip-plus-pocket": _whole(
        "maskclip-plus-pocket",
        "clip-seg distill --rendered 2000 --network teacher --steps 1200 --learning-rate 1e-3 "
        "--classifier learnt --half --classes cup,bowl,bottle,box,ball,can,plate,book,table,floor "
        "--out {}/maskclip_plus_pocket.safetensors --work work",
        _DENSE,
    ),
    "maskclip-plus-zero-shot-pocket": _whole(
        "maskclip-plus-zero-shot-pocket",
        "clip-seg distill --rendered 1000 --unseen plate,book --guided-share 0.25 --network teacher --steps 1200 "
        "--learning-rate 1e-3 --half --out {}/maskclip_plus_zero_shot_pocket.safetensors --work work",
        _DENSE,
    ),
}
"""All models of the simulated world. Not all come with the package: ``embedded_models`` lists those that do."""


def embedded_models(weights_dir: Path | None = None) -> tuple[str, ...]:
    """Returns the names of the embedded models whose files are in ``weights_dir``, by default the package's folder.

    Raises:
        FileNotFoundError: There is no folder of embedded weights.
    """
    folder = weights_dir or resources.weights_dir()
    return tuple(name for name, model in EMBEDDED_MODELS.items() if not model.missing(folder))


def embedded_name(name: str) -> str | None:
    """Returns the name of the embedded model that ``name`` means, in full or in short; ``None`` if it means none."""
    return next((known for known in (f"{name}-pocket", name) if known in EMBEDDED_MODELS), None)


def embedded_folder(name: str, weights_dir: Path | None = None) -> Path:
    """Returns the folder with the files of an embedded model. Raises WeightsError if some are missing."""
    try:
        folder = weights_dir or resources.weights_dir()
    except FileNotFoundError as error:
        raise WeightsError(str(error)) from error
    missing = EMBEDDED_MODELS[name].missing(folder)
    if missing:
        raise WeightsError(
            f"{', '.join(missing)} of {name} does not exist in {folder}: restore it from the package or the "
            f"repository, or make it with `{EMBEDDED_MODELS[name].command(folder)}`"
        )
    return folder
