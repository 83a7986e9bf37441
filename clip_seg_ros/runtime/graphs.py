# SPDX-License-Identifier: Apache-2.0
"""The parts of a model as graphs of tensors, which other runtimes can run: image encoder, decoder and text tower.

    pixels (B, 3, h, w) -> encoder -> feature_0, feature_1, ... -> decoder -> logits (B, P, h', w')
    token_ids (P, L) -> text -> text_pooled (P, D), for some models also text_tokens, text_padding --^

The height and the width of the pixels are fixed in a graph; the numbers of images B and of prompts P are not, except
that a model with a list of classes is asked for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.text_tower import in_templates

Size = tuple[int, int]
"""(h, w) of a model's pixels."""
FeaturesT = TypeVar("FeaturesT", bound=ImageFeatures)

PIXELS, TOKEN_IDS, LOGITS = "pixels", "token_ids", "logits"
TEXT_INPUTS = ("text_pooled", "text_tokens", "text_padding")
"""The names of the fields of ``TextFeatures`` in a graph, in their order; a model has the first or all."""
# Dimensions of 1 would be taken for fixed ones, and equal dimensions for the same one.
_BATCH, _PROMPTS = 2, 3
_COMMON_SOURCE = (480, 640)
"""(H, W) of the camera images of most robots."""


def feature_tensors(features: ImageFeatures) -> tuple[torch.Tensor, ...]:
    """Returns all tensors of image features, in the order of the fields."""
    tensors: list[torch.Tensor] = []

    def collect(tensor: torch.Tensor) -> torch.Tensor:
        tensors.append(tensor)
        return tensor

    features.mapped(collect)
    return tuple(tensors)


def with_tensors(template: FeaturesT, tensors: Iterable[torch.Tensor]) -> FeaturesT:
    """Returns image features that are ``template`` with ``tensors``, in the order of ``feature_tensors``."""
    remaining = iter(tensors)
    return template.mapped(lambda _: next(remaining))


def feature_layout(features: ImageFeatures) -> tuple[Any, ...]:
    """Returns what two image features have in common if one decoder's graph fits both.

    That are their class, the shapes of their tensors without the batch, and their plain values.
    """

    def layout(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return tuple(value.shape[1:])
        return tuple(map(layout, value)) if isinstance(value, tuple) else value

    return (type(features), *(layout(getattr(features, item.name)) for item in fields(features)))


def text_tensors(text: TextFeatures) -> tuple[torch.Tensor, ...]:
    """Returns the fields of ``text`` that are there, in the order of ``TEXT_INPUTS``."""
    return tuple(part for part in (text.pooled, text.tokens, text.padding_mask) if part is not None)


def usual_size(model: PromptableSegmenter) -> Size:
    """Returns the size of a model's pixels: that of every image, or else that of 640x480 images."""
    return model.input_spec.encoder_size(_COMMON_SOURCE)


class ImageEncoder(nn.Module):
    """``encode_image`` of a model, with its features as a tuple of tensors."""

    def __init__(self, model: PromptableSegmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encodes normalised pixels (B, 3, h, w) to tensors with the batch first."""
        return feature_tensors(self.model.encode_image(pixels))


class Decoder(nn.Module):
    """``decode`` of a model, from the tensors of image features and of text features.

    Args:
        model: The model.
        template: Image features of any batch, whose tensors are replaced.
    """

    def __init__(self, model: PromptableSegmenter, template: ImageFeatures) -> None:
        super().__init__()
        self.model = model
        self.template = template
        self.count = len(feature_tensors(template))

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Returns logits (B, P, h', w') for the tensors of the image, followed by those of the text."""
        image = with_tensors(self.template, tensors[: self.count])
        return self.model.decode(image, TextFeatures(*tensors[self.count :]))


class TextTower(nn.Module):
    """``encode_token_ids`` of a model, with its features as a tuple of tensors."""

    def __init__(self, model: PromptableSegmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encodes token ids (P, L), or (P, T, L) with templates, to tensors with the prompts first."""
        return text_tensors(self.model.encode_token_ids(token_ids))


@dataclass(frozen=True)
class Graph:
    """A module as torch exported it, with what a converter to another format needs besides."""

    program: torch.export.ExportedProgram
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_shapes: tuple[tuple[int | str, ...], ...]
    """The dimensions of each input; a name, such as "batch", stands for any number."""

    @property
    def attends(self) -> bool:
        """Whether there is attention in it, as in transformers."""
        return any("scaled_dot_product" in str(node.target) for node in self.program.graph.nodes)

    @property
    def open_shapes(self) -> list[list[int]]:
        """The dimensions of each input; -1 stands for any number."""
        return [[-1 if isinstance(side, str) else side for side in shape] for shape in self.input_shapes]


@torch.inference_mode(False)
@torch.no_grad()
def image_graphs(model: PromptableSegmenter, size: Size, with_decoder: bool) -> dict[str, Graph]:
    """Exports the "encoder" and the "decoder" of a model for pixels of one size.

    The model may answer in other threads at the same time.

    Args:
        model: A model in float32 on the CPU, in evaluation mode.
        size: (h, w) of the pixels.
        with_decoder: Whether the decoder is wanted.

    Raises:
        RuntimeError: torch cannot export the model.
    """
    if model.finds_objects:
        raise RuntimeError(f"{model.name} finds objects one by one, and only PyTorch runs such models")
    if not hasattr(torch, "export"):
        raise RuntimeError(f"torch {torch.__version__} is too old to export models: 2.5 or newer is needed")
    pixels = torch.zeros(_BATCH, 3, *size)
    # What a model keeps for a size is made of real numbers here, and not of those that stand for them in an export.
    features = model.encode_image(pixels)
    model = _own_modules(model)
    tensors = feature_tensors(features)
    names = tuple(f"feature_{index}" for index in range(len(tensors)))
    graphs = {"encoder": _exported(ImageEncoder(model), [pixels], ["batch"], (PIXELS,), names)}
    if with_decoder:
        text = _some_text(model)
        open_axes = ["batch"] * len(tensors) + [None if model.class_names else "prompts"] * len(text)
        decoder = Decoder(model, emptied(features))
        graphs["decoder"] = _exported(
            decoder, [*tensors, *text], open_axes, (*names, *TEXT_INPUTS[: len(text)]), (LOGITS,)
        )
    return graphs


@torch.inference_mode(False)
@torch.no_grad()
def text_graph(model: PromptableSegmenter) -> Graph:
    """Exports the text tower of a model with an open vocabulary, for texts of the tokenizer's full length.

    Args:
        model: A model in float32 on the CPU, in evaluation mode.

    Raises:
        RuntimeError: torch cannot export the model.
    """
    token_ids = tokenised(model, _some_prompts(model))
    outputs = TEXT_INPUTS[: len(text_tensors(model.encode_token_ids(token_ids)))]
    return _exported(TextTower(_own_modules(model)), [token_ids], ["prompts"], (TOKEN_IDS,), outputs)


def templates_of(model: PromptableSegmenter) -> tuple[str, ...]:
    """Returns the sentences in which a model reads each prompt, with "{}" for it; empty if it reads the prompt alone.

    A model of which ``encode_token_ids`` takes three dimensions has them in its configuration.
    """
    return tuple(getattr(getattr(model, "config", None), "templates", ()))


def tokenised(model: PromptableSegmenter, prompts: Sequence[str]) -> torch.Tensor:
    """Returns the token ids of P prompts for the text tower of ``model``."""
    templates = templates_of(model)
    if not templates:
        return model.tokenizer(prompts)
    return model.tokenizer(in_templates(prompts, templates)).unflatten(0, (len(prompts), len(templates)))


@torch.inference_mode()
def features_without_numbers(model: PromptableSegmenter, size: Size) -> ImageFeatures:
    """Returns the features of one image with pixels of ``size`` as tensors that have shapes alone, at no cost."""
    shapes = {id(value): nn.Parameter(value.to("meta"), requires_grad=False) for value in model.parameters()}
    shapes.update((id(value), value.to("meta")) for value in model.buffers())
    return copy.deepcopy(model, shapes).encode_image(torch.empty(1, 3, *size, device="meta"))


def emptied(features: FeaturesT) -> FeaturesT:
    """Returns a template for ``with_tensors`` that keeps no memory."""
    return features.mapped(lambda tensor: tensor.new_empty(0))


def _exported(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    open_axes: Sequence[str | None],
    input_names: tuple[str, ...],
    output_names: tuple[str, ...],
) -> Graph:
    """Exports ``module``; ``open_axes`` names the first dimension of each input whose size is open."""
    dimensions = {name: torch.export.Dim(name, min=1, max=4096) for name in open_axes if name}
    dynamic = tuple({0: dimensions[name]} if name else {} for name in open_axes)
    variadic = isinstance(module, Decoder)
    try:
        program = torch.export.export(
            module.eval(), tuple(inputs), dynamic_shapes=(dynamic,) if variadic else dynamic, strict=False
        )
    except Exception as error:
        # torch raises errors of many kinds, most of them of modules that are its own.
        raise RuntimeError(f"torch {torch.__version__} cannot export the model: {error}") from error
    shapes = tuple((name or x.shape[0], *x.shape[1:]) for name, x in zip(open_axes, inputs))
    return Graph(program, input_names, output_names, shapes)


def _some_text(model: PromptableSegmenter) -> tuple[torch.Tensor, ...]:
    """Returns the text tensors of all classes of a model, or of a few prompts."""
    return text_tensors(model.encode_text(model.class_names or _some_prompts(model)))


def _some_prompts(model: PromptableSegmenter) -> tuple[str, ...]:
    # Any tokenizer reads digits, also one whose prompts are ids.
    return tuple(str(index) for index in range(1, _PROMPTS + 1))


def _own_modules(model: PromptableSegmenter) -> PromptableSegmenter:
    """Returns a copy that shares the weights: an export puts stand-ins into the modules while it runs."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
