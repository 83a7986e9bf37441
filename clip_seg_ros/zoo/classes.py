# SPDX-License-Identifier: Apache-2.0
"""Changes the list of classes of a student by words, with the text tower that made its classifier (MaskCLIP+)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.maskclip.model import MaskCLIP
from clip_seg_ros.models.student.model import BACKGROUND_CLASS, Student
from clip_seg_ros.zoo.factory import build_segmenter

_LEAST_COSINE = 0.99
"""The cosine of the embeddings that one tower makes of one class; a file that holds float16 rounds them."""


def with_classes(
    model: PromptableSegmenter, class_names: Sequence[str], tower: str | None = None, weights_dir: Path | None = None
) -> Student:
    """Returns a student with another list of classes; both share the weights of the network.

    Args:
        model: A student with a text classifier.
        class_names: The new list: classes that it has already, and any other words.
        tower: The name or the file of the MaskCLIP whose text tower made the present classifier; by default the one
            that the student names.
        weights_dir: The folder of the weight files, as in ``factory.build_segmenter``.

    Raises:
        ValueError: The model has no text classifier, the list is wrong, or there is no such tower.
        WeightsError: The tower's weights are not there, or the classifier was made by another tower.
    """
    if not isinstance(model, Student) or model.config.classifier is None:
        raise ValueError(
            f"{model.name} has no classifier of text embeddings, to which words could be added: `clip-seg distill "
            "--classifier text` trains a network that has one"
        )
    known = dict(zip(model.class_names, model.text_embeddings.float().cpu()))
    worded = [name for name in known if name != BACKGROUND_CLASS]
    added = [name for name in class_names if name not in known]
    # The background's row stands for none, because its embedding is learnt.
    rows = {name: known[name] for name in class_names if name in known}
    if added:
        encoded = _encode(tower or model.config.classifier.tower, [worded[0], *added], weights_dir)
        if len(encoded[0]) != len(known[worded[0]]) or encoded[0] @ known[worded[0]] < _LEAST_COSINE:
            raise WeightsError(
                f"{tower or model.config.classifier.tower} is not the text tower that made the classifier of "
                f"{model.name}: name the weights that did"
            )
        rows |= dict(zip(added, encoded[1:]))
    return model.with_classes(class_names, torch.stack([rows[name] for name in class_names]).to(model.text_embeddings))


def _encode(tower: str, phrases: Sequence[str], weights_dir: Path | None) -> torch.Tensor:
    """Returns the text embeddings (P, D) of unit length on the CPU."""
    encoder = build_segmenter(tower, weights_dir)
    if not isinstance(encoder, MaskCLIP) or encoder.class_names is not None:
        raise ValueError(f"{tower} holds no text tower for any phrase: name a MaskCLIP")
    for phrase in phrases:
        if unknown := encoder.unknown_words(phrase):
            raise ValueError(f'{tower} never learnt {", ".join(unknown)} of "{phrase}": use other words')
    with torch.inference_mode():
        return F.normalize(encoder.encode_text(phrases).pooled, dim=1).clone()
