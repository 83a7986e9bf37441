"""What ``clip-seg train CONFIG`` can train: from the mapping of a YAML file to a recipe that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.phrasecut_plus import PhraseCutPlus
from clip_seg_ros.data.samples import DataError, ReferringDataset, SemanticDataset
from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors
from clip_seg_ros.models.factory import MODEL_KINDS, build_from_file, weight_file
from clip_seg_ros.models.public_weights import is_name
from clip_seg_ros.training.clipseg_recipe import CLIPSegRecipe, CLIPSegSettings
from clip_seg_ros.training.cris_pocket import CRISPocketSettings, cris_pocket
from clip_seg_ros.training.cris_recipe import CRISRecipe, CRISSettings
from clip_seg_ros.training.dataset_batches import LetterboxBatches, SemanticBatches
from clip_seg_ros.training.denseclip_pocket import DenseCLIPPocketSettings, denseclip_pocket
from clip_seg_ros.training.denseclip_recipe import DenseCLIPRecipe, DenseCLIPSettings
from clip_seg_ros.training.pocket import PocketRecipe, PocketSettings
from clip_seg_ros.training.recipe import Recipe
from clip_seg_ros.training.vit_pocket import ViTRecipe, ViTSettings

_TOWERS = ("backbone.", "text_encoder.")


@dataclass(frozen=True)
class TrainConfig:
    """A YAML file for ``clip-seg train``."""

    method: str
    """One of ``POCKET_METHODS``, which learn from rendered scenes, or of ``DATA_METHODS``, which learn from files."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings; see the settings' class for their names and defaults."""
    seed: int = 0
    scenes: int = 0
    """Rendered scenes, for methods that learn from them."""
    start: str | None = None
    """Folder of the embedded CLIP that a method for rendered scenes begins with. By default clipseg-pocket begins from
    nothing and the others with the shipped one."""
    model: str | None = None
    """Weights that a method for data sets begins with: a name or a file."""
    name: str | None = None
    """Of the trained model, and of its file."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data set, as ``data.catalog.open_dataset`` takes it."""

    def __post_init__(self) -> None:
        if self.method in POCKET_METHODS:
            if self.scenes < 1:
                raise ValueError(f"{self.method} learns from rendered scenes: say how many with scenes, e.g. 12000")
        elif self.method in DATA_METHODS:
            for wanted in ("model", "name", "data"):
                if not getattr(self, wanted):
                    raise ValueError(f"{self.method} learns from a data set: {wanted} is missing")
            if "/" in self.name or not is_name(self.name):
                raise ValueError(f"the file is called after name: letters, digits, dots and dashes, not {self.name!r}")
        else:
            known = ", ".join((*POCKET_METHODS, *DATA_METHODS))
            raise ValueError(f"there is no method {self.method!r}; the methods are {known}")

    @classmethod
    def from_mapping(cls, values: Any) -> TrainConfig:
        """Reads the YAML's mapping. Raises TypeError on unknown names, ValueError on values that do not fit."""
        if not isinstance(values, Mapping):
            raise ValueError("a recipe is a mapping that names a method")
        return cls(**values)

    def check(self) -> None:
        """Raises TypeError or ValueError where the method's own settings are wrong, before anything is rendered."""
        try:
            (POCKET_METHODS if self.method in POCKET_METHODS else DATA_METHODS)[self.method].settings(self)
        except KeyError as error:
            raise ValueError(f"the recipe of {self.method} lacks {error.args[0]}") from error


@dataclass(frozen=True)
class PocketMethod:
    """A method that learns from rendered scenes."""

    settings: Callable[[TrainConfig], Any]
    build: Callable[[TrainConfig, TabletopScenes], Recipe]


@dataclass(frozen=True)
class DataMethod:
    """A method that learns from a data set."""

    settings: Callable[[TrainConfig], Any]
    build: Callable[[TrainConfig, torch.device], Recipe]


def _own(config: TrainConfig) -> dict[str, Any]:
    return {**config.recipe, "scenes": config.scenes, "seed": config.seed}


def _clip_path(config: TrainConfig) -> Path:
    return (Path(config.start) if config.start else resources.weights_dir()) / "clip_pocket.safetensors"


def _start(config: TrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, Any], Path]:
    """Tensors, configuration and path of the weights to begin with, which must be of the method's own kind."""
    path = weight_file(config.model)
    tensors, values = load_safetensors(path)
    if values.get("kind") != config.method:
        held = values.get("kind", "only a part of a model")
        raise WeightsError(f"{path} holds {held}: {config.method} cannot begin with it")
    return tensors, values, path


def _model(config: TrainConfig, device: torch.device) -> tuple[PromptableSegmenter, dict[str, Any]]:
    """The model to begin with, on ``device``, and its configuration."""
    _, values, path = _start(config)
    return build_from_file(path, config.name).to(device), values


def _referring(config: TrainConfig) -> ReferringDataset:
    data = open_dataset(config.data)
    if not hasattr(data, "phrases"):
        raise DataError(f"{config.method} learns phrases, and the data set {config.data['kind']} has classes instead")
    return data


def _semantic(config: TrainConfig) -> SemanticDataset:
    data = open_dataset(config.data)
    if not hasattr(data, "class_names"):
        raise DataError(f"{config.method} learns classes, and the data set {config.data['kind']} has phrases instead")
    return data


def _clipseg(config: TrainConfig, device: torch.device) -> Recipe:
    model, values = _model(config, device)
    data = PhraseCutPlus(_referring(config), size_px=model.input_spec.size)
    return CLIPSegRecipe(CLIPSegSettings.from_mapping({**config.recipe, "seed": config.seed}), model, data, values)


def _cris(config: TrainConfig, device: torch.device) -> Recipe:
    model, values = _model(config, device)
    settings = CRISSettings.from_mapping(config.recipe)
    batches = LetterboxBatches(_referring(config), settings.batch, model.input_spec.size, config.seed)
    return CRISRecipe(settings, model, values, batches, load=batches.load)


def _denseclip(config: TrainConfig, device: torch.device) -> Recipe:
    """The towers begin with the file's weights; the rest is new, for the classes are the data set's."""
    tensors, values, _ = _start(config)
    data = _semantic(config)
    values = {**values, "denseclip": {**values["denseclip"], "class_names": list(data.class_names)}}
    torch.manual_seed(config.seed)
    model = MODEL_KINDS["denseclip"](config.name, values)
    model.load_state_dict({k: v for k, v in tensors.items() if k.startswith(_TOWERS)}, strict=False)
    settings = DenseCLIPSettings.from_mapping(config.recipe)
    batches = SemanticBatches(data, settings.batch, model.input_spec.size, config.seed)
    return DenseCLIPRecipe(settings, model.to(device), values, batches, batches.load)


POCKET_METHODS: dict[str, PocketMethod] = {
    "clipseg-pocket": PocketMethod(
        lambda config: PocketSettings.from_mapping({**_own(config), "start": config.start}),
        lambda config, scenes: PocketRecipe(
            PocketSettings.from_mapping({**_own(config), "start": config.start}), scenes
        ),
    ),
    "clip-vit-pocket": PocketMethod(
        lambda config: ViTSettings.from_mapping(_own(config)),
        lambda config, scenes: ViTRecipe(ViTSettings.from_mapping(_own(config)), scenes, _clip_path(config)),
    ),
    "cris-pocket": PocketMethod(
        lambda config: CRISPocketSettings.from_mapping(_own(config)),
        lambda config, scenes: cris_pocket(CRISPocketSettings.from_mapping(_own(config)), scenes, _clip_path(config)),
    ),
    "denseclip-pocket": PocketMethod(
        lambda config: DenseCLIPPocketSettings.from_mapping(_own(config)),
        lambda config, scenes: denseclip_pocket(
            DenseCLIPPocketSettings.from_mapping(_own(config)), scenes, _clip_path(config)
        ),
    ),
}
DATA_METHODS: dict[str, DataMethod] = {
    "clipseg": DataMethod(
        lambda config: CLIPSegSettings.from_mapping({**config.recipe, "seed": config.seed}), _clipseg
    ),
    "cris": DataMethod(lambda config: CRISSettings.from_mapping(config.recipe), _cris),
    "denseclip": DataMethod(lambda config: DenseCLIPSettings.from_mapping(config.recipe), _denseclip),
}


def build_recipe(config: TrainConfig, scenes: TabletopScenes | None, device: torch.device) -> Recipe:
    """Makes the training of ``config`` ready, on ``device``.

    Args:
        config: what to train.
        scenes: the rendered scenes; ``None`` for methods that learn from data sets.
        device: that it runs on.

    Raises:
        DataError, WeightsError: files of the data set or the weights to begin with are missing or wrong.
        ValueError: they do not fit the method.
    """
    if config.method in DATA_METHODS:
        recipe = DATA_METHODS[config.method].build(config, device)
    else:
        recipe = POCKET_METHODS[config.method].build(config, scenes)
    recipe.module.to(device)
    return recipe
