# SPDX-License-Identifier: Apache-2.0
"""Converts SAM 3 as the Hugging Face hub has it: of Meta's file, which is for videos, too, the detector of images.

Options: ``phrase_map`` (see ``SAM3Config``), ``antialias``; ``config``, the values of the ``config.json`` beside the
file, without which the sizes of Meta's weights are assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import Converted, Source, antialiased, assemble, shapes_of
from clip_seg_ros.models.sam3.model import SAM3, SAM3Config
from clip_seg_ros.models.sam3.network import network_values
from clip_seg_ros.models.spec import InputSpec

USER_OPTIONS = frozenset({"phrase_map", "antialias"})
OPTIONS = USER_OPTIONS | {"config"}
_OWN = "network."
_DETECTOR = "detector_model."
_TRACKER = ("tracker_model.", "tracker_neck.")
_HALF = (0.5, 0.5, 0.5)


def matches(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a SAM 3, for images or for videos."""
    names = {key.removeprefix(_DETECTOR).partition(".")[0] for key in tensors}
    return {"vision_encoder", "detr_decoder"} <= names


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the options that can be checked without a file.

    Raises:
        ValueError: A value is wrong.
    """
    SAM3Config({}, _input_spec(1008, 14, options), **_readout(options))


def convert(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a model of a published file.

    Raises:
        ValueError: An option is wrong.
        WeightsError: transformers is missing, or keys are missing, unexpected or mis-shaped.
    """
    network = network_values(options.get("config"))
    tower, text = network["vision_config"]["backbone_config"], network["text_config"]
    own = SAM3Config(network, _input_spec(tower["image_size"], tower["patch_size"], options), **_readout(options))
    config = {
        "kind": "sam3",
        "sam3": own.to_dict(),
        "tokenizer": tokenizer_config(text["vocab_size"], text["max_position_embeddings"]),
    }
    prefix = _DETECTOR if any(key.startswith(_DETECTOR) for key in tensors) else ""
    wanted = shapes_of(lambda: SAM3.from_config("", config))

    def source(key: str) -> Source:
        return Source((f"{prefix}{key.removeprefix(_OWN)}",))

    return Converted(config, assemble(wanted, source, tensors, origin, lambda key: key.startswith(_TRACKER)))


def _input_spec(image_px: int, patch_px: int, options: Mapping[str, Any]) -> InputSpec:
    return InputSpec(image_px, "squash", patch_px, _HALF, _HALF, antialias=antialiased(options))


def _readout(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"phrase_map": options["phrase_map"]} if "phrase_map" in options else {}
