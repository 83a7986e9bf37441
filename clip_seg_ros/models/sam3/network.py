# SPDX-License-Identifier: Apache-2.0
"""Builds the network of SAM 3, which is transformers' own. This is the only folder that imports transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# It makes torchvision importable, which transformers needs for SAM 3.
import clip_seg_ros.models.clip.backbone  # noqa: F401
from clip_seg_ros.models.checkpoints import WeightsError

_OLDEST = (5, 24)
"""The first version of transformers whose SAM 3 is called as it is here."""
_INSTALL = "type `pip install clip_seg_ros[sam3]`, or in a clone `pip install .[sam3]`"
_VIDEO = "detector_config"


def require_transformers() -> Any:
    """Imports transformers, which takes seconds and which few models need.

    Raises:
        WeightsError: It is missing, or too old to know SAM 3.
    """
    try:
        import transformers
    except ImportError as error:
        raise WeightsError(f"SAM 3 needs transformers, which cannot be imported ({error}): {_INSTALL}") from error
    version = transformers.__version__
    if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST:
        raise WeightsError(f"transformers {version} is too old for SAM 3: {_INSTALL}")
    return transformers


def network_values(published: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns a whole configuration of the network as plain values.

    Args:
        published: The values of a ``config.json``, of SAM 3 for images or for video; ``None``: those of Meta's weights.

    Raises:
        ValueError: They are those of another model, or wrong.
        WeightsError: transformers is missing or too old.
    """
    return _config(published or {}).to_dict()


def build_network(values: Mapping[str, Any]) -> nn.Module:
    """Returns the network with random weights, from the values of ``network_values``.

    Raises:
        ValueError: The values are wrong.
        WeightsError: transformers is missing or too old.
    """
    return require_transformers().Sam3Model(_config(values))


def vision_embeds(network: nn.Module, maps: tuple[torch.Tensor, ...]) -> Any:
    """Puts the maps of images into the form in which the network takes them, with their positions."""
    from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

    encode = network.vision_encoder.neck.position_encoding
    positions = tuple(encode(each.shape, each.device, each.dtype) for each in maps)
    # The network leaves out the last map of its own tower.
    return Sam3VisionEncoderOutput(fpn_hidden_states=(*maps, None), fpn_position_encoding=(*positions, None))


def text_embeds(tokens: torch.Tensor) -> Any:
    """Puts the features of tokens (N, L, C) into the form in which the network takes them."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return BaseModelOutputWithPooling(pooler_output=tokens)


def _config(values: Mapping[str, Any]) -> Any:
    kind = values.get("model_type", "sam3")
    if kind not in ("sam3", "sam3_video"):
        raise ValueError(f'the configuration is that of a "{kind}", and not of SAM 3')
    # Meta's file holds the tracker of videos beside the detector of images.
    values = values.get(_VIDEO) or values
    try:
        return require_transformers().Sam3Config.from_dict(dict(values))
    except WeightsError:
        raise
    except Exception as error:  # whatever transformers' own checks raise, which is another one in each release
        raise ValueError(f"the configuration is none of SAM 3 ({type(error).__name__}: {error})") from error
