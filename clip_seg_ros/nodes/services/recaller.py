# SPDX-License-Identifier: Apache-2.0
"""Answers what is remembered: the service ``recall``, commands, and goals that may be answered from memory."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.duration import Duration
from rclpy.time import Time
from std_msgs.msg import Header

from clip_seg_ros.action import FindObject
from clip_seg_ros.commands.meaning import covers
from clip_seg_ros.commands.parser import Command, parse_command
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.commands.words import ASKING_WHERE
from clip_seg_ros.nodes.common.answering_services import AnsweringServices
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.outputs.memory_topics import remembered_message, remembered_object_message
from clip_seg_ros.nodes.services.memory_keeper import MemoryKeeper
from clip_seg_ros.pipeline.stream.remembered import RememberedObject
from clip_seg_ros.srv import Recall

MOST_TOLD = 8
"""The largest number of things that are described in one text."""


class Recaller:
    """Answers from a memory, which is never disturbed by what is looked for, and does not disturb it.

    Args:
        core: The objects that the parts of the node share.
        keeper: The memory.
    """

    def __init__(self, core: NodeCore, keeper: MemoryKeeper) -> None:
        self._core, self._keeper = core, keeper

    def open(self) -> None:
        """Creates the service."""
        self._services = AnsweringServices(self._core.node, self._core.calls, self._core.faults)
        self._services.offer(Recall, "recall", self._answer)

    def close(self) -> None:
        """Destroys the service."""
        self._services.close()

    # The service.

    def _answer(self, request: Recall.Request, response: Recall.Response) -> Recall.Response:
        try:
            self._recall(request, response)
        except (ValueError, RuntimeError) as error:  # CommandError is a ValueError
            response.success, response.message = False, str(error)
        return response

    def _recall(self, request: Recall.Request, response: Recall.Response) -> None:
        if refusal := self._core.refusal() or self._keeper.refusal:
            raise RuntimeError(refusal)
        longest_ns = Duration.from_msg(request.max_age).nanoseconds
        if longest_ns < 0:
            raise ValueError("max_age must not be negative: 0 stands for any age")
        names = parse_command(f"recall {request.phrase}").prompts if request.phrase.strip() else ()
        items = self._recent(self._keeper.recall(names), longest_ns)
        response.success = True
        response.message = self._told(items) or self._nothing(names, longest_ns)
        frame_id = self._core.config.target_frame
        response.header = Header(stamp=self._core.node.get_clock().now().to_msg(), frame_id=frame_id)
        response.objects = [remembered_message(item, self._keeper.camera_of(item), with_view=True) for item in items]

    # Commands.

    def obey(self, command_id: int, text: str, command: Command) -> None:
        """Answers a command whose verb is "recall" or "forget"."""
        status, names = self._core.status, command.prompts
        if refusal := self._keeper.refusal:
            also = '; to empty the outputs, type "clear"' if command.verb == "forget" and not names else ""
            status.reject(command_id, text, refusal + also)
        elif command.verb == "forget":
            status.accept(command_id, text, f"forgetting {_listed(names)}")
            gone = self._keeper.forget(names)
            note = f"forgot {len(gone)} things" if len(gone) != 1 else "forgot one thing"
            status.done(command_id, text, f"{note}: {_phrases(gone)}" if gone else self._nothing(names, 0))
        else:
            status.accept(command_id, text, f"recalling {_listed(names)}")
            items = self._keeper.recall(names)
            found = [name for name in names if any(covers(name, item.phrase) for item in items)]
            newest = max(items, key=lambda item: item.last_ns, default=None)
            header = Header(stamp=self._core.node.get_clock().now().to_msg())
            if newest is not None:
                header = Header(
                    stamp=Time(nanoseconds=newest.last_ns).to_msg(), frame_id=self._core.config.target_frame
                )
                found = found or list(dict.fromkeys(item.phrase for item in items))
            note = self._told(items) or self._nothing(names, 0)
            status.outcome(command_id, text, header, note, names or found, found)

    def note_on(self, command: Command) -> str:
        """Returns what is remembered of the things that a command asks for with "where is"; empty for all else."""
        if command.spelling not in ASKING_WHERE or self._keeper.refusal:
            return ""
        names = [reference.name for reference in command.references if not reference.is_conditional]
        items = self._keeper.recall(names) if names else []
        # What is in view is found by the next image.
        return self._told(items) if len(self._keeper.out_of_view(items)) == len(items) else ""

    # Goals.

    def goal(self, request: FindObject.Goal, reference: Reference) -> FindObject.Result | str:
        """Returns the answer to a goal from memory, or why there is none; empty if the camera is to look.

        Args:
            request: The goal; its ``max_age`` is not negative.
            reference: What its phrase refers to.
        """
        longest_ns = Duration.from_msg(request.max_age).nanoseconds
        if not longest_ns:
            return ""
        if refusal := self._keeper.refusal:
            return refusal
        if reference.is_conditional:
            return "places, order and what is left out are not decided from memory"
        known = self._recent(self._keeper.recall((reference.name,)), longest_ns)
        known = [item for item in known if request.camera in ("", self._keeper.camera_of(item))]
        if not known:
            return self._nothing((reference.name,), longest_ns)
        if len(self._keeper.out_of_view(known)) < len(known):
            return ""
        best = known[0]
        stamp = Time(nanoseconds=best.last_ns).to_msg()
        return FindObject.Result(
            found=True,
            remembered=True,
            message=f"{self._told([best])}; from memory",
            header=Header(stamp=stamp, frame_id=self._core.config.target_frame),
            camera=self._keeper.camera_of(best),
            object=remembered_object_message(best),
        )

    # In words.

    def _now_ns(self) -> int:
        return self._core.node.get_clock().now().nanoseconds

    def _recent(self, items: Sequence[RememberedObject], longest_ns: int) -> list[RememberedObject]:
        """Returns what was seen within a time, in nanoseconds; all for 0."""
        now_ns = self._now_ns()
        return [item for item in items if not longest_ns or item.age_s(now_ns) <= longest_ns * 1e-9]

    def _told(self, items: Sequence[RememberedObject]) -> str:
        now_ns = self._now_ns()
        told = [item.sentence(now_ns, self._keeper.viewer_of(item)) for item in items[:MOST_TOLD]]
        if more := len(items) - len(told):
            told.append(f"and {more} more")
        return "; ".join(told)

    def _nothing(self, names: Sequence[str], longest_ns: int) -> str:
        """Says that nothing is remembered, and what is instead."""
        known = self._keeper.recall(())
        if not known:
            frame_id = self._core.config.target_frame
            return f"nothing is remembered yet; what images with depth and a transform to {frame_id} show will be"
        if not names:
            return "nothing was seen so recently"
        within = f" that was seen within {longest_ns * 1e-9:g} s" if longest_ns else ""
        wider = dict.fromkeys(item.phrase for item in known if any(covers(item.phrase, name) for name in names))
        hint = (
            f"; a {' and a '.join(wider)} is, whatever it is like" if wider and not self._keeper.recall(names) else ""
        )
        others = "one thing is" if len(known) == 1 else f"{len(known)} things are"
        return f"no {' and no '.join(names)}{within} is remembered{hint}; {others} in memory"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) or "everything"


def _phrases(items: Sequence[RememberedObject]) -> str:
    """Lists what things are called, each name once with its number."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.phrase] = counts.get(item.phrase, 0) + 1
    return ", ".join(f"{phrase} ({count} times)" if count > 1 else phrase for phrase, count in counts.items())
