# SPDX-License-Identifier: Apache-2.0
"""What the parameters say of how phrases are asked, and of what is done with the objects of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from clip_seg_ros.commands.references import Reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.pipeline.answering import Refinement
from clip_seg_ros.pipeline.space.understanding import Asking

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.models.spec import ModelSpec
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

    def asking(
        self, prompts: Sequence[str], references: Sequence[Reference], negatives: Sequence[str], spec: ModelSpec
    ) -> Asking:
        """Returns what a model is asked for, so that phrases are understood as the parameter ``relations`` says."""
        way, understands = self._core.config.relations, spec.understands_relations
        return Asking.of(prompts, references, negatives, understands and way == "model", understands and way == "both")

    @cached_property
    def _separator(self) -> Separator | None:
        from clip_seg_ros.models.checkpoints import WeightsError
        from clip_seg_ros.pipeline.separation import Separator

        try:
            return Separator.load()
        except (WeightsError, FileNotFoundError) as error:
            self._core.faults.report("separator", str(error), f"objects that touch stay together: {error}")
            return None
