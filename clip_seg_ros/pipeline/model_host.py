# SPDX-License-Identifier: Apache-2.0
"""Keeps one model in service, and loads another beside it without a pause."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from clip_seg_ros.pipeline import memory
from clip_seg_ros.pipeline.latest_worker import LatestWorker

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor

_LOG = logging.getLogger(__name__)


class ModelHost:
    """Holds the predictor that is in service. It is safe to use from several threads.

    Args:
        load: Builds the predictor of a name, ready to answer at full speed. It may be slow, and raises if it fails.
        on_ready: Called with the new predictor's name just after it went into service, on the loader's thread.
        on_failed: Called with a name and the exception that ``load`` raised, on the loader's thread; the old predictor
            stays in service. It is not called if there is a newer request, for the same name or another: the outcome of
            that one is reported instead.
    """

    def __init__(
        self,
        load: Callable[[str], Predictor],
        on_ready: Callable[[str], None],
        on_failed: Callable[[str, Exception], None],
    ) -> None:
        memory.limit_caches()
        self._load, self._on_ready, self._on_failed = load, on_ready, on_failed
        self._lock = threading.Lock()
        self._serving: tuple[str, Predictor] | None = None
        self._wanted: str | None = None
        self._loader: LatestWorker[tuple[int, str, bool]] | None = None
        # Requests are numbered because a name may be requested again: its first load must not stand for the second.
        self._newest = 0
        self._given_up = 0

    @property
    def predictor(self) -> Predictor:
        """The predictor that is in service.

        Raises:
            RuntimeError: No model is loaded.
        """
        serving = self._serving
        if serving is None:
            raise RuntimeError("no model is loaded")
        return serving[1]

    @property
    def name(self) -> str | None:
        """The name of the predictor that is in service; ``None`` if there is none."""
        serving = self._serving
        return serving[0] if serving else None

    @property
    def wanted(self) -> str | None:
        """The name that was requested last: that of the predictor in service, or of the one that is being loaded."""
        return self._wanted

    def start(self, name: str) -> None:
        """Loads the first predictor on the caller's thread; raises what ``load`` raises, and then holds none."""
        self.unload()
        predictor = self._load(name)
        with self._lock:
            self._serving, self._wanted = (name, predictor), name
            self._loader = LatestWorker(self._replace, self._on_error)

    def switch(self, name: str, again: bool = False) -> None:
        """Loads another predictor on a thread and then puts it into service; of several requests the last one wins.

        Args:
            name: Its name; for that of the present one, nothing is loaded.
            again: Whether it is loaded even then.

        Raises:
            RuntimeError: No model is loaded.
        """
        with self._lock:
            if self._loader is None:
                raise RuntimeError("no model is loaded: there is nothing to switch from")
            self._wanted = name
            self._newest += 1
            self._loader.put((self._newest, name, again))

    def unload(self) -> None:
        """Releases the predictor and its memory; a predictor that is still being loaded will not go into service."""
        with self._lock:
            loader, self._loader = self._loader, None
            self._serving = self._wanted = None
            self._given_up = self._newest
        if loader is not None:
            loader.close(timeout_s=0.0)
            _free_memory()

    # On the loader's thread.

    def _replace(self, request: tuple[int, str, bool]) -> None:
        number, name, again = request
        predictor = None
        if again or name != self.name:
            try:
                predictor = self._load(name)
            except Exception as error:  # whatever it is, the old one stays in service and a person is told why
                if self._settle_failure(number):
                    self._on_failed(name, error)
                return
        settled = self._settle(number, name, predictor)
        if predictor is not None:
            del predictor
            _free_memory()
        if settled:
            self._on_ready(name)

    def _settle(self, number: int, name: str, predictor: Predictor | None) -> bool:
        """Puts ``predictor`` (``None``: the present one) into service if ``name`` is still wanted; returns whether."""
        with self._lock:
            if number <= self._given_up or self._wanted != name:
                return False  # unloaded, or something else was asked for meanwhile
            if predictor is not None:
                self._serving = (name, predictor)
            return True

    def _settle_failure(self, number: int) -> bool:
        """Wants the present predictor again if ``number`` is the newest request; returns whether it is."""
        with self._lock:
            if number <= self._given_up or number != self._newest:
                return False
            self._wanted = self.name
            return True

    @staticmethod
    def _on_error(error: Exception) -> None:
        _LOG.error("what follows the loading of a model failed", exc_info=error)


def _free_memory() -> None:
    # A model is a web of references to itself, which waits for the collector with all its tensors.
    gc.collect()
    memory.give_back()
