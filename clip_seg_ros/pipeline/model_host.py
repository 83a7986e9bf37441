# SPDX-License-Identifier: Apache-2.0
"""Keeps one model serving, and gets another ready beside it without a pause."""

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
    """The predictor that answers now. Safe to use from several threads.

    Args:
        load: Builds the predictor of a name, ready to answer at full speed; slow, and raises where it cannot.
        on_ready: Called with the new predictor's name just after it began to serve, on the loader's thread.
        on_failed: Called with a name and what ``load`` raised, on the loader's thread; the old predictor serves on.
            Not called where a newer request came meanwhile, for the same name or another: its end will be told.
    """

    def __init__(
        self,
        load: Callable[[str], Predictor],
        on_ready: Callable[[str], None],
        on_failed: Callable[[str, Exception], None],
    ) -> None:
        memory.limit_caches()
        memory.limit_heaps()
        self._load, self._on_ready, self._on_failed = load, on_ready, on_failed
        self._lock = threading.Lock()
        self._serving: tuple[str, Predictor] | None = None
        self._wanted: str | None = None
        self._loader: LatestWorker[tuple[int, str]] | None = None
        # Requests are counted, for a name may be asked for again: its first load must not speak for the second.
        self._newest = 0
        self._given_up = 0

    @property
    def predictor(self) -> Predictor:
        """The one that serves now.

        Raises:
            RuntimeError: There is none.
        """
        serving = self._serving
        if serving is None:
            raise RuntimeError("no model is loaded")
        return serving[1]

    @property
    def name(self) -> str | None:
        """Of the predictor that serves now; ``None`` where there is none."""
        serving = self._serving
        return serving[0] if serving else None

    @property
    def wanted(self) -> str | None:
        """The name that was asked for last: of the predictor that serves, or that is being got ready."""
        return self._wanted

    def start(self, name: str) -> None:
        """Loads the first predictor, in the caller's thread; raises what ``load`` raises and then holds none."""
        self.unload()
        predictor = self._load(name)
        with self._lock:
            self._serving, self._wanted = (name, predictor), name
            self._loader = LatestWorker(self._replace, self._on_error)

    def switch(self, name: str) -> None:
        """Gets another predictor ready on a thread and then lets it serve; the last name asked for wins."""
        with self._lock:
            if self._loader is None:
                raise RuntimeError("no model is loaded: there is nothing to switch from")
            self._wanted = name
            self._newest += 1
            self._loader.put((self._newest, name))

    def unload(self) -> None:
        """Lets go of the predictor and of the memory that it held; a predictor still being loaded will not serve."""
        with self._lock:
            loader, self._loader = self._loader, None
            self._serving = self._wanted = None
            self._given_up = self._newest
        if loader is not None:
            loader.close(timeout_s=0.0)
            _free_memory()

    # On the loader's thread.

    def _replace(self, request: tuple[int, str]) -> None:
        number, name = request
        predictor = None
        if name != self.name:
            try:
                predictor = self._load(name)
            except Exception as error:  # whatever it is, the old one serves on and a person hears why
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
        """Lets ``predictor`` serve, ``None`` for the present one, if ``name`` is still wanted; returns whether."""
        with self._lock:
            if number <= self._given_up or self._wanted != name:
                return False  # unloaded, or something else was asked for meanwhile
            if predictor is not None:
                self._serving = (name, predictor)
            return True

    def _settle_failure(self, number: int) -> bool:
        """Goes on with what serves, unless ``number`` is not the newest request; returns whether it is."""
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
