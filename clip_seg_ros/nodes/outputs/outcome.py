# SPDX-License-Identifier: Apache-2.0
"""The outcome of a command over all cameras, until it is reported."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S, CameraInput
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.tally import Tally
from clip_seg_ros.types import ObjectRegion


class Outcome:
    """Collects which phrases of a command were found in the images of all cameras.

    It is complete when every phrase was found by some camera, or an image of every camera was processed. A silent
    camera is not waited for long.

    Args:
        prompts: The phrases of the command.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self._tally = Tally(prompts)
        self._given_s = time.monotonic()
        self._answered: set[str] = set()
        self.header = Header()
        """Header of the last image in which a phrase was found for the first time; without any, of the last image."""

    def add(
        self,
        camera: str,
        header: Header,
        regions: Iterable[ObjectRegion],
        maps: CellMaps | None = None,
        sentences: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Adds the result of one image with this header; the other arguments are those of ``Tally.add``."""
        self._answered.add(camera)
        if self._tally.add(camera, regions, maps, sentences):
            self.header = header

    def is_complete(self, cameras: Iterable[CameraInput]) -> bool:
        """Returns whether the outcome can be reported.

        Args:
            cameras: All cameras of the node.
        """
        if len(self.found) == len(self._tally.prompts):
            return True
        is_new = time.monotonic() - self._given_s < SILENCE_S
        missing = [camera for camera in cameras if camera.name not in self._answered]
        return not any(is_new or camera.is_alive() for camera in missing)

    @property
    def found(self) -> list[str]:
        """The phrases that were found by any camera."""
        return self._tally.found

    def note(self) -> str:
        """Returns what was found for each phrase, and by which camera if cameras have names."""
        return self._tally.note()
