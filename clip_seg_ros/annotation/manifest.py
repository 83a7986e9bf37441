# SPDX-License-Identifier: Apache-2.0
"""The manifest of a run: what went in, what was asked, what answered, and what came out.

It says nothing of when, where and how fast, so that two runs write the same bytes; that is in ``run_time.json``.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from clip_seg_ros.annotation.files import write_whole
from clip_seg_ros.annotation.job import Job, Phrase, Selection, Source
from clip_seg_ros.annotation.layout import MANIFEST
from clip_seg_ros.data.samples import DataError

FORMAT = 1
_BLOCK = 1 << 20
_OPTIONAL = ("openvino", "onnxruntime", "rosbags")
CHOSEN = ("model", "second_model", "device", "engine", "precision")
"""The parts of a job that may be asked for as "auto"."""
EARLIER = "earlier_versions"
"""The part of a manifest with the versions that the run had before, if they were others."""


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a source before it is annotated."""

    source: Source
    images: int
    size_bytes: int
    sha256: str
    """That of its bytes; of a folder or pattern, that of the names and hashes of its files, or of its pictures."""
    notes: tuple[str, ...]
    fault: str = ""
    """Why it cannot be read, for people; empty if it can."""


def begun(job: Job, asked: Job, sources: list[SourceFacts], models: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the manifest of a run that has begun.

    Args:
        job: The job, whose models are known.
        asked: The job as it was asked for.
        sources: Its sources.
        models: What answers: names and hashes.
    """
    parameters = asdict(job)
    for name in ("out", "sources"):
        del parameters[name]
    return {
        "format": FORMAT,
        "is_finished": False,
        "sources": [
            {
                **asdict(each.source),
                "images": each.images,
                "bytes": each.size_bytes,
                "sha256": each.sha256,
                "notes": list(each.notes),
                **({"fault": each.fault} if each.fault else {}),
            }
            for each in sources
        ],
        "parameters": parameters,
        "asked": {name: getattr(asked, name) for name in CHOSEN},
        "models": models,
        "versions": versions(),
    }


def continued(before: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest of a run that goes on.

    Args:
        before: What it was.
        now: What ``begun`` returned; it lacks what came out until now.
    """
    earlier = [dict(each) for each in before.get(EARLIER, ())]
    # What the present versions did is no other's.
    earlier = [each for each in (*earlier, before["versions"]) if each != now["versions"]]
    kept = {name: before[name] for name in ("counts", "formats") if name in before}
    others = [each for at, each in enumerate(earlier) if each not in earlier[:at]]
    return {**now, **({EARLIER: others} if others else {}), **kept}


def earlier_note(manifest: Mapping[str, Any]) -> str:
    """Returns which other versions did a part of a run, for people; empty if none did."""
    now = manifest["versions"]
    changed = {name: None for each in manifest.get(EARLIER, ()) for name in each if each[name] != now.get(name)}
    if not changed:
        return ""
    told = [f"{name} {'or '.join(_were(manifest, name))}, now {now.get(name)}" for name in changed]
    return f"a part may be by other versions ({'; '.join(told)}): for the same bytes elsewhere, begin in a new folder"


def _were(manifest: Mapping[str, Any], name: str) -> list[str]:
    return list(dict.fromkeys(str(each.get(name)) for each in manifest[EARLIER]))


def finished(manifest: dict[str, Any], is_whole: bool, counts: Mapping[str, Any], formats: list[str]) -> dict[str, Any]:
    """Returns the manifest of a run that has ended.

    Args:
        manifest: What it was when it began.
        is_whole: Whether nothing failed.
        counts: What came out.
        formats: In which formats it was ever written.
    """
    return {**manifest, "is_finished": is_whole, "counts": dict(counts), "formats": formats}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run into its folder."""
    write_whole(folder / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of the run in a folder; ``None`` if there is none. Raises DataError if it is damaged."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"{file} has the format {manifest['format']}; this version reads {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged: {error}") from error
    return manifest


def read_job(folder: Path) -> Job:
    """Returns the job of the run in a folder. Raises DataError if there is none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(f"{folder} holds no run of clip-seg annotate: there is no {MANIFEST}")
    try:
        values = dict(manifest["parameters"])
        names = {field.name for field in fields(Source)}
        sources = ({name: value for name, value in each.items() if name in names} for each in manifest["sources"])
        return Job(
            **{
                **values,
                "out": str(folder),
                "sources": tuple(Source(**each) for each in sources),
                "phrases": tuple(Phrase(**each) for each in values["phrases"]),
                "negatives": tuple(values["negatives"]),
                "selection": Selection(**values["selection"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged: {error}") from error


def as_chosen_before(job: Job, manifest: Mapping[str, Any]) -> Job:
    """Returns a job with what was chosen for "auto" when the run began, if the same was asked for."""
    if any(manifest["asked"].get(name) != getattr(job, name) for name in CHOSEN):
        return job
    return replace(job, **{name: manifest["parameters"][name] for name in CHOSEN})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in which of its parts that decide the results a run differs from one that began, for people."""
    found = [f"{name}: {was} then, {now['parameters'].get(name)} now" for name, was in _differing(before, now)]
    # What could not be read may have been mended, or is tried again.
    unread = {each["name"] for each in before["sources"] if each.get("fault")}
    were, are = (
        [(each["name"], each["topic"], each["sha256"]) for each in one["sources"] if each["name"] not in unread]
        for one in (before, now)
    )
    if were != are:
        names = sorted({name for name, *_ in set(map(tuple, were)) ^ set(map(tuple, are))})
        found.append(f"sources: {', '.join(names) or 'their order'}")
    if before["models"] != now["models"]:
        found.append("models: other weights")
    return found


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # What was written and read again has lists where there were tuples.
    plain = json.loads(json.dumps(now["parameters"]))
    for name, was in before["parameters"].items():
        if plain.get(name) != was:
            yield name, was


def versions() -> dict[str, str | None]:
    """Returns the versions of what computes results; ``None`` for what is not installed."""
    found: dict[str, str | None] = {
        "clip_seg_ros": _version("clip_seg_ros"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    return {**found, **{name: _version(name) for name in _OPTIONAL}}


def hash_of(
    spec: str, on_bytes: Callable[[int], None] = lambda _: None, read: Sequence[Path] | None = None
) -> tuple[int, str]:
    """Returns the size in bytes of what is named, and its SHA-256; see ``SourceFacts``.

    Args:
        spec: A file, a folder or a pattern.
        on_bytes: Called with the number of bytes that were read since the last call.
        read: The files of a folder or pattern that count; ``None`` for all of them.

    Raises:
        OSError: A file cannot be read.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path.stat().st_size, _hash_file(path, on_bytes)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()] if read is None else list(read)
        names = [file.relative_to(path).as_posix() for file in files]
    else:
        found = map(Path, sorted(glob.glob(str(path), recursive=True))) if read is None else read
        files = [each for each in found if each.is_file()]
        names = [file.name for file in files]
    whole, size = hashlib.sha256(), 0
    for name, file in zip(names, files, strict=True):
        size += file.stat().st_size
        whole.update(f"{name} {_hash_file(file, on_bytes)}\n".encode())
    return size, whole.hexdigest()


def _hash_file(file: Path, on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
