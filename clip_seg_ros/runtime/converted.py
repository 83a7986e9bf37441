# SPDX-License-Identifier: Apache-2.0
"""What the engines have in common that run a model converted to another format, beside the model itself."""

from __future__ import annotations

import logging
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.checkpoints import sha256
from clip_seg_ros.runtime.conversion import convert_elsewhere
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import Engine, EngineUnavailable
from clip_seg_ros.runtime.engine_cache import METADATA, EngineCache, engine_key, form_of
from clip_seg_ros.runtime.graphs import (
    Graph,
    Size,
    emptied,
    feature_layout,
    feature_tensors,
    features_without_numbers,
    image_graphs,
    text_tensors,
    usual_size,
    with_tensors,
)
from clip_seg_ros.runtime.sizes import BuiltSizes

Network = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]
"""Runs a converted graph: tensors in the order of its inputs -> new tensors in the order of its outputs. It is safe to
call from several threads."""
PROMPTS_AT_ONCE = 8
"""The most phrases that are decoded in one call. The other runtimes keep the memory of their largest call for ever,
which is 7 MB a phrase with the embedded CLIPSeg in OpenVINO, and on a CPU more at once are no faster."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """A model that was converted for one size of pixels."""

    encoder: Network
    decoder: Network | None
    """``None`` if torch decodes."""
    template: ImageFeatures
    """The features of the model without their numbers."""
    layout: tuple
    """The ``feature_layout`` that the decoder takes."""


class ConvertedEngine(Engine):
    """Runs image encoder and decoder in another runtime, and all else in torch.

    It holds the model, too: torch encodes texts and example images, and answers for images of a size for which nothing
    has been converted yet. Its image features are the model's own.

    Args:
        model: A model with loaded weights and folded batch norms. It is moved to the CPU in float32.
        precision: Precision of the converted model.
        cache_dir: The folder of converted models; by default in the user's cache.

    Raises:
        EngineUnavailable: The model cannot be converted, or, for "int8", was not exported for any size.
    """

    file_format: str
    packages: tuple[str, ...]
    """The packages that convert the model, whose versions count."""

    def __init__(self, model: PromptableSegmenter, precision: str, cache_dir: Path | None = None) -> None:
        self._eager = EagerEngine(model, "cpu", "float32")
        self.model, self.spec, self.device, self.precision = model, model.spec, torch.device("cpu"), precision
        self._fingerprint = self._eager.fingerprint()
        self._cache = EngineCache(cache_dir)
        self._identity = ""
        self._cache_dir = cache_dir
        self._sizes: BuiltSizes[Converted] = BuiltSizes(self._build)
        self.start_size = self._start_size()
        self.prepare(self.start_size)

    def prepare(self, size: Size) -> None:
        """Converts the model for pixels of ``size`` (h, w) before images of it come; this may take a minute.

        Raises:
            EngineUnavailable: The model cannot be converted, or, for "int8", was not exported for this size.
        """
        self._sizes.prepare(size)

    def wait(self) -> None:
        """Waits until no size is being converted."""
        self._sizes.wait()

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        converted = self._sizes.get((pixels.shape[2], pixels.shape[3]))
        if converted is None:
            return self._eager.encode_image(pixels)
        return with_tensors(converted.template, converted.encoder([pixels]))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return self._eager.encode_text(prompts)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        decoder = self._decoder(image)
        asked, names = text.pooled.shape[0], self.spec.class_names
        # A part of the classes, or too many: the model itself says what it makes of that.
        if decoder is None or (names is not None and asked != len(names)):
            return self._eager.decode(image, text)
        features, texts = feature_tensors(image), text_tensors(text)
        # Classes of a fixed list may depend on each other, phrases do not.
        most = max(asked, 1) if names is not None else PROMPTS_AT_ONCE
        parts = zip(*(tensor.split(most) for tensor in texts), strict=True)
        logits = [decoder([*features, *part])[0] for part in parts]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return self._eager.probabilities(logits)

    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def identity(self) -> str:
        """What tells one int8 export of a model from another one, as hexadecimal digits; empty for other precisions."""
        return self._identity

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        return self._eager.encode_example(pixels, text, text_weight)

    @abstractmethod
    def _write(self, folder: Path, size: Size) -> dict[str, object]:
        """Converts the model and writes "encoder" and, unless torch decodes, "decoder"; returns metadata."""

    @abstractmethod
    def _read(self, folder: Path, part: str) -> Network:
        """Loads "encoder" or "decoder" from a folder that ``_write`` or an export filled."""

    def _start_size(self) -> Size:
        """Returns the usual size; if int8 was exported for others alone, the one of them that was used last."""
        usual = usual_size(self.model)
        if self.precision != "int8" or (self._cache.folder / self._key(usual)).is_dir():
            return usual
        return next(iter(self._cache.sizes(self._key, form_of(self.file_format, self.precision))), usual)

    def _decoder(self, image: ImageFeatures) -> Network | None:
        if self.model.light_decode:
            return None
        layout = feature_layout(image)
        return next((built.decoder for built in self._sizes.values() if built.layout == layout), None)

    def _build(self, size: Size) -> Converted:
        try:
            encoder, decoder = self._networks(size)
        except (OSError, RuntimeError) as error:
            raise EngineUnavailable(f"{self.model.name} cannot be converted for {self.name}: {error}") from error
        features = features_without_numbers(self.model, size)
        return Converted(encoder, decoder, emptied(features), feature_layout(features))

    def _networks(self, size: Size) -> tuple[Network, Network | None]:
        """Returns the encoder and the decoder from the cache, into which they are put if they are not there."""

        def read(folder: Path) -> tuple[Network, Network | None]:
            decoder = None if self.model.light_decode else self._read(folder, "decoder")
            return self._read(folder, "encoder"), decoder

        folder = self._found(size) or self._converted_elsewhere(size)
        if folder is not None:
            if self.precision == "int8":
                self._identity = sha256(folder / METADATA)[:16]
            return read(folder)
        try:
            return read(self._cache.store(self._key(size), lambda folder: self._write(folder, size)))
        except OSError as error:
            _LOG.warning("the converted model cannot be kept and is made again at each start: %s", error)
            with tempfile.TemporaryDirectory(prefix="clip_seg_ros_engine_") as passing:
                self._write(Path(passing), size)
                return read(Path(passing))

    def _converted_elsewhere(self, size: Size) -> Path | None:
        """Has another process fill the cache; returns the folder, or ``None`` if this process must convert."""
        _LOG.info("converting %s for %s and pixels of %dx%d", self.model.name, self.name, size[1], size[0])
        try:
            convert_elsewhere(type(self), self.model, self.precision, self._cache_dir, size)
        except (OSError, RuntimeError) as error:
            _LOG.debug("the model is converted in this process: %s", error)
        return self._cache.find(self._key(size))

    def _found(self, size: Size) -> Path | None:
        """Returns the folder in the cache; ``None`` if the model must be converted first."""
        folder = self._cache.find(self._key(size))
        if folder is None and self.precision == "int8":
            # Images of this size have pixels of this size.
            other = "" if size == usual_size(self.model) else f" --image-size {size[1]}x{size[0]}"
            raise EngineUnavailable(
                f"there is no int8 export of {self.model.name} for {self.name} and pixels of {size[1]}x{size[0]}: type "
                f"`clip-seg export {self.model.name} --format {self.file_format} --precision int8 "
                f"--calibration FOLDER{other}`"
            )
        return folder

    def _key(self, size: Size) -> str:
        form = form_of(self.file_format, self.precision)
        return engine_key(self.model, self._fingerprint, form, size, self.packages)

    def _graphs(self, size: Size) -> dict[str, Graph]:
        return image_graphs(self.model, size, with_decoder=not self.model.light_decode)
