# SPDX-License-Identifier: Apache-2.0
"""Chooses the engine that runs a model: the fastest one whose answers agree with those of PyTorch in float32."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_seg_ros.config import ENGINE_NAMES, PRECISION_NAMES
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.runtime.chosen import PROVISIONAL, Chosen
from clip_seg_ros.runtime.devices import PRECISIONS, resolve_device
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import Engine, EngineUnavailable
from clip_seg_ros.runtime.gate import Gate
from clip_seg_ros.runtime.optional_packages import has_package
from clip_seg_ros.runtime.verdicts import Verdict, Verdicts

_LOG = logging.getLogger(__name__)
LEAST_GAIN = 1.05
"""How many times as fast as the eager engine in float32 an engine must be to be chosen: less may be chance."""


@dataclass(frozen=True)
class Candidate:
    """An engine with a precision."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision}"


@dataclass(frozen=True)
class Plan:
    """What to try for an engine and a precision that were asked for."""

    tiers: tuple[tuple[Candidate, ...], ...]
    """The fastest of the first tier that has any is taken."""
    last: Candidate
    """Taken if there is none; it always works."""
    must_gain: bool
    """Whether an engine must be faster than the eager engine in float32, which holds unless it was asked for."""
    expected: bool = False
    """Whether the precision was asked for: that nobody has exported int8 or that a processor has no float16 is no news
    otherwise."""


def plan(has_cuda: bool, engine: str, precision: str) -> Plan:
    """Returns what to try, best first.

    Args:
        has_cuda: Whether the model is to run on a CUDA device.
        engine: One of ``config.ENGINE_NAMES``.
        precision: One of ``config.PRECISION_NAMES``.
    """
    last = Candidate("eager", precision if precision in PRECISIONS else "float32")
    asked = precision != "auto"
    if engine == "eager":
        return Plan((), last, False, asked)
    if engine != "auto":
        named = {
            "cuda_graph": (("float16",), ("float32",)),
            "openvino": (("int8", "bfloat16", "float16", "float32"),),
            "onnxruntime": (("int8",), ("float32",)),
        }[engine]
        wanted = named if precision == "auto" else ((precision,),)
        return Plan(tuple(tuple(Candidate(engine, each) for each in tier) for tier in wanted), last, False, asked)
    if has_cuda:
        tiers = ["cuda_graph float16", "eager float16"] if precision == "auto" else [f"cuda_graph {precision}"]
    elif precision == "auto":
        # Where a processor only imitates bfloat16, float32 is faster.
        tiers = ["openvino int8, openvino bfloat16, openvino float16, openvino float32", "onnxruntime float32"]
    elif precision == "int8":
        tiers = ["openvino int8, onnxruntime int8"]
    else:
        tiers = [f"openvino {precision}"]
        if precision == "float32":
            tiers.append("onnxruntime float32")
    return Plan(
        tuple(tuple(Candidate(*each.split()) for each in tier.split(", ")) for tier in tiers), last, True, asked
    )


def build_engine(
    model: PromptableSegmenter,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    verdicts_dir: Path | None = None,
    at_once: bool = False,
) -> tuple[Engine, Chosen]:
    """Builds the engine that runs a model.

    With ``engine="auto"`` it is the fastest one that passes the gate: on a few images that come with the package, its
    masks agree with those of the eager engine in float32 (a mean IoU of 0.98 or more, and no mask and no map far off),
    and it takes less time. What was measured is kept in the user's cache, so that the next start measures nothing. An
    engine that is asked for by its name must agree, too, but need not be faster. Where nothing passes or can be had, it
    is the eager engine, whatever was asked for, and ``Chosen`` says why. A model that finds objects one by one is
    always run by the eager engine in float32.

    Args:
        model: A model with loaded weights whose batch normalisation is folded. It is moved to the device and set to
            evaluation mode, and its weights may be rounded.
        device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
        engine: "auto", "eager", "cuda_graph", "openvino" or "onnxruntime".
        precision: "auto", "float32", "bfloat16", "float16" or "int8"; "auto" is float32 for "eager", and for others the
            fastest that agrees.
        verdicts_dir: The folder of what was measured; by default in the user's cache.
        at_once: Whether "auto" is the eager engine for now if nothing was measured yet, because to convert a model and
            to measure takes many seconds. ``Chosen.is_provisional`` says so; another call without it then measures.

    Raises:
        ValueError: A name is unknown, or the device is not available.
    """
    require_names(engine, precision)
    # OpenVINO runs on the processor alone; whoever leaves the device open means that one.
    target = resolve_device("cpu" if (device, engine) == ("auto", "openvino") else device)
    planned = plan(target.type == "cuda", engine, precision)
    if model.finds_objects:
        met = engine in ("auto", "eager") and precision in ("auto", "float32")
        note = "" if met else "a model that finds objects one by one is run by the eager engine in float32 alone"
        return EagerEngine(model, str(target)), Chosen("eager", "float32", note, met)
    if not planned.tiers:
        met = precision in ("auto", planned.last.precision)
        note = "" if met else f"the eager engine has no {precision}: use the engine openvino or onnxruntime"
        return make_engine(model, str(target), planned.last), Chosen("eager", planned.last.precision, note, met)
    choice = _Choice(model, str(target), verdicts_dir)
    if at_once and engine == "auto" and choice.takes_long(planned):
        last = planned.last
        return choice.fall_back(last), Chosen(last.engine, last.precision, PROVISIONAL, is_provisional=True)
    found = choice.of(planned)
    built, taken = found if found is not None else (choice.fall_back(planned.last), planned.last)
    met = engine in ("auto", taken.engine) and precision in ("auto", taken.precision)
    return built, Chosen(taken.engine, taken.precision, choice.note, met)


def require_names(engine: str, precision: str) -> None:
    """Raises ValueError if there is no engine or no precision of these names."""
    for what, name, known in (("engine", engine, ENGINE_NAMES), ("precision", precision, PRECISION_NAMES)):
        if name not in known:
            raise ValueError(f'unknown {what} "{name}": use {", ".join(known[:-1])} or {known[-1]}')


def make_engine(model: PromptableSegmenter, device: str, wanted: Candidate, own_copy: bool = False) -> Engine:
    """Makes an engine, whether it is fast and right or not.

    Args:
        model: The model, as for ``build_engine``.
        device: The device, as for ``resolve_device``.
        wanted: The engine, which is not "auto", and its precision, likewise.
        own_copy: Whether it works on a copy of the model where it would round the weights, or move them.

    Raises:
        EngineUnavailable: It cannot be had here.
        ValueError: The device or the precision is unknown or not available.
    """
    is_exported = wanted.engine in ("openvino", "onnxruntime")
    if own_copy and (wanted.precision != "float32" if not is_exported else resolve_device(device).type != "cpu"):
        # Exported engines keep the model on the CPU, whatever they compute on.
        model = copy.deepcopy(model)
    if is_exported:
        return _exported(wanted, model, device)
    if wanted.precision not in PRECISIONS:
        raise EngineUnavailable(f"{wanted.engine} computes in {', '.join(PRECISIONS)}, not in {wanted.precision}")
    if wanted.engine == "eager":
        return EagerEngine(model, device, wanted.precision)
    from clip_seg_ros.runtime.cuda_graph import CudaGraphEngine

    return CudaGraphEngine(model, device, wanted.precision)


def _exported(wanted: Candidate, model: PromptableSegmenter, device: str) -> Engine:
    # These packages are optional and slow to import.
    if wanted.engine == "openvino":
        if resolve_device(device).type != "cpu":
            raise EngineUnavailable("OpenVINO runs on the processor alone: use device cpu")
        from clip_seg_ros.runtime.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(model, wanted.precision)
    from clip_seg_ros.runtime.onnx_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, wanted.precision, device)


class _Choice:
    """Tries the engines of one model, and remembers why some of them were not taken."""

    def __init__(self, model: PromptableSegmenter, device: str, verdicts_dir: Path | None) -> None:
        self._model, self._device = model, device
        # The fingerprint is that of the weights before any of them is rounded.
        self._reference = EagerEngine(model, device)
        self._verdicts = Verdicts(self._reference.fingerprint(), self._reference.device, verdicts_dir)
        self._gate: Gate | None = None
        self._built: dict[Candidate, Engine] = {}
        self._gains = ""
        self._faults: list[str] = []

    def of(self, planned: Plan) -> tuple[Engine, Candidate] | None:
        """Returns the engine to take; ``None`` if there is none besides the last one of the plan."""
        for tier in planned.tiers:
            passed = self._passed(tier, planned)
            for candidate in sorted(passed, key=lambda each: -passed[each].speedup):
                try:
                    built = self._built.pop(candidate, None) or make_engine(self._model, self._device, candidate)
                except Exception as error:
                    self._blame(candidate, error)
                    continue
                verdict = passed[candidate]
                self._gains = f"{verdict.speedup:.1f} times as fast as eager in float32, {verdict.agreement}"
                return built, candidate
        return None

    def takes_long(self, planned: Plan) -> bool:
        """Returns whether there is an engine to measure, and none was measured yet."""
        candidates = [candidate for tier in planned.tiers for candidate in tier]
        if any(self._verdicts.find(str(candidate)) for candidate in candidates):
            return False
        return any(each.engine not in ("openvino", "onnxruntime") or has_package(each.engine) for each in candidates)

    def fall_back(self, last: Candidate) -> Engine:
        """Returns the engine of the plan that always works."""
        self._built.clear()
        return make_engine(self._model, self._device, last)

    @property
    def note(self) -> str:
        """What the engine that was taken gains, and why others were not taken."""
        return "; ".join(filter(None, [self._gains, *self._faults]))

    def _passed(self, tier: Sequence[Candidate], planned: Plan) -> dict[Candidate, Verdict]:
        """Returns the engines of a tier that pass the gate, and keeps the fastest of those that were built for that."""
        passed: dict[Candidate, Verdict] = {}
        for candidate in tier:
            verdict = self._passing(candidate, planned)
            if verdict is not None:
                passed[candidate] = verdict
            # Each holds a copy of the weights.
            best = max(passed, key=lambda each: passed[each].speedup, default=None)
            self._built = {each: built for each, built in self._built.items() if each == best}
        return passed

    def _passing(self, candidate: Candidate, planned: Plan) -> Verdict | None:
        """Returns the verdict on an engine that passes the gate; notes why one does not."""
        try:
            verdict = self._judged(candidate)
        except Exception as error:  # whatever an engine dies of, the model runs without it
            rare = candidate.precision in ("int8", "float16") and candidate.engine != "cuda_graph"
            if planned.expected or not rare or not isinstance(error, EngineUnavailable):
                self._blame(candidate, error)
            return None
        if not verdict.agreement.is_good:
            self._faults.append(f"{candidate} does not agree with eager in float32: {verdict.agreement}")
        elif planned.must_gain and verdict.speedup < LEAST_GAIN:
            self._faults.append(f"{candidate} is no faster: {verdict.speedup:.2f} times as fast as eager")
        else:
            return verdict
        return None

    def _judged(self, candidate: Candidate) -> Verdict:
        name, engine = str(candidate), None
        if candidate.precision == "int8":
            # It may have been exported anew, with other images.
            engine = self._built[candidate] = make_engine(self._model, self._device, candidate)
            name += f" {getattr(engine, 'identity', '')}".rstrip()
        verdict = self._verdicts.find(name)
        if verdict is None:
            engine = engine or make_engine(self._model, self._device, candidate, own_copy=True)
            self._built[candidate] = engine
            self._gate = self._gate or Gate(self._reference)
            verdict = self._gate.measure(engine)
            if fault := getattr(engine, "fault", ""):
                raise EngineUnavailable(fault)
            self._verdicts.keep(name, verdict)
        return verdict

    def _blame(self, candidate: Candidate, error: Exception) -> None:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self._faults.append(f"{candidate}: {words}")
        _LOG.debug("%s cannot be had", candidate, exc_info=error)
