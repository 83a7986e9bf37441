# SPDX-License-Identifier: Apache-2.0
"""Builds models from names and weight files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors, load_strict
from clip_seg_ros.models.clip.backbone import ClipConfig
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.models.cris.model import CRIS
from clip_seg_ros.models.denseclip.model import DenseCLIP
from clip_seg_ros.models.maskclip.model import MaskCLIP, MaskCLIPConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.models.student.model import Student
from clip_seg_ros.zoo.public_weights import MAX_NAME, PUBLIC_WEIGHTS, SUFFIX, file_name, how_to_get, is_name

MODEL_KINDS: dict[str, Callable[[str, Mapping[str, Any]], PromptableSegmenter]] = {
    "clipseg": CLIPSeg.from_config,
    "cris": CRIS.from_config,
    "denseclip": DenseCLIP.from_config,
    "maskclip": MaskCLIP.from_config,
    "student": Student.from_config,
}
"""For each ``kind`` of weight file: the function that builds the model with random weights from a name and the file's
configuration."""


@dataclass(frozen=True)
class StoredModel:
    """The contents of a model's weight files."""

    config: Mapping[str, Any]
    """The configuration for ``build_from_config``."""
    tensors: Mapping[str, torch.Tensor]
    origin: str
    """The names of the files, for messages."""

    def build(self, name: str) -> PromptableSegmenter:
        """Builds the model on the CPU, in evaluation mode. Raises WeightsError if the parts do not fit together."""
        return build_from_config(name, self.config, self.tensors, self.origin).eval()


def read_stored(name: str, weights_dir: Path | None = None) -> StoredModel:
    """Reads the weights of a model without building it; the arguments and errors are ``build_segmenter``'s."""
    if known := embedded_name(name):
        return EMBEDDED_MODELS[known].read(embedded_folder(known, weights_dir))
    return _read_whole(weight_file(name, weights_dir))


def build_segmenter(name: str, weights_dir: Path | None = None) -> PromptableSegmenter:
    """Builds a model on the CPU, with its weights, in evaluation mode.

    Args:
        name: One of ``EMBEDDED_MODELS``, also in short ("cris" for "cris-pocket"); the name of weights that
            `clip-seg weights` downloaded or converted; or the path of a weight file of this package,
            ``FILE.safetensors``.
        weights_dir: Folder of the weight files; by default the package's folder for embedded models, and
            ``resources.cache_dir()`` for others. It is ignored if ``name`` is a path.

    Raises:
        ValueError: There is no such model.
        WeightsError: Its weights do not exist yet, or cannot be used.
    """
    name = embedded_name(name) or name
    model = read_stored(name, weights_dir).build(Path(name).stem if name.endswith(SUFFIX) else name)
    if name in EMBEDDED_MODELS:
        model.for_real_pictures = EMBEDDED_MODELS[name].for_real_pictures
    return model


def full_name(name: str, weights_dir: Path | None = None, allow_paths: bool = True) -> str:
    """Returns the full name of a model: "cris-pocket" for "cris".

    It opens no file. It raises the errors of ``build_segmenter`` for names and files that do not exist.

    Args:
        name: The name or path, as in ``build_segmenter``.
        weights_dir: The folder of the weight files, as in ``build_segmenter``.
        allow_paths: Whether the name may be the path of any file. Otherwise the file must be in one of the folders of
            weights, and the returned path is absolute; nothing is revealed about files elsewhere.
    """
    if known := embedded_name(name):
        embedded_folder(known, weights_dir)
        return known
    if name.endswith(SUFFIX) and not allow_paths:
        return str(file_in_folders(name, weights_dir))
    if not (path := weight_file(name, weights_dir)).is_file():
        raise WeightsError(f"there is no file {path}")
    return name


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


def weight_file(name: str, weights_dir: Path | None = None) -> Path:
    """Returns the weight file of a model that is not embedded; the arguments and errors are ``build_segmenter``'s."""
    if name.endswith(SUFFIX):
        try:
            return Path(name).expanduser()
        except RuntimeError as error:  # "~somebody", whom the system does not know
            raise ValueError(f'the path "{name}" of a weight file means no folder: {error}') from error
    if is_name(name):
        path = (weights_dir or resources.cache_dir()) / file_name(name)
        if path.is_file():
            return path
        advice = how_to_get(name)
        if advice is not None:
            raise WeightsError(f'the weights "{name}" are not in {path.parent} yet: {advice}')
    raise ValueError(f"{_no_model(name)}, or the path of a .safetensors file")


def file_in_folders(name: str, weights_dir: Path | None = None) -> Path:
    """Returns the absolute path of a weight file in one of the folders of weights.

    These are ``weights_dir``, the folder of the embedded weights and the cache. The file itself may be a link, because
    those who name it cannot change its folder; but its path must not lead out of the folder.

    Args:
        name: The path of the file, or only its name.
        weights_dir: The folder of the weight files, as in ``build_segmenter``.

    Raises:
        ValueError: There is no such file in these folders; nothing is revealed about other folders.
    """
    folders = [weights_dir, resources.cache_dir()]
    with suppress(FileNotFoundError):
        folders.append(resources.weights_dir())
    try:
        path = Path(name).expanduser()
        for folder in (folder.resolve() for folder in folders if folder is not None):
            # Only the folder's own list of files is read, so that nothing outside is accessed or revealed.
            found = next((item for item in folder.glob(f"*{SUFFIX}") if item.name == path.name), None)
            if found is not None and found.is_file() and (path.parent == Path() or _same_folder(path.parent, folder)):
                return found
    except (OSError, RuntimeError, ValueError):  # a path that is none
        pass
    raise ValueError(
        f"{_no_model(name)}, or a .safetensors file in the folders of weights; files elsewhere need "
        "allow_model_paths:=true when the node starts"
    )


def _same_folder(named: Path, folder: Path) -> bool:
    return ".." not in named.parts and named.is_absolute() and named.resolve() == folder


def _no_model(name: str) -> str:
    shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    known = ", ".join((*embedded_models(), *PUBLIC_WEIGHTS))
    return f'there is no model "{shown}": use {known}, the name of weights that you converted (`clip-seg weights list`)'


def build_from_file(path: Path, name: str | None = None) -> PromptableSegmenter:
    """Builds the model whose configuration and weights are in one file, in evaluation mode.

    Args:
        path: A file that `clip-seg weights` wrote.
        name: Name of the model; by default that of the file.

    Raises:
        WeightsError: The file is damaged, or does not hold a whole model of this version.
    """
    return _read_whole(path).build(name or path.stem)


def build_from_config(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], origin: str
) -> PromptableSegmenter:
    """Builds the model that ``config`` describes and assigns exactly ``tensors`` to it, without a copy.

    Raises:
        WeightsError: The configuration describes no model, or the tensors do not fit it.
    """
    try:
        if (kind := config["kind"]) not in MODEL_KINDS:
            raise ValueError(f'there is no kind "{kind}" among {", ".join(MODEL_KINDS)}')
        with _WithoutRandomWeights():
            model = MODEL_KINDS[kind](name, config)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configuration in {origin} does not describe a model of this version ({error}): "
            "restore the file, convert it again with `clip-seg weights convert`, or train it again with `clip-seg "
            "train`"
        ) from error
    load_strict(model, tensors, origin, assign=True)
    # The figures of weights may use another threshold than that of the model's authors.
    model.threshold = float(config.get("threshold", model.threshold))
    return model


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves new weights uninitialised, because drawing random numbers that are then overwritten takes seconds.

    It is only for models whose weights are all loaded afterwards, which ``load_strict`` ensures.
    """

    _FILLS = frozenset(
        {
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
            torch.nn.init.normal_,
            torch.nn.init.uniform_,
            torch.nn.init.kaiming_normal_,
            torch.nn.init.kaiming_uniform_,
        }
    )

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in self._FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _read_whole(path: Path) -> StoredModel:
    tensors, config = load_safetensors(path)
    return StoredModel(config, tensors, str(path))


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
        return [file for file in self.files if not (folder / file).is_file()]

    def command(self, folder: Path) -> str:
        """Returns the command that makes the files in ``folder``."""
        return self.made_by.format(folder)


def _trained(recipe: str) -> str:
    return f"clip-seg train config/{recipe} --work work --out {{}}"


def _whole(file: str, made_by: str, for_real_pictures: str) -> EmbeddedModel:
    return EmbeddedModel(lambda folder: _read_whole(folder / file), (file,), made_by, for_real_pictures)


_REFERRING, _DENSE = "clipseg-rd64-refined", "maskclip-vit-b16"


EMBEDDED_MODELS: dict[str, EmbeddedModel] = {
    "clipseg-pocket": EmbeddedModel(
        _read_clipseg_pocket,
        ("clip_pocket.safetensors", "clipseg_pocket.safetensors"),
        _trained("train_pocket.yaml"),
        _REFERRING,
    ),
    "maskclip-pocket": EmbeddedModel(
        lambda folder: _read_maskclip_pocket(folder, "resnet"),
        ("clip_pocket.safetensors",),
        _trained("train_pocket.yaml"),
        _DENSE,
    ),
    "denseclip-pocket": _whole("denseclip_pocket.safetensors", _trained("train_denseclip_pocket.yaml"), _DENSE),
    "cris-pocket": _whole("cris_pocket.safetensors", _trained("train_cris_pocket.yaml"), _REFERRING),
    "maskclip-vit-pocket": EmbeddedModel(
        lambda folder: _read_maskclip_pocket(folder, "vit"),
        ("clip_vit_pocket.safetensors",),
        _trained("train_vit_pocket.yaml"),
        _DENSE,
    ),
    "maskclip-plus-pocket": _whole(
        "maskclip_plus_pocket.safetensors",
        "clip-seg distill --rendered 2000 --network teacher --steps 1200 --learning-rate 1e-3 --self-share 0 "
        "--classes cup,bowl,bottle,box,ball,can,plate,book,table,floor "
        "--out {}/maskclip_plus_pocket.safetensors --work work",
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
