# SPDX-License-Identifier: Apache-2.0
"""Measures whether an engine may stand for the eager engine in float32: whether it says the same, and how soon."""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.runtime.agreement import answers, compare
from clip_seg_ros.runtime.engine import Engine
from clip_seg_ros.runtime.samples import sample_pixels, sample_prompts, usual_prompts
from clip_seg_ros.runtime.verdicts import Verdict

ROUNDS = 9
"""How often both engines are timed, in turns, so that other work on the machine disturbs both alike."""
ENOUGH_S = 4.0
"""The time after which no further round is begun, once there are three."""
_SHARED_TEXTS = ("openvino", "onnxruntime")
"""The engines whose texts are encoded by torch in float32."""


class Gate:
    """Compares engines of a model with the engine that is right.

    Args:
        reference: The eager engine in float32.
    """

    @torch.inference_mode()
    def __init__(self, reference: Engine) -> None:
        self._reference = reference
        self._pixels = sample_pixels(reference.spec.input)
        self._prompts = sample_prompts(reference.spec)
        self._text = reference.encode_text(self._prompts)
        self._expected = answers(reference, self._pixels, self._text)
        self._usual_prompts = usual_prompts(reference.spec)
        self._usual_text = reference.encode_text(self._usual_prompts)

    @torch.inference_mode()
    def measure(self, engine: Engine) -> Verdict:
        """Runs both engines on the sample images, at the size for which the engine is ready.

        It may raise whatever the engine raises.
        """
        # To encode the texts of 85 templates again takes seconds.
        is_shared = engine.name in _SHARED_TEXTS and engine.device == self._reference.device
        text, usual = (self._text, self._usual_text) if is_shared else self._texts(engine)
        spec = self._reference.spec
        pixels, expected = self._samples(engine.start_size)
        agreement = compare(expected, answers(engine, pixels, text), spec.competition, spec.threshold)
        return Verdict(agreement, self._speedup(engine, pixels[:1], usual) if agreement.is_good else 0.0)

    def _samples(self, size: tuple[int, int] | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Returns pixels of ``size`` (h, w), or those of a usual camera, and the reference's answers to them."""
        if size is None or size == tuple(self._pixels[0].shape[2:]):
            return self._pixels, self._expected
        resized = [functional.interpolate(each, size=size, mode="bilinear", antialias=True) for each in self._pixels]
        return resized, answers(self._reference, resized, self._text)

    def _texts(self, engine: Engine) -> tuple[TextFeatures, TextFeatures]:
        return engine.encode_text(self._prompts), engine.encode_text(self._usual_prompts)

    def _speedup(self, engine: Engine, pixels: list[torch.Tensor], text: TextFeatures) -> float:
        """Returns how many times as fast as the reference the engine is on ``pixels``, those of one image.

        ``text`` are the features of a robot's usual command.
        """
        sides = ((self._reference, self._usual_text), (engine, text))
        gains: list[float] = []
        started = time.perf_counter()
        for turn in range(ROUNDS):
            if turn >= 3 and time.perf_counter() - started > ENOUGH_S:
                break
            taken: list[float] = []
            for side in sides:
                # The other side's threads may still wait busily for work, which takes the processor from this one.
                answers(side[0], pixels, side[1])
                start = time.perf_counter()
                # The logits come to the processor, for which a GPU must have done its work.
                answers(side[0], pixels, side[1])
                taken.append(time.perf_counter() - start)
            gains.append(taken[0] / taken[1])
        # The processor's speed may change between turns, hardly within one.
        return statistics.median(gains)
