# SPDX-License-Identifier: Apache-2.0
"""What the parameters ask to be done with the objects of an image."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.pipeline.answering import Refinement

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.separation import Separator


class Refining:
    """Holds the separator, which is read once, when it is first needed.

    Args:
        core: State that the parts of the node share.
    """

    def __init__(self, core: NodeCore[ReferringConfig]) -> None:
        self._core = core

    def now(self) -> Refinement:
        """Returns what the parameters ask for at the moment."""
        config = self._core.config
        return Refinement(config.refine_edges, self._separator if config.separate_touching else None)

    @cached_property
    def _separator(self) -> Separator | None:
        from clip_seg_ros.models.checkpoints import WeightsError
        from clip_seg_ros.pipeline.separation import Separator

        try:
            return Separator.load()
        except (WeightsError, FileNotFoundError) as error:
            self._core.faults.report("separator", str(error), f"objects that touch stay together: {error}")
            return None
