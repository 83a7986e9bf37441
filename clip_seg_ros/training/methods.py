# SPDX-License-Identifier: Apache-2.0
"""The methods of ``clip-seg train CONFIG``: makes a recipe that is ready to run from the mapping of a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.data.catalog import OBJECTS, open_dataset
from clip_seg_ros.data.coco import CocoInstances
from clip_seg_ros.data.phrasecut_plus import PhraseCutPlus
from clip_seg_ros.data.samples import DataError, InstanceDataset, InstanceSample, ReferringDataset, SemanticDataset
from clip_seg_ros.data.suggestions import did_you_mean
from clip_seg_ros.data.tabletop import CROWDED, TOUCHING, USUAL, Arrangement, TabletopScenes
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket.clipseg import PocketRecipe, PocketSettings
from clip_seg_ros.training.pocket.cris import CRISPocketSettings, cris_pocket
from clip_seg_ros.training.pocket.denseclip import DenseCLIPPocketSettings, denseclip_pocket
from clip_seg_ros.training.pocket.instances import InstancesPocketSettings, instances_pocket
from clip_seg_ros.training.pocket.pool import PoolRecipe, PoolSettings
from clip_seg_ros.training.pocket.separator import SeparatorRecipe, SeparatorSettings
from clip_seg_ros.training.pocket.vit import ViTRecipe, ViTSettings
from clip_seg_ros.training.recipes.architecture import (
    Architecture,
    CLIPSegArchitecture,
    CRISArchitecture,
    DenseCLIPArchitecture,
    InstancesArchitecture,
)
from clip_seg_ros.training.recipes.clipseg import CLIPSegRecipe, CLIPSegSettings
from clip_seg_ros.training.recipes.cris import CRISRecipe, CRISSettings, calm
from clip_seg_ros.training.recipes.dataset_batches import LetterboxBatches, SemanticBatches
from clip_seg_ros.training.recipes.denseclip import (
    DenseCLIPRecipe,
    DenseCLIPSettings,
    initialise,
    initialise_context_decoder,
)
from clip_seg_ros.training.recipes.denseclip_instances import DenseCLIPInstancesRecipe, DenseCLIPInstancesSettings
from clip_seg_ros.training.recipes.instance_batch import InstanceBatches
from clip_seg_ros.training.recipes.recipe import Recipe
from clip_seg_ros.training.recipes.validation import (
    ValidationSettings,
    instance_score,
    referring_score,
    semantic_score,
)
from clip_seg_ros.training.runner import Validation
from clip_seg_ros.training.settings import SettingsError, read_settings
from clip_seg_ros.training.start import (
    Beginning,
    assemble,
    clipseg_start,
    cris_start,
    denseclip_start,
    instances_start,
)
from clip_seg_ros.zoo.build import StoredModel
from clip_seg_ros.zoo.public_weights import is_name
from clip_seg_ros.zoo.vocabulary import GrownModel, grow


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
    """Weights that a method for data sets begins with: a name or a file of its own weights or of a plain CLIP; see
    ``zoo.plain_clip.read_start``."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """What a method for data sets adds to a plain CLIP; see ``training.recipes.architecture``."""
    name: str | None = None
    """The name of the trained model and of its file."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data set, as a mapping for ``data.catalog.open_dataset``."""
    validation: ValidationSettings | None = None
    """The samples by which the best weights are chosen, for methods for data sets; without, the last weights count."""

    def __post_init__(self) -> None:
        if self.method in POCKET_METHODS:
            if self.scenes < 1:
                raise ValueError(f"{self.method} learns from rendered scenes: say how many with scenes, e.g. 12000")
            for unknown in ("architecture", "validation"):
                if getattr(self, unknown):
                    raise ValueError(f"{self.method} learns from rendered scenes and knows no {unknown}")
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
        if self.method in DATA_METHODS:
            self.read_architecture()

    def read_architecture(self) -> Any:
        """Reads ``architecture`` as an object of the method's class. Raises SettingsError like ``check``."""
        return read_settings(METHODS[self.method].architecture, self.architecture, "architecture")

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
    architecture: type[Architecture] | None = None
    """The class of the mapping ``architecture``, for methods that learn from data sets."""
    arrangements: tuple[Arrangement, ...] = USUAL
    """How things stand in the rendered scenes; the shards have these in turns."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the method's own settings."""
        return tuple(setting.name for setting in fields(self.settings))


def _clip_path(config: TrainConfig) -> Path:
    return (Path(config.start) if config.start else resources.weights_dir()) / "clip_pocket.safetensors"


def _grown(config: TrainConfig, start: StoredModel, phrases: Sequence[str]) -> GrownModel:
    """Returns the weights to begin with, with embeddings for all words of ``phrases``."""
    grown = grow(start, phrases, config.seed)
    if grown.words and distributed.rank() == 0:
        print(f"{config.model} does not know these words and learns them, with an embedding of its own for each:")
        for word, count in grown.words.items():
            print(f"  {word}, in {count} phrase{'s' if count > 1 else ''}")
    return grown


def _assembled(
    config: TrainConfig,
    stored: StoredModel,
    initialise: Callable[[Any], None] = lambda model: None,
    fresh_towers: bool = False,
) -> Beginning:
    """Builds the model, and says once what it begins with."""
    beginning = assemble(config.name, stored, config.seed, initialise, fresh_towers)
    if distributed.rank() == 0:
        print(beginning)
    return beginning


def _referring(method: str, values: Mapping[str, Any]) -> ReferringDataset:
    data = open_dataset(values)
    if not hasattr(data, "phrases"):
        raise DataError(f"{method} learns phrases, and the data set {values['kind']} has classes instead")
    return data


def _semantic(method: str, values: Mapping[str, Any]) -> SemanticDataset:
    data = open_dataset(values)
    if not hasattr(data, "class_names"):
        raise DataError(f"{method} learns classes, and the data set {values['kind']} has phrases instead")
    if isinstance(data, OBJECTS):
        hint = "say task: semantic" if values["kind"] == "coco" else "leave out things"
        raise DataError(f"{method} learns a class for every pixel, and the data set holds objects: {hint}")
    return data


def _referring_validation(config: TrainConfig, model: PromptableSegmenter) -> Validation | None:
    if (chosen := config.validation) is None:
        return None
    data = _referring(config.method, chosen.data)
    return Validation(chosen.every, referring_score(model, data, chosen.limit))


def _semantic_validation(config: TrainConfig, model: PromptableSegmenter) -> Validation | None:
    if (chosen := config.validation) is None:
        return None
    data = _semantic(config.method, chosen.data)
    if lacking := [name for name in data.class_names if name not in model.class_names]:
        raise DataError(f"the validation's data set has classes that the training's lacks: {', '.join(lacking[:5])}")
    return Validation(chosen.every, semantic_score(model, data, chosen.limit))


def _clipseg(config: TrainConfig, settings: CLIPSegSettings, device: torch.device) -> Recipe:
    data = _referring(config.method, config.data)
    start = clipseg_start(config.model, config.read_architecture(), settings.fresh_decoder)
    grown = _grown(config, start, (*data.phrases, *(template.format("") for template in settings.templates)))
    beginning = _assembled(config, grown.stored, fresh_towers=settings.fresh_clip)
    model = beginning.model.to(device)
    samples = PhraseCutPlus(
        data,
        settings.size_px or model.input_spec.size,
        settings.negative_probability,
        settings.templates,
        settings.uses_examples,
    )
    validation = _referring_validation(config, model)
    return CLIPSegRecipe(settings, model, samples, beginning.config, grown.rows, validation)


def _cris(config: TrainConfig, settings: CRISSettings, device: torch.device) -> Recipe:
    data = _referring(config.method, config.data)
    grown = _grown(config, cris_start(config.model, config.read_architecture()), data.phrases)
    beginning = _assembled(config, grown.stored)
    if settings.calm_start and "proj" in beginning.new:
        calm(beginning.model)
    model = beginning.model.to(device)
    batches = LetterboxBatches(data, settings.batch, model.input_spec.size, config.seed, fill=model.input_spec.mean)
    return CRISRecipe(
        settings,
        model,
        beginning.config,
        batches,
        load=batches.load,
        new_words=bool(grown.rows),
        validation=_referring_validation(config, model),
    )


def _denseclip(config: TrainConfig, settings: DenseCLIPSettings, device: torch.device) -> Recipe:
    """Makes a recipe whose towers have the file's weights; the rest is new, because the data set has other classes."""
    data = _semantic(config.method, config.data)
    start = denseclip_start(config.model, config.read_architecture(), data.class_names)
    beginning = _assembled(config, _grown(config, start, data.class_names).stored, initialise)
    model = beginning.model.to(device)
    batches = SemanticBatches(data, settings.batch, model.input_spec.size, config.seed, fill=model.input_spec.mean)
    validation = _semantic_validation(config, model)
    return DenseCLIPRecipe(settings, model, beginning.config, batches, batches.load, validation)


def _objects(method: str, values: Mapping[str, Any]) -> InstanceDataset:
    data = open_dataset(values)
    if not isinstance(data[0] if len(data) else None, InstanceSample):
        raise DataError(
            f"{method} learns objects: use a data set of objects, such as kind: coco with task: instances, or "
            "kind: labelled_folder with things"
        )
    return data


def _instances_validation(config: TrainConfig, model: PromptableSegmenter) -> Validation | None:
    if (chosen := config.validation) is None:
        return None
    return Validation(chosen.every, instance_score(model, _objects(config.method, chosen.data), chosen.limit))


def _denseclip_instances(config: TrainConfig, settings: DenseCLIPInstancesSettings, device: torch.device) -> Recipe:
    """Makes a recipe for a detector of the data set's classes."""
    data = _objects(config.method, config.data)
    if isinstance(data, CocoInstances):
        # As in the authors' framework: pictures without objects teach only where nothing is.
        data = data.with_objects()
    start = instances_start(config.model, config.read_architecture(), data.class_names)
    grown = _grown(config, start, data.class_names).stored
    if data[0].masks is None and grown.config["denseclip"]["head"] == "mask_rcnn":
        raise DataError(
            "the data set has boxes without masks, and Mask R-CNN learns masks: write architecture: {head: retinanet}"
        )
    beginning = _assembled(config, grown, initialise_context_decoder)
    model = beginning.model.to(device)
    views, fill = settings.views.for_model(model.input_spec), model.input_spec.mean
    batches = InstanceBatches(data, views, settings.batch, fill, config.seed)
    validation = _instances_validation(config, model)
    return DenseCLIPInstancesRecipe(settings, model, beginning.config, batches, batches.load, validation)


POCKET_METHODS: dict[str, Method] = {
    "clipseg-pocket": Method(
        PocketSettings,
        lambda config, settings, scenes, device: PocketRecipe(settings, scenes),
        arrangements=CROWDED,
    ),
    "clip-pool-pocket": Method(
        PoolSettings, lambda config, settings, scenes, device: PoolRecipe(settings, scenes, _clip_path(config))
    ),
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
        arrangements=TOUCHING,
    ),
    "separator": Method(
        SeparatorSettings,
        lambda config, settings, scenes, device: SeparatorRecipe(settings, scenes),
        arrangements=TOUCHING,
    ),
}
DATA_METHODS: dict[str, Method] = {
    "clipseg": Method(
        CLIPSegSettings,
        lambda config, settings, scenes, device: _clipseg(config, settings, device),
        CLIPSegArchitecture,
    ),
    "cris": Method(
        CRISSettings, lambda config, settings, scenes, device: _cris(config, settings, device), CRISArchitecture
    ),
    "denseclip": Method(
        DenseCLIPSettings,
        lambda config, settings, scenes, device: _denseclip(config, settings, device),
        DenseCLIPArchitecture,
    ),
    "denseclip-instances": Method(
        DenseCLIPInstancesSettings,
        lambda config, settings, scenes, device: _denseclip_instances(config, settings, device),
        InstancesArchitecture,
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
