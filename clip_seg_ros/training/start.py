# SPDX-License-Identifier: Apache-2.0
"""The weights that a training on a data set begins with: those of its method, or a plain CLIP with new parts around it.

What the file lacks is new, with random weights from the seed. What was taken and what is new is said in ``Beginning``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.imagenet_vit import read_imagenet_vit
from clip_seg_ros.models.clip.positions import resize_position_table
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.training.recipes.architecture import (
    CLIPSegArchitecture,
    CRISArchitecture,
    DenseCLIPArchitecture,
    InstancesArchitecture,
)
from clip_seg_ros.zoo.build import MODEL_KINDS, StoredModel
from clip_seg_ros.zoo.plain_clip import PlainClip, read_start

IMAGE_TOWER, TEXT_TOWER = "image tower", "text tower"
_PARTS = {
    "clip.visual.": IMAGE_TOWER,
    "clip.": TEXT_TOWER,
    "backbone.pyramid.": "pyramid",
    "backbone.": IMAGE_TOWER,
    "text_encoder.": TEXT_TOWER,
}
"""The parts of a model by the starts of their tensors' names; the first fit counts. Others are called as in the
model."""
_TOWERS = (IMAGE_TOWER, TEXT_TOWER, "pyramid")
"""The parts of a DenseCLIP that do not depend on its classes."""
_NO_TENSOR_OF_CLIP = "logit_scale"


@dataclass(frozen=True)
class Beginning:
    """A model that is ready to be trained."""

    model: PromptableSegmenter
    config: Mapping[str, Any]
    """The configuration for the weight file."""
    origin: str
    """The names of the files that it begins with."""
    taken: tuple[str, ...]
    """The parts whose weights are those of the file."""
    new: tuple[str, ...]
    """The parts whose weights are random."""

    def __str__(self) -> str:
        lines = [f"{self.model.name} begins with {self.origin}", f"  taken: {', '.join(self.taken)}"]
        return "\n".join([*lines, f"  new:   {', '.join(self.new)}"] if self.new else lines)


def clipseg_start(name: str, architecture: CLIPSegArchitecture, fresh_decoder: bool) -> StoredModel:
    """Returns the weights and the configuration of a CLIPSeg.

    Args:
        name: The weights to begin with, as in ``plain_clip.read_start``.
        architecture: The settings that were given.
        fresh_decoder: Whether the file's decoder is left out.

    Raises:
        ValueError, WeightsError: There are no such weights, or they are not of this method.
    """
    found = _read(name, architecture, "clipseg")
    if isinstance(found, PlainClip):
        if architecture.image_tower is not None:
            found = _with_image_tower(found, Path(architecture.image_tower).expanduser())
        return _on_clip(found, architecture.on_clip(found))
    if architecture.image_tower is not None:
        raise ValueError(f"image_tower takes the place of CLIP's: begin with a plain CLIP, not with {found.origin}")
    kept = {key: value for key, value in found.tensors.items() if key.startswith("clip.") or not fresh_decoder}
    return replace(found, config=_own(found, architecture.on_own), tensors=kept)


def cris_start(name: str, architecture: CRISArchitecture) -> StoredModel:
    """Returns the weights and the configuration of a CRIS; arguments and errors are ``clipseg_start``'s."""
    found = _read(name, architecture, "cris")
    if isinstance(found, PlainClip):
        return _on_clip(found, architecture.on_clip(found))
    return replace(found, config=_own(found, architecture.on_own))


def denseclip_start(name: str, architecture: DenseCLIPArchitecture, class_names: Sequence[str]) -> StoredModel:
    """Returns the towers and the configuration of a DenseCLIP for ``class_names``; errors are ``clipseg_start``'s."""
    found = _read(name, architecture, "denseclip")
    if isinstance(found, PlainClip):
        return _denseclip_on_clip(found, architecture.on_clip(found, class_names))
    towers = {key: value for key, value in found.tensors.items() if _part(key) in _TOWERS}
    return replace(found, config=_own(found, architecture.on_own, class_names), tensors=towers)


def instances_start(name: str, architecture: InstancesArchitecture, class_names: Sequence[str]) -> StoredModel:
    """Returns the weights and the configuration of a DenseCLIP detector; errors are ``clipseg_start``'s.

    Of a detector of other classes, and of a DenseCLIP, only the towers are taken.
    """
    found = read_start(name, architecture)
    if isinstance(found, PlainClip):
        return _denseclip_on_clip(found, architecture.on_clip(found, class_names))
    if found.config.get("kind") not in ("denseclip", "denseclip_instances"):
        _refuse(found, "a DenseCLIP detector")
    same = found.config["kind"] == "denseclip_instances" and tuple(found.config["denseclip"]["class_names"]) == tuple(
        class_names
    )
    kept = {key: value for key, value in found.tensors.items() if same or _part(key) in _TOWERS}
    return replace(found, config=architecture.on_own(found.config, class_names), tensors=kept)


def assemble(
    name: str,
    stored: StoredModel,
    seed: int,
    initialise: Callable[[PromptableSegmenter], None] = lambda model: None,
    fresh_towers: bool = False,
) -> Beginning:
    """Builds a model from the weights in ``stored``; a part of which a tensor is missing or has another shape is new.

    Args:
        name: The name of the model.
        stored: The configuration, and the weights that there are.
        seed: The seed of new weights.
        initialise: Draws the new weights otherwise than the modules do by themselves.
        fresh_towers: Whether the towers are random, too, so that nothing but their shape is taken from the file.

    Raises:
        ValueError: The configuration describes no model.
        WeightsError: One of the towers is not whole.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODEL_KINDS[stored.config["kind"]](name, stored.config)
        initialise(model)
    own = model.state_dict()
    faults: dict[str, list[str]] = {tower: [] for tower in (IMAGE_TOWER, TEXT_TOWER)}
    for key, value in own.items():
        given = stored.tensors.get(key)
        lacking = faults.setdefault(_part(key), [])
        if given is None:
            lacking.append(f"{key} is missing")
        elif given.shape != value.shape:
            lacking.append(f"{key} is {tuple(given.shape)} and should be {tuple(value.shape)}")
    for tower in (IMAGE_TOWER, TEXT_TOWER):
        if fresh_towers:
            faults[tower].append("it is to be new")
        elif faults[tower]:
            raise WeightsError(f"the {tower} in {stored.origin} is not whole: {'; '.join(faults[tower])}")
    taken = [part for part, lacking in faults.items() if not lacking]
    own.update({key: stored.tensors[key] for key in own if _part(key) in taken})
    model.load_state_dict(own)
    new = tuple(part for part in faults if part not in taken)
    return Beginning(model.eval(), stored.config, stored.origin, tuple(taken), new)


def _read(name: str, architecture: CLIPSegArchitecture | CRISArchitecture | DenseCLIPArchitecture, kind: str) -> Any:
    """Returns a plain CLIP, or a stored model of ``kind``."""
    found = read_start(name, architecture)
    if isinstance(found, PlainClip) or found.config.get("kind") == kind:
        return found
    return _refuse(found, kind)


def _refuse(found: StoredModel, what: str) -> NoReturn:
    held = found.config.get("kind", "only a part of a model")
    raise WeightsError(f"{found.origin} holds {held}: {what} cannot begin with it, but with its own weights or a CLIP")


def _own(stored: StoredModel, configure: Callable[..., dict[str, Any]], *more: Any) -> dict[str, Any]:
    """Returns the configuration that ``configure`` makes of that of a weight file of the method's own kind."""
    try:
        return configure(stored.config, *more)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"the configuration in {stored.origin} does not describe a model of this version ({error}): begin with "
            "other weights"
        ) from error


def _on_clip(clip: PlainClip, config: Mapping[str, Any]) -> StoredModel:
    return StoredModel(config, {f"clip.{key}": value for key, value in clip.tensors.items()}, clip.origin)


def _with_image_tower(clip: PlainClip, path: Path) -> PlainClip:
    """Returns ``clip`` with the ViT of ``path`` as its image tower.

    What projects this tower's class token to CLIP's embedding is random and stays so, as in the authors' program.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}: image_tower is the file of a ViT of timm or torchvision")
    vision, tower = read_imagenet_vit(read_tensors(path), str(path))
    embed_dim = clip.config.embed_dim
    generator = torch.Generator().manual_seed(0)
    tower["proj"] = torch.randn(vision.width, embed_dim, generator=generator) * vision.width**-0.5
    tensors = {key: value for key, value in clip.tensors.items() if not key.startswith("visual.")}
    tensors.update({f"visual.{key}": value for key, value in tower.items()})
    config = replace(clip.config, vision=vision)
    return replace(clip, config=config, tensors=tensors, origin=f"{clip.origin} and {path}")


def _denseclip_on_clip(clip: PlainClip, config: Mapping[str, Any]) -> StoredModel:
    """Resizes the image tower's positions to the training size and cuts the text tower's, as the authors do."""
    vision, size = clip.config.vision, config["vision"]["image_size"]
    cell = vision.patch_size if isinstance(vision.layers, int) else 32
    before, after = vision.image_size // cell, size // cell
    tensors = {}
    for key, value in clip.tensors.items():
        if key.startswith("visual."):
            if key.endswith("positional_embedding"):
                value = resize_position_table(value, (before, before), (after, after), "bilinear")
            tensors[f"backbone.{key}"] = value
        elif key != _NO_TENSOR_OF_CLIP:
            tensors[f"text_encoder.{key}"] = (
                value[: config["text"]["context_length"]] if key == "positional_embedding" else value
            )
    return StoredModel(config, tensors, clip.origin)


def _part(key: str) -> str:
    return next((part for start, part in _PARTS.items() if key.startswith(start)), key.split(".")[0])
