# SPDX-License-Identifier: Apache-2.0
"""Example images as prompts, by the services ``set_image_prompt``, ``list_prompts`` and ``remove_prompt``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.nodes.camera.conversions import ConversionError, image_to_rgb
from clip_seg_ros.nodes.common.answering_services import AnsweringServices
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.pipeline.model_host import ModelHost
from clip_seg_ros.pipeline.naming import as_commands_say, checked_name, not_too_long
from clip_seg_ros.srv import ListPrompts, RemovePrompt, SetImagePrompt

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor

MAX_EXAMPLES = 64
MAX_BYTES = 2**28
"""The largest size of all examples together, which are kept for models that are loaded later."""


@dataclass(frozen=True)
class _Example:
    """The example of one prompt."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool."""
    text: str | None
    text_weight: float

    @property
    def size_bytes(self) -> int:
        """The memory that the example occupies, in bytes."""
        return self.rgb.nbytes + self.mask.nbytes

    def teach(self, name: str, predictor: Predictor) -> None:
        """Makes ``name`` mean this example; raises ValueError if the model or the example is unsuitable."""
        predictor.add_image_prompt(name, self.rgb, self.mask, self.text, self.text_weight)


class ImagePrompts:
    """Keeps the examples, so that a model that is loaded later learns them, too.

    Args:
        core: The objects that the parts of the node share.
        host: Holder of the model in service, which learns an example at once.
        on_change: Called with every name whose meaning has changed.
    """

    def __init__(self, core: NodeCore, host: ModelHost, on_change: Callable[[str], None]) -> None:
        self._core, self._host, self._on_change = core, host, on_change
        self._examples: dict[str, _Example] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: object) -> bool:
        return name in self._examples

    def open(self) -> None:
        """Creates the services."""
        # Examples are taught one at a time, and commands do not wait for that.
        self._services = AnsweringServices(self._core.node, self._core.calls, self._core.faults)
        for kind, name, answer in (
            (SetImagePrompt, "set_image_prompt", self._set),
            (ListPrompts, "list_prompts", self._list),
            (RemovePrompt, "remove_prompt", self._remove),
        ):
            self._services.offer(kind, name, answer)

    def close(self) -> None:
        """Destroys the services; the examples stay."""
        self._services.close()

    def teach(self, predictor: Predictor) -> None:
        """Teaches another model all examples; reports a fault for each one that it cannot learn."""
        with self._lock:
            examples = dict(self._examples)
        for name, example in examples.items():
            try:
                example.teach(name, predictor)
            except ValueError as error:
                note = f'"{name}" means its words now: {error}'
                self._core.faults.report("image prompt", f"{predictor.spec.name} {name}", note)

    def learn(self, name: str, rgb: np.ndarray, mask: np.ndarray) -> None:
        """Makes a name, from ``checked_name``, mean the thing in a mask (H, W) bool of an image (H, W, 3) uint8.

        Raises:
            ValueError: The model takes no examples, or there are too many.
            RuntimeError: The node ends.
        """
        self._learn(name, _Example(rgb, mask, None, 0.5))

    def _learn(self, name: str, example: _Example) -> None:
        with self._lock:
            if len(self._examples) >= MAX_EXAMPLES and name not in self._examples:
                raise ValueError(f"there are {MAX_EXAMPLES} image prompts already: remove one first")
            kept = (other.size_bytes for named, other in self._examples.items() if named != name)
            if sum(kept) + example.size_bytes > MAX_BYTES:
                most = f"{MAX_BYTES // 2**20} MiB"
                raise ValueError(f"the examples would take more than {most}: remove one or show a smaller image")
            example.teach(name, self._host.predictor)
            if self._core.calls.refusal:  # the caller already has this refusal, or gets it now
                raise RuntimeError(self._core.calls.refusal)
            self._examples[name] = example
        self._core.sizes.saw("example", example.rgb.shape)
        self._on_change(name)

    def _set(self, request: SetImagePrompt.Request, response: SetImagePrompt.Response) -> SetImagePrompt.Response:
        try:
            self._learn(name := checked_name(request.name), _read(request))
        except (ValueError, RuntimeError) as error:
            response.message = str(error)
        else:
            response.success, response.message = True, f'"{name}" now means what the example shows'
        self._core.node.get_logger().info(f"set_image_prompt: {response.message}")
        return response

    def _list(self, request: ListPrompts.Request, response: ListPrompts.Response) -> ListPrompts.Response:
        with self._lock:
            response.names = list(self._examples)
            response.texts = [example.text or "" for example in self._examples.values()]
        return response

    def _remove(self, request: RemovePrompt.Request, response: RemovePrompt.Response) -> RemovePrompt.Response:
        try:
            name = as_commands_say(request.name)
        except ValueError as error:
            response.message = str(error)
            return response
        with self._lock:
            if name not in self._examples:
                there = ", ".join(self._examples) or "none"
                response.message = f'there is no image prompt "{name}"; there are: {there}'
                return response
            del self._examples[name]
            with suppress(KeyError, RuntimeError):  # the present model never learnt it
                self._host.predictor.remove_image_prompt(name)
        self._on_change(name)
        response.success, response.message = True, f'"{name}" means its words again'
        return response


def _read(request: SetImagePrompt.Request) -> _Example:
    """Reads the example of a request. Raises ValueError if the image, the mask, the text or the weight is wrong."""
    text = not_too_long(request.text.strip())
    try:
        rgb = image_to_rgb(request.image)
    except ConversionError as error:
        raise ValueError(f"image: {error}") from error
    mask = np.ones(rgb.shape[:2], np.bool_)
    if request.mask.height or request.mask.width:
        if request.mask.encoding not in ("mono8", "8UC1"):
            raise ValueError(f"the mask must be mono8 or 8UC1, got {request.mask.encoding!r}")
        try:
            mask = image_to_rgb(request.mask)[:, :, 0] > 0
        except ConversionError as error:
            raise ValueError(f"mask: {error}") from error
    if mask.shape != rgb.shape[:2]:
        size, wanted = f"{mask.shape[1]}x{mask.shape[0]}", f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise ValueError(f"the mask is {size}, the image {wanted}: they must have the same size")
    if not 0.0 <= request.text_weight <= 1.0:
        raise ValueError(f"text_weight must lie in 0..1, got {request.text_weight:g}")
    return _Example(rgb, mask, text or None, request.text_weight or 0.5)
