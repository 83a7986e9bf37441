# SPDX-License-Identifier: Apache-2.0
"""Starts Ray on this machine or joins a cluster, and says who may work: nothing is uploaded, nothing is reported."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from math import ceil
from pathlib import Path
from types import ModuleType

_STORE_BYTES = 80 * 2**20
"""The shared memory of a Ray of our own: results are files, so that hardly anything passes through it."""
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
_CONNECT_S = 10.0
_STARTS = 2
"""Ray gives itself 30 seconds to start, which a busy machine may exceed once."""


class RayFailed(Exception):
    """Ray cannot be used as asked; the message is for people."""


@dataclass(frozen=True)
class RayOptions:
    """How a run uses Ray."""

    address: str | None = None
    """Address of a cluster, such as "auto", "10.0.0.1:6379" or "ray://head:10001"; ``None`` for this machine alone."""
    workers: int | None = None
    """The number of workers; ``None`` for as many as there is room for, also while machines come and go."""
    cpus: float = 1.0
    """The processors of a worker."""
    gpus: float = 0.0
    """The GPUs of a worker, which may be a part of one."""


@dataclass(frozen=True)
class Versions:
    """What decides about results; equal for all who work on one run."""

    package: str
    """A hash of the program's text."""
    python: str
    torch: str

    @classmethod
    def here(cls) -> Versions:
        """Returns those of this process."""
        return cls(_package_hash(), ".".join(platform.python_version_tuple()[:2]), version("torch"))

    def difference(self, other: Versions) -> str:
        """Returns what differs, for people; empty if nothing does."""
        words = {"package": "clip_seg_ros", "python": "Python", "torch": "torch"}
        pairs = [(words[name], getattr(self, name), getattr(other, name)) for name in words]
        return ", ".join(f"{word} {mine} here and {theirs} there" for word, mine, theirs in pairs if mine != theirs)


@contextmanager
def joined(options: RayOptions) -> Iterator[ModuleType]:
    """Gives Ray, started or joined; what was started is stopped in the end. If Ray runs in this process, that is used.

    Raises:
        RayFailed: Ray is not installed, the cluster cannot be reached, or it is of another version.
    """
    if options.address is None and "ray" not in sys.modules:
        # Ray's ports are open to the network; with a secret of its own nobody else can use them. It is read at import.
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    if options.address is None:
        with _local(ray, options):
            yield ray
        return
    _knock(options.address)
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        # Ray raises nearly anything here, even for a cluster that is not there.
        raise RayFailed(_why_not(options.address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def imported() -> ModuleType:
    """Returns the package ray, which then reports nothing. Raises RayFailed if it is not installed."""
    os.environ.update(_SILENT)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise RayFailed(
            f"ray cannot be imported ({error}): type `pip install clip_seg_ros[ray]`, or use --workers without Ray"
        ) from error


@contextmanager
def _local(ray: ModuleType, options: RayOptions) -> Iterator[None]:
    cores = ceil(options.workers * options.cpus) if options.workers else len(os.sched_getaffinity(0))
    # Its sockets need a short path.
    folder = tempfile.mkdtemp(prefix="clip_seg_ray_", dir="/tmp")
    for trial in range(_STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=max(1, cores),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            break
        except Exception as error:
            ray.shutdown()
            if trial == _STARTS - 1:
                shutil.rmtree(folder, ignore_errors=True)
                raise RayFailed(f"Ray cannot be started here: {_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _knock(address: str) -> None:
    """Raises RayFailed if nobody answers at an address; Ray itself would wait for many minutes."""
    named = address.removeprefix("ray://")
    if named == "auto":
        current = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")
        named = os.environ.get("RAY_ADDRESS") or (current.read_text().strip() if current.is_file() else "")
        named = named.removeprefix("ray://")
        if not named:
            raise RayFailed(_why_not(address, ConnectionError("this machine belongs to no cluster")))
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal():
        raise RayFailed(f'"{address}" is no address of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT')
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise RayFailed(_why_not(address, error)) from error


def _why_not(address: str, error: Exception) -> str:
    text = _line(error)
    if "ersion mismatch" in text:
        return f"the Ray cluster at {address} is of another version; install the same on all machines: {text}"
    return (
        f"the Ray cluster at {address} cannot be reached: is `ray start` running there, and is this machine one of its "
        f"own (else use ray://HEAD:10001)? {text}"
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@cache
def _package_hash() -> str:
    """Returns a hash of the program's text without its nodes, which pip does not install."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        # What the build makes of messages is not there without ROS.
        if not name.startswith(("nodes/", "msg/", "srv/", "action/")):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
