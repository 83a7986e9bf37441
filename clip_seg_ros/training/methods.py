# SPDX-License-Identifier: Apache-2.0
"""The methods of ``clip-seg train CONFIG``: makes a recipe that is ready to run from the mapping of a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.phrasecut_plus import TEMPLATES, PhraseCutPlus
from clip_seg_ros.data.samples import DataError, ReferringDataset, SemanticDataset
from clip_seg_ros.data.suggestions import did_you_mean
from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket.clipseg import PocketRecipe, PocketSettings
from clip_seg_ros.training.pocket.cris import CRISPocketSettings, cris_pocket
from clip_seg_ros.training.pocket.denseclip import DenseCLIPPocketSettings, denseclip_pocket
from clip_seg_ros.training.pocket.instances import InstancesPocketSettings, instances_pocket
from clip_seg_ros.training.pocket.vit import ViTRecipe, ViTSettings
from clip_seg_ros.training.recipes.clipseg import CLIPSegRecipe, CLIPSegSettings
from clip_seg_ros.training.recipes.cris import CRISRecipe, CRISSettings
from clip_seg_ros.training.recipes.dataset_batches import LetterboxBatches, SemanticBatches
from clip_seg_ros.training.recipes.denseclip import DenseCLIPRecipe, DenseCLIPSettings
from clip_seg_ros.training.recipes.recipe import Recipe
from clip_seg_ros.training.settings import SettingsError, read_settings
from clip_seg_ros.zoo.build import MODEL_KINDS, StoredModel
from clip_seg_ros.zoo.factory import full_name, read_stored
from clip_seg_ros.zoo.public_weights import is_name
from clip_seg_ros.zoo.vocabulary import GrownModel, grow

_TOWERS = ("backbone.", "text_encoder.")


@dataclass(frozen=True)
class TrainConfig:
    """The contents of a YAML file for ``clip-seg train``."""

    method: str
    """One of ``POCKET_METHODS``, which learn from rendered scenes, or of ``DATA_METHODS``, which learn from files."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings; see the settings' class for their names and defaults."""
    seed: int = 0
    scenes: int = 0
    """The number of rendered scenes, for methods that learn from them."""
    start: str | None = None
    """Folder of the embedded CLIP that a method for rendered scenes begins with. By default clipseg-pocket begins from
    scratch, and the others with the CLIP of the package."""
    model: str | None = None
    """Weights that a method for data sets begins with: a name or a file."""
    name: str | None = None
    """The name of the trained model and of its file."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data set, as a mapping for ``data.catalog.open_dataset``."""

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
            hint = did_you_mean(self.method, METHODS)
            raise ValueError(f"there is no method {self.method!r}; the methods are {known}{hint}")

    @classmethod
    def from_mapping(cls, values: Any) -> TrainConfig:
        """Reads the mapping of a YAML file. Raises SettingsError on unknown names and on values that do not fit."""
        if not isinstance(values, Mapping):
            raise SettingsError("the file must hold names and values, of which one names a method")
        method = METHODS.get(str(values.get("method")))
        for name in values:
            if name not in _FIELDS and method is not None and name in method.names:
                raise SettingsError(f"{name} is in the wrong place: write it below recipe")
        return read_settings(cls, values)

    def check(self) -> None:
        """Raises SettingsError if the method's own settings are wrong, before anything is rendered."""
        self.settings()

    def settings(self) -> Any:
        """Reads the method's own settings as an object of their class. Raises SettingsError like ``check``."""
        method = METHODS[self.method]
        for name in self.recipe:
            if name in _FIELDS:
                raise SettingsError(f"{name} is in the wrong place: write it beside recipe, not below it")
        shared = {name: getattr(self, name) for name in ("seed", "scenes", "start") if name in method.names}
        return method.settings.from_mapping({**self.recipe, **shared})


@dataclass(frozen=True)
class Method:
    """A method: the class of its settings, and how its recipe is made."""

    settings: type
    """The class of the method's own settings."""
    build: Callable[[TrainConfig, Any, TabletopScenes | None, torch.device], Recipe]
    """Makes the recipe from the file, the method's settings, the rendered scenes (``None`` without) and the device."""
    alike: bool = False
    """Whether many objects of one kind touch in half of the rendered scenes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the method's own settings."""
        return tuple(setting.name for setting in fields(self.settings))


def _clip_path(config: TrainConfig) -> Path:
    return (Path(config.start) if config.start else resources.weights_dir()) / "clip_pocket.safetensors"


def _start(config: TrainConfig) -> StoredModel:
    """Returns the weights to begin with, which must be of the method's own kind."""
    stored = read_stored(full_name(config.model))
    if stored.config.get("kind") != config.method:
        held = stored.config.get("kind", "only a part of a model")
        raise WeightsError(f"{stored.origin} holds {held}: {config.method} cannot begin with it")
    return stored


def _grown(config: TrainConfig, phrases: Sequence[str]) -> GrownModel:
    """Returns the weights to begin with, with embeddings for all words of ``phrases``."""
    grown = grow(_start(config), phrases, config.seed)
    if grown.words and distributed.rank() == 0:
        print(f"{config.model} does not know these words and learns them, with an embedding of its own for each:")
        for word, count in grown.words.items():
            print(f"  {word}, in {count} phrase{'s' if count > 1 else ''}")
    return grown


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


def _clipseg(config: TrainConfig, settings: CLIPSegSettings, device: torch.device) -> Recipe:
    data = _referring(config)
    grown = _grown(config, (*data.phrases, *(template.format("") for template in TEMPLATES)))
    model = grown.stored.build(config.name).to(device)
    samples = PhraseCutPlus(data, size_px=settings.size_px or model.input_spec.size)
    return CLIPSegRecipe(settings, model, samples, grown.stored.config, grown.rows)


def _cris(config: TrainConfig, settings: CRISSettings, device: torch.device) -> Recipe:
    data = _referring(config)
    grown = _grown(config, data.phrases)
    model = grown.stored.build(config.name).to(device)
    batches = LetterboxBatches(data, settings.batch, model.input_spec.size, config.seed)
    return CRISRecipe(settings, model, grown.stored.config, batches, load=batches.load, new_words=bool(grown.rows))


def _denseclip(config: TrainConfig, settings: DenseCLIPSettings, device: torch.device) -> Recipe:
    """Makes a recipe whose towers have the file's weights; the rest is new, because the data set has other classes."""
    data = _semantic(config)
    stored = _grown(config, data.class_names).stored
    values = {**stored.config, "denseclip": {**stored.config["denseclip"], "class_names": list(data.class_names)}}
    torch.manual_seed(config.seed)
    model = MODEL_KINDS["denseclip"](config.name, values)
    model.load_state_dict({k: v for k, v in stored.tensors.items() if k.startswith(_TOWERS)}, strict=False)
    batches = SemanticBatches(data, settings.batch, model.input_spec.size, config.seed)
    return DenseCLIPRecipe(settings, model.to(device), values, batches, batches.load)


POCKET_METHODS: dict[str, Method] = {
    "clipseg-pocket": Method(PocketSettings, lambda config, settings, scenes, device: PocketRecipe(settings, scenes)),
    "clip-vit-pocket": Method(
        ViTSettings, lambda config, settings, scenes, device: ViTRecipe(settings, scenes, _clip_path(config))
    ),
    "cris-pocket": Method(
        CRISPocketSettings, lambda config, settings, scenes, device: cris_pocket(settings, scenes, _clip_path(config))
    ),
    "denseclip-pocket": Method(
        DenseCLIPPocketSettings,
        lambda config, settings, scenes, device: denseclip_pocket(settings, scenes, _clip_path(config)),
    ),
    "denseclip-instances-pocket": Method(
        InstancesPocketSettings,
        lambda config, settings, scenes, device: instances_pocket(settings, scenes, _clip_path(config)),
        alike=True,
    ),
}
DATA_METHODS: dict[str, Method] = {
    "clipseg": Method(CLIPSegSettings, lambda config, settings, scenes, device: _clipseg(config, settings, device)),
    "cris": Method(CRISSettings, lambda config, settings, scenes, device: _cris(config, settings, device)),
    "denseclip": Method(
        DenseCLIPSettings, lambda config, settings, scenes, device: _denseclip(config, settings, device)
    ),
}
METHODS = POCKET_METHODS | DATA_METHODS
_FIELDS = tuple(setting.name for setting in fields(TrainConfig))


def build_recipe(config: TrainConfig, scenes: TabletopScenes | None, device: torch.device) -> Recipe:
    """Makes the recipe of ``config``, ready to run.

    Args:
        config: The contents of the YAML file.
        scenes: The rendered scenes; ``None`` for methods that learn from data sets.
        device: The device of the training.

    Raises:
        DataError, WeightsError: Files of the data set or the weights to begin with are missing or wrong.
        ValueError: The data set or the weights do not fit the method.
    """
    recipe = METHODS[config.method].build(config, config.settings(), scenes, device)
    recipe.module.to(device)
    return recipe
