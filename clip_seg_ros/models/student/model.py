# SPDX-License-Identifier: Apache-2.0
"""A small network for one list of classes, taught by a larger model: the target model of MaskCLIP+.

    pixels -> backbone -> light head -> logits of K classes
    pixels -> backbone -> light head -> features --- product with K text embeddings ---> logits

In Zhou et al., ECCV 2022, section 3.3, it may be any segmentation network, because CLIP's image tower is needed only
for its training. The second kind is the paper's: its last layer is the frozen text embeddings of the classes, so that
words make further classes after the training. The networks are in ``networks``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import ModifiedResNet, VisionConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.models.student.networks import CLIP_NETWORK, ClipNetwork, build_network

MULTIPLE = 32
"""Sides of the pixels are rounded to multiples of this number, the coarsest stride."""
BACKGROUND_CLASS = "background"
"""The class of what belongs to no other class. No words mean that, so that a text classifier learns its embedding."""
_SAME = 1e-4
"""The cosine of two embeddings of one class differs from 1 by less than this."""


@dataclass(frozen=True)
class TextClassifier:
    """A classifier of frozen text embeddings (section 3.3); the logits are their products with the features."""

    tower: str
    """The name or the file of the MaskCLIP whose text tower made the embeddings."""
    width: int
    """The number of channels D of the embeddings and of the features."""


@dataclass(frozen=True)
class StudentConfig:
    """The network and the classes of a student."""

    network: str
    """A name for ``networks.build_network``, or ``CLIP_NETWORK``."""
    class_names: tuple[str, ...]
    """The K classes, in the order of the logits."""
    input_spec: InputSpec
    vision: VisionConfig | None = None
    """The shape of the ResNet of ``CLIP_NETWORK``; ``None`` for the other networks."""
    classifier: TextClassifier | None = None
    """The classifier of text embeddings; ``None``: a 1x1 convolution, which is learnt."""

    def __post_init__(self) -> None:
        if (self.vision is not None) != (self.network == CLIP_NETWORK):
            raise ValueError(f'the network "{CLIP_NETWORK}", and no other, needs the shape of its ResNet')
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class names must be there and differ, got {self.class_names}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudentConfig:
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            TypeError: Names are unknown or missing.
            ValueError: A value is wrong.
        """
        nested = {
            "class_names": tuple(values["class_names"]),
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "vision": VisionConfig(**values["vision"]) if values.get("vision") else None,
            "classifier": TextClassifier(**values["classifier"]) if values.get("classifier") else None,
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class StudentFeatures(ImageFeatures):
    """The logits of all classes."""

    logits: torch.Tensor
    """(B, K, h, w) at the network's own resolution."""

    def places(self) -> torch.Tensor:
        return self.logits


class Student(PromptableSegmenter[StudentFeatures]):
    """Semantic segmentation of a list of classes by an ordinary network; there is no text tower.

    With a text classifier, ``with_classes`` changes the list.
    """

    competition = "softmax"
    light_decode = True

    def __init__(self, name: str, config: StudentConfig) -> None:
        """Builds the network with random weights, and with text embeddings of 0.

        Raises:
            ValueError: There is no such network.
        """
        super().__init__()
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.class_names = config.class_names
        classifier = config.classifier
        channels = len(config.class_names) if classifier is None else classifier.width
        if config.vision is not None:
            self.network = ClipNetwork(config.vision, channels)
        else:
            self.network = build_network(config.network, channels, for_features=classifier is not None)
        if classifier is not None:
            self.register_buffer("text_embeddings", torch.zeros(len(config.class_names), classifier.width))
            learnt = BACKGROUND_CLASS in config.class_names
            self.register_parameter("background", nn.Parameter(torch.randn(1, classifier.width)) if learnt else None)

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Student:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no student.
        """
        return cls(name, StudentConfig.from_dict(config["student"]))

    def file_config(self) -> dict[str, Any]:
        """Returns the configuration of this model for a weight file, as plain values for JSON."""
        return {"kind": "student", "student": self.config.to_dict()}

    @classmethod
    def from_tower(
        cls,
        name: str,
        visual: ModifiedResNet,
        class_names: Sequence[str],
        input_spec: InputSpec,
        classifier: TextClassifier | None = None,
    ) -> Student:
        """Builds a student that begins with copies of CLIP's convolutions; the rest is random.

        Args:
            name: Name of the model.
            visual: The image tower; its attention pool is not needed.
            class_names: The names of the K classes.
            input_spec: The input spec, with the normalisation for which the tower was trained.
            classifier: The classifier, as in ``StudentConfig``.
        """
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        vision = VisionConfig(tuple(map(len, stages)), visual.conv3.out_channels, visual.image_size)
        student = cls(name, StudentConfig(CLIP_NETWORK, tuple(class_names), input_spec, vision, classifier))
        student.network.backbone.load_state_dict(
            {key: value for key, value in visual.state_dict().items() if not key.startswith("attnpool.")}
        )
        return student

    def set_text_embeddings(self, rows: torch.Tensor) -> None:
        """Sets the classifier of a student with a text classifier.

        Args:
            rows: The text embeddings of the classes (K, D), which are made unit vectors; that of ``BACKGROUND_CLASS``
                is not used.

        Raises:
            ValueError: Two classes have one embedding, so that nothing can tell them apart.
        """
        rows = F.normalize(rows.detach().float(), dim=1)
        worded = [place for place, name in enumerate(self.class_names) if name != BACKGROUND_CLASS]
        alike = (rows[worded] @ rows[worded].T).triu(diagonal=1) > 1 - _SAME
        if alike.any():
            one, other = (self.class_names[worded[place]] for place in alike.nonzero()[0].tolist())
            raise ValueError(
                f'the text tower does not tell "{one}" from "{other}": it may know neither word; leave out one of them'
            )
        self.text_embeddings.copy_(rows)

    def with_classes(self, class_names: Sequence[str], rows: torch.Tensor) -> Student:
        """Returns this student with another list of classes; both share the weights of the network.

        Args:
            class_names: The new list. It may hold ``BACKGROUND_CLASS`` if the present list does.
            rows: The text embeddings of the classes (K, D), from the tower of ``config.classifier``.

        Raises:
            ValueError: The classifier is a learnt one, or the list is wrong.
        """
        if self.config.classifier is None:
            raise ValueError(
                f"the classes of {self.name} are learnt and cannot be changed by words: `clip-seg distill --classifier "
                "text` trains a network whose list stays open"
            )
        if BACKGROUND_CLASS in class_names and self.background is None:
            raise ValueError(f'{self.name} was trained without a class "{BACKGROUND_CLASS}", which no words can make')
        other = copy.copy(self)
        other.config = replace(self.config, class_names=tuple(class_names))
        other.class_names = other.config.class_names
        # A module's copy shares the mappings of its original, which must keep its own.
        other._buffers = {**self._buffers, "text_embeddings": torch.zeros_like(rows, dtype=self.text_embeddings.dtype)}
        other._parameters = dict(self._parameters)
        if BACKGROUND_CLASS not in class_names:
            other._parameters["background"] = None
        other.set_text_embeddings(rows)
        return other

    def encode_image(self, pixels: torch.Tensor) -> StudentFeatures:
        """Computes the logits of all classes."""
        maps = self.network(pixels)
        if self.config.classifier is None:
            return StudentFeatures(maps)
        return StudentFeatures(F.conv2d(maps, self._classifier().to(maps.dtype)[:, :, None, None]))

    def _classifier(self) -> torch.Tensor:
        """Returns the unit vectors of the classes, (K, D)."""
        if self.background is None:
            return self.text_embeddings
        place = self.class_names.index(BACKGROUND_CLASS)
        rows = self.text_embeddings
        return torch.cat([rows[:place], F.normalize(self.background, dim=1), rows[place + 1 :]])

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Returns a row for each prompt, (P, K): 1 at the index of its class, 0 elsewhere.

        Raises:
            ValueError: A prompt is not a class of this model.
        """
        places = torch.tensor([self.class_names.index(prompt) for prompt in prompts])
        device = next(self.parameters()).device
        return TextFeatures(F.one_hot(places, len(self.class_names)).float().to(device))

    def decode(self, image: StudentFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns the logits (B, P, h, w) of the prompts, at the network's own resolution."""
        return image.logits[:, text.pooled.argmax(dim=1)]


def imagenet_input(short_side: int) -> InputSpec:
    """Returns a student's input spec: a short side of ``short_side`` pixels, and ImageNet's normalisation."""
    return InputSpec(short_side, "short_side", MULTIPLE, IMAGENET_MEAN, IMAGENET_STD)
