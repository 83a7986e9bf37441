# SPDX-License-Identifier: Apache-2.0
"""The public entry to all models: encode an image once, then ask about many prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.class_labels import ClassMap, classified, require_count
from clip_seg_ros.pipeline.deciding import Rules, decide
from clip_seg_ros.pipeline.examples import embedded_example, require_examples
from clip_seg_ros.pipeline.instances import Instance, class_map_of, distinct, distinct_of_each, instances_of
from clip_seg_ros.pipeline.mixing import mixing
from clip_seg_ros.pipeline.preprocess import Geometry, Preprocessor
from clip_seg_ros.pipeline.prompts import checked_prompts, competitors, places
from clip_seg_ros.pipeline.sliding import Box, merge_windows, window_boxes
from clip_seg_ros.pipeline.stopwatch import Stopwatch, timed
from clip_seg_ros.pipeline.text_cache import TextCache
from clip_seg_ros.runtime.choice import build_engine, require_names
from clip_seg_ros.runtime.chosen import Chosen, EngineWarning
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import Engine
from clip_seg_ros.types import ProbabilityMaps
from clip_seg_ros.zoo.caution import EmbeddedWeightsWarning, in_programs


@dataclass(frozen=True)
class EncodedImage:
    """The features of an image; ``Predictor.encode`` makes them for ``Predictor.ask``."""

    features: ImageFeatures
    """A batch of one, or of all windows of the image."""
    geometry: Geometry
    windows: tuple[Box, ...] | None = None
    """The boxes of the windows, for a model that sees an image through sliding windows."""


_LEAST_DOUBT = 1e-6
"""The distance from 0 and 1 that probabilities keep when they are interpolated as log odds."""
_warned: set[str] = set()
"""What the callers of ``Predictor.from_name`` were warned of already: kinds of warnings, and reasons."""


def _warn_once(key: str, words: str, category: type[Warning]) -> None:
    """Warns the caller of ``Predictor.from_name``, once in a process."""
    if key not in _warned:
        _warned.add(key)
        warnings.warn(words, category, stacklevel=3)


class Predictor:
    """Segments the objects that phrases name in images.

    A predictor holds no image: ``encode`` returns the features of an image, and ``ask`` takes them with the prompts, as
    often as there are questions. Text features are cached. It is safe to use from several threads.

    Args:
        engine: Runs the model; ``from_model`` and ``from_name`` make one.
        chosen: Says why it is this engine, where it was chosen.

    Examples:
        >>> predictor = Predictor.from_name("clipseg-pocket")
        >>> rgb = np.full((480, 640, 3), 127, np.uint8)
        >>> encoded = predictor.encode(rgb)
        >>> predictor.ask(encoded, ["red cup", "blue box"]).values.shape
        (2, 480, 640)
        >>> predictor.predict(rgb, ["green ball"]).prompts
        ('green ball',)
    """

    def __init__(self, engine: Engine, chosen: Chosen | None = None) -> None:
        self.engine = engine
        self.chosen = chosen or Chosen(engine.name, engine.precision)
        """The engine and the precision that run the model, and why."""
        self._preprocess = Preprocessor(engine.spec.input, engine.device)
        self._text_features = TextCache(engine.encode_text)
        self.stopwatch = Stopwatch()

    @classmethod
    def from_model(cls, model: PromptableSegmenter, device: str = "auto", precision: str = "float32") -> Predictor:
        """Makes a predictor of a model with loaded weights; the arguments and errors are those of ``EagerEngine``."""
        return cls(EagerEngine(model, device, precision))

    @property
    def spec(self) -> ModelSpec:
        """The properties of the model that its users must know."""
        return self.engine.spec

    @property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return self.engine.device

    @property
    def precision(self) -> str:
        """The precision of the model's computations, one of ``config.PRECISION_NAMES`` without "auto"."""
        return self.engine.precision

    @property
    def seconds(self) -> float:
        """The total time that the calling thread has spent in ``encode``, ``ask`` and ``classify`` so far, in seconds.

        The time of one image is the difference between before and after. On a GPU only that of both steps together is
        right, because ``encode`` returns while the GPU still works.
        """
        return self.stopwatch.seconds

    @classmethod
    def from_name(
        cls,
        name: str = "auto",
        device: str = "auto",
        weights_dir: Path | None = None,
        precision: str = "auto",
        engine: str = "auto",
        at_once: bool = False,
    ) -> Predictor:
        """Builds the model ``name`` with its weights.

        It is for inference only: its batch normalisation is folded. To train it further, use
        ``zoo.factory.build_segmenter``. Embedded weights know only the simulated table, as an
        ``EmbeddedWeightsWarning`` says once.

        With ``engine="auto"``, it is run by the fastest engine of this machine whose masks agree with those of PyTorch
        in float32, which is measured once and remembered. Where figures must be the same on every machine, use
        ``engine="eager"``. What is asked for and cannot be had is replaced by PyTorch, as an ``EngineWarning`` says.
        ``predictor.chosen`` has what runs the model.

        Args:
            name: A name or the path of a weight file; "auto": "clipseg-rd64-refined" if it is there, else the embedded.
            device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
            weights_dir: The folder with the weights; ``None`` stands for the embedded and the downloaded weights.
            precision: "auto", "float32", "bfloat16", "float16" or "int8". For the eager engine, "auto" is float32.
            engine: "auto", "eager" (PyTorch), "cuda_graph", "openvino" or "onnxruntime".
            at_once: Whether "auto" is PyTorch if nothing was measured yet; ``chosen.is_provisional`` says so.

        Raises:
            ValueError: The name, the device, the engine or the precision is unknown, or the device is not available.
            WeightsError: The weights are missing, damaged or do not fit the model.
        """
        # A program that brings its own model needs neither the builders nor their imports.
        from clip_seg_ros.zoo.factory import build_segmenter

        require_names(engine, precision)  # before what may take long
        fold_batch_norms(model := build_segmenter(name, weights_dir).eval())
        predictor = cls(*build_engine(model, device, engine, precision, at_once=at_once))
        if words := in_programs(predictor.spec):
            _warn_once("weights", words, EmbeddedWeightsWarning)
        if words := predictor.chosen.complaint:
            _warn_once(words, words, EngineWarning)
        return predictor

    def with_classes(self, class_names: Sequence[str], text_tower: str | None = None) -> Predictor:
        """Returns this network of `clip-seg distill --classifier text`, run by PyTorch, with another list of classes.

        Words that are not in ``spec.class_names`` are encoded by ``text_tower``, by default the weights that the
        network names. Raises ValueError if the list cannot be changed or a word is unknown, and WeightsError if the
        weights of the text tower are not there.
        """
        from clip_seg_ros.zoo.classes import with_classes

        if not isinstance(self.engine, EagerEngine):
            raise ValueError(f"the engine {self.engine.name} runs one list: see `clip-seg weights classes` for another")
        return Predictor.from_model(
            with_classes(self.engine.model, class_names, text_tower), str(self.device), self.precision
        )

    def encode(self, rgb: np.ndarray) -> EncodedImage:
        """Encodes ``rgb``, (H, W, 3) uint8, once for any number of questions.

        Raises:
            ValueError: ``rgb`` is not such an array, empty, or too narrow for the model.
        """
        return self.encode_batch([rgb])[0]

    @timed
    @torch.inference_mode()
    def encode_batch(self, images: Sequence[np.ndarray]) -> list[EncodedImage]:
        """Encodes several images; those that the model sees at the same size are encoded in one batch.

        Args:
            images: Arrays (H, W, 3) uint8, of any sizes.

        Raises:
            ValueError: One of them is not such an array, empty, or too narrow for the model.
        """
        prepared = [self._preprocess(rgb) for rgb in images]
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, item in enumerate(prepared):
            by_size.setdefault(item.geometry.model_size, []).append(index)
        encoded: dict[int, EncodedImage] = {}
        for size, indices in by_size.items():
            inputs = [prepared[index].pixels for index in indices]
            pixels = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
            boxes = None
            if self.spec.input.window is not None:
                boxes = tuple(window_boxes(size, self.spec.input.window))
                # (B * W, 3, crop, crop); the windows of one image follow one another
                crops = [pixels[:, :, top:bottom, left:right] for top, left, bottom, right in boxes]
                pixels = torch.stack(crops, dim=1).flatten(0, 1)
            features = self.engine.encode_image(pixels)
            rows = len(pixels) // len(indices)
            for place, index in enumerate(indices):
                part = features.rows(place * rows, (place + 1) * rows)
                encoded[index] = EncodedImage(part, prepared[index].geometry, boxes)
        return [encoded[index] for index in range(len(prepared))]

    def ask(self, encoded: EncodedImage, prompts: Sequence[str]) -> ProbabilityMaps:
        """Returns the probabilities of all prompts, computed in one pass.

        If the prompts of the model compete, the probabilities of a pixel sum to 1 over the prompts and the model's
        background phrases, which are decoded too, but not returned. For a model with a fixed list of classes, they sum
        to 1 over this list.

        Args:
            encoded: An image from ``encode`` of this predictor.
            prompts: P >= 1 phrases; for a model with a fixed list of classes, some of these classes.

        Returns:
            (P, H, W) probabilities at the size of the image that was encoded.

        Raises:
            ValueError: ``prompts`` is empty or one text instead of a list, or a prompt is empty or not a class of the
                model.
        """
        return self.ask_cells(encoded, prompts).restored()

    @timed
    @torch.inference_mode()
    def ask_cells(self, encoded: EncodedImage, prompts: Sequence[str]) -> CellMaps:
        """Does what ``ask`` does, but returns the probabilities at the model's own resolution.

        Only competing prompts come at the size of the image, because they are compared pixel by pixel. With them come
        the objects that a model with ``finds_objects`` found on the way, those of low scores, too.
        """
        prompts = checked_prompts(prompts, self.spec)
        asked, geometry, objects = competitors(prompts, self.spec), encoded.geometry, None
        if self.spec.finds_objects:
            (found,) = self.engine.detect(encoded.features, self._text_features(asked))
            logits = self.spec.calibration.applied(found.maps[None], asked, self.spec.threshold)
            named = [item for item in instances_of(found, asked, geometry, 0.0) if item.name in prompts]
            objects = distinct_of_each(named)
        else:
            logits = self._decoded(encoded, asked)
        if encoded.windows is not None:
            logits = merge_windows(logits, encoded.windows, geometry.model_size)[None]
        # Competing prompts are compared after the resize, pixel by pixel, as the authors of such models do.
        early = self.spec.competition == "softmax" and not geometry.letterbox
        if early:
            for size in (geometry.model_size, geometry.source_size):
                if logits.shape[2:] != size:
                    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        values = self.engine.probabilities(logits)[0]
        if asked != prompts:
            values = values.index_select(0, places(prompts, asked, values.device))
        return CellMaps(prompts, values.cpu().numpy(), geometry, objects)

    @timed
    @torch.inference_mode()
    def classify(self, encoded: EncodedImage, names: Sequence[str], min_confidence: float = 0.0) -> ClassMap:
        """Gives every pixel the most probable of the classes ``names``.

        The labels are those of the largest probabilities of ``ask``, whose time and memory grow with pixels times
        classes. A model with a fixed list of classes tells all of them apart; pixels of a class that is not among
        ``names`` are unlabelled. So are pixels where the background phrases of a model that has them are together more
        probable than the best class, and pixels in none of the objects that a model with ``finds_objects`` found.

        Args:
            encoded: An image from ``encode`` of this predictor.
            names: 1 to 255 classes, which are prompts as those of ``ask``.
            min_confidence: A pixel stays unlabelled where no class has at least this probability, 0..1. For a model
                with ``finds_objects``, 0 stands for its threshold.

        Raises:
            ValueError: ``ask`` refuses the names, or there are too many.
        """
        names = checked_prompts(names, self.spec)
        require_count(names)
        spec, geometry, windows = self.spec, encoded.geometry, encoded.windows
        if spec.finds_objects:
            objects = self._instances(encoded, names, min_confidence or spec.threshold)
            return class_map_of(objects, names, geometry.source_size)
        if geometry.letterbox:
            maps = self.ask(encoded, spec.class_names or names)
            return classified(maps, names, min_confidence, spec.class_names is None and bool(spec.background_prompts))
        asked = competitors(names, self.spec)
        logits = self._decoded(encoded, asked)
        competing = spec.competition == "softmax"
        probabilities: Callable[[torch.Tensor], torch.Tensor] = self.engine.probabilities
        model_size = geometry.model_size
        if not competing:
            # Probabilities are resized, once, and not logits.
            if windows is not None:
                logits, windows = merge_windows(logits, windows, model_size)[None], None
            logits, probabilities = probabilities(logits), torch.Tensor.contiguous
            model_size = tuple(logits.shape[2:])
        mixed = mixing(tuple(logits.shape[2:]), windows, model_size, geometry.source_size, logits.device)
        found = decide(logits, probabilities, mixed, Rules.of(names, asked, spec, min_confidence, logits.device))
        best = found.best.logit(eps=_LEAST_DOUBT) if competing else found.best
        best = best[0] if windows is None else merge_windows(best[:, None], windows, model_size)[0]
        labels, best, edges, edge_best = (
            part.cpu().numpy() for part in (found.labels, best, found.edges, found.edge_best)
        )
        return ClassMap(names, labels, best, competing, edges, edge_best)

    @timed
    @torch.inference_mode()
    def instances(
        self,
        encoded: EncodedImage,
        names: Sequence[str] | None = None,
        least_score: float | None = None,
        keep_same: bool = False,
    ) -> list[Instance]:
        """Returns the objects one by one, also where they touch, for a model whose spec has ``finds_objects``.

        Args:
            encoded: An image from ``encode`` of this predictor.
            names: Any phrases, or some of the model's classes; ``None``: all of its classes.
            least_score: Objects with a lower score are left out, 0..1; by default the model's threshold.
            keep_same: Whether an object may be returned again with another class.

        Returns:
            The objects, the best first, each with a mask in its own window; ``Instance.region`` gives an id.

        Raises:
            ValueError: The model does not find objects, a name is not one of its classes, or there are no names.
        """
        if not self.spec.finds_objects:
            raise ValueError(f"{self.spec.name} does not find objects one by one: use a detector")
        wanted = checked_prompts(names if names is not None else self.spec.class_names or (), self.spec)
        return self._instances(encoded, wanted, self.spec.threshold if least_score is None else least_score, keep_same)

    def _instances(
        self, encoded: EncodedImage, names: tuple[str, ...], least_score: float, keep_same: bool = False
    ) -> list[Instance]:
        classes = self.spec.class_names or names
        (found,) = self.engine.detect(encoded.features, self._text_features(classes))
        objects = instances_of(found, classes, encoded.geometry, least_score)
        objects = [item for item in objects if item.name in names]
        return objects if keep_same else distinct(objects)

    def predict(self, rgb: np.ndarray, prompts: Sequence[str]) -> ProbabilityMaps:
        """Does ``encode`` and ``ask`` in one call; raises what they raise."""
        return self.predict_batch([rgb], prompts)[0]

    def predict_batch(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> list[ProbabilityMaps]:
        """Asks the same prompts about several images, each (H, W, 3) uint8; raises what ``predict`` raises."""
        # The prompts are checked before the expensive part.
        prompts = checked_prompts(prompts, self.spec)
        return [self.ask(encoded, prompts) for encoded in self.encode_batch(images)]

    @torch.inference_mode()
    def add_image_prompt(
        self, name: str, rgb: np.ndarray, mask: np.ndarray, text: str | None = None, text_weight: float = 0.5
    ) -> None:
        """Adds a prompt that is an example image: ``name`` then means the object in the mask, until it is removed.

        The background is first blurred, darkened and cut away, which the CLIPSeg paper found best (table 1), unless the
        model was trained with another ``example_style``.

        Args:
            name: The new prompt; it replaces an earlier example of the same name.
            rgb: (H, W, 3) uint8, an image that shows the object.
            mask: (H, W) bool, True where the object is.
            text: A phrase to mix in, or ``None`` for the example alone.
            text_weight: The share of the phrase, 0..1.

        Raises:
            ValueError: The model takes no example images, the mask is empty or of another size, or an argument is out
                of range.
        """
        require_examples(self.spec)
        checked_prompts([name] if text is None else [name, text], self.spec)
        self._text_features.pin(name, embedded_example(self.engine, self._preprocess, rgb, mask, text, text_weight))

    def remove_image_prompt(self, name: str) -> None:
        """Removes an image prompt: ``name`` means its words again. Raises KeyError if there is no such example."""
        self._text_features.unpin(name)

    def _decoded(self, encoded: EncodedImage, asked: tuple[str, ...]) -> torch.Tensor:
        """Returns logits (1 or W, A, h, w), corrected by the model's calibration."""
        logits = self.engine.decode(encoded.features, self._text_features(asked))
        return self.spec.calibration.applied(logits, asked, self.spec.threshold)
