# SPDX-License-Identifier: Apache-2.0
"""The tools of ``clip-seg mcp``. Their descriptions are read by assistants; the package mcp is needed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from clip_seg_ros.tools.asking import NoAnswer, Questioner
from clip_seg_ros.tools.mcp_answers import Described, Found, Looked, Recalled, Said, Segmented, Thing

INSTRUCTIONS = """\
These tools see through the cameras of a robot. Phrases in English say what to look for: "red cup", or, with places, \
order and number, "the cup left of the blue box", "the second cup from the left", "the cups within 40 cm of the bowl". \
Nothing is moved: the tools only see. To learn what is there, use `describe` or `look`; to learn where one thing is, \
use `find`; for all things that some phrases name, use `segment`; for what was seen before and may be out of view, use \
`recall`. Positions are in metres in the frame that the answer names. When a tool fails, its message says why and what \
to do; pass that on to the person if it is about starting a node or a camera."""

Camera = Annotated[
    str,
    Field(description="name of the camera to look with; empty, which is the default, for any. Most robots have one"),
]


def _seconds(default: float, what: str) -> Any:
    return Field(default, ge=0.1, le=120.0, description=f"the longest time in seconds {what}, 0.1 to 120")


class NodeTools:
    """The tools; each asks the nodes by a question.

    Args:
        questioner: Puts the questions.
    """

    def __init__(self, questioner: Questioner) -> None:
        self._questioner = questioner

    async def _ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        try:
            return await self._questioner.ask(question, **arguments)
        except NoAnswer as why:
            raise ToolError(str(why)) from why

    async def find(
        self,
        phrase: Annotated[
            str,
            Field(min_length=1, max_length=500, description='what to look for, such as "the cup left of the blue box"'),
        ],
        timeout_s: float = _seconds(10.0, "to look for it"),
        max_age_s: Annotated[
            float,
            Field(
                ge=0.0,
                le=86400.0,
                description="how many seconds ago it may have been seen for an answer from memory, where the node has "
                "one; 0, the default, for what is in view now",
            ),
        ] = 0.0,
        camera: Camera = "",
    ) -> Found:
        """Looks for one thing until it is seen, and tells where it is: its position in metres, its box in pixels.

        The phrase may say a colour, a kind, where the thing is ("left of", "behind", "next to", "on", "between",
        "nearest to"), which one in a row ("the second cup from the left") or how large ("the largest box"). If several
        things fit, the best is told. `found` is false if the thing was not seen in time; that is an answer and no
        error. It changes nothing that the nodes do otherwise.
        """
        seen = await self._ask("find", phrase=phrase, timeout_s=timeout_s, max_age_s=max_age_s, camera=camera)
        return Found(
            found=seen["found"],
            message=seen["message"],
            thing=_thing(seen) if seen["found"] else None,
            frame=seen.get("frame", ""),
            age_s=seen.get("age_s"),
            from_memory=seen.get("remembered", False),
            camera=seen.get("camera", ""),
        )

    async def segment(
        self,
        phrases: Annotated[
            list[Annotated[str, Field(min_length=1, max_length=500)]],
            Field(min_length=1, max_length=16, description='what to look for, such as ["red cup", "boxes"]; 1 to 16'),
        ],
        picture: Annotated[
            bool, Field(description="whether to return the picture, too, with the things outlined, named and scored")
        ] = False,
        timeout_s: float = _seconds(30.0, "until an image was answered"),
        camera: Camera = "",
    ) -> Annotated[CallToolResult, Segmented]:
        """Finds all things that some phrases name in the next image: scores, boxes in pixels, positions in metres.

        Each phrase may be as those of `find`, in the plural, too: "cups", "the cups on the table, not the red one".
        From then on the nodes look for these phrases in every image, in place of those before, and publish what they
        find.
        """
        seen = await self._ask("segment", phrases=phrases, timeout_s=timeout_s, camera=camera, picture=picture)
        answer = Segmented(
            message=seen["message"],
            phrases=seen["prompts"],
            things=[_thing(item) for item in seen["objects"]],
            frame=seen["frame"],
            age_s=seen["age_s"],
            camera=seen["camera"],
        )
        return _with_pictures(answer, [seen["picture"]["jpeg"]] if picture else [])

    async def describe(self, timeout_s: float = _seconds(60.0, "until an image was looked at")) -> Described:
        """Lists the things that the camera sees now, of those whose names the model has.

        It is a list of names and scores without places: `find` and `segment` tell where the things are. What has none
        of these names is not listed, so that an empty list does not mean that nothing is there. `look` shows the
        picture.
        """
        seen = await self._ask("describe", timeout_s=timeout_s)
        return Described(message=seen["message"], names=seen["found"])

    async def recall(
        self,
        phrase: Annotated[
            str, Field(max_length=500, description="what to recall, such as `cup`; empty, the default, for everything")
        ] = "",
        max_age_s: Annotated[
            float,
            Field(ge=0.0, le=31536000.0, description="leave out what was seen longer ago, in seconds; 0 for any age"),
        ] = 0.0,
        pictures: Annotated[
            bool, Field(description="whether to return the best picture of each thing, too, in the same order")
        ] = False,
        timeout_s: float = _seconds(10.0, "until the node answers"),
    ) -> Annotated[CallToolResult, Recalled]:
        """Tells what was seen before and where, whether or not it is in view now, and how many seconds ago.

        Positions are in a frame that does not move with the camera. Only things that the nodes were told to look for
        before are remembered. It fails where the node has no memory.
        """
        seen = await self._ask("recall", phrase=phrase, max_age_s=max_age_s, timeout_s=timeout_s)
        answer = Recalled(**seen)
        return _with_pictures(answer, [each["jpeg"] for each in seen["things"] if each["jpeg"]] if pictures else [])

    async def command(
        self,
        text: Annotated[
            str,
            Field(min_length=1, max_length=2000, description='the command, such as "stop", "threshold 0.4", "help"'),
        ],
        timeout_s: float = _seconds(30.0, "until the last status comes"),
    ) -> Said:
        """Gives the nodes any command of their language, and tells what became of it.

        Commands are: "segment the red cup and the bowl" (also "find", "track"), "stop", "clear", "threshold 0.4",
        "threshold default", "use cris" (another model), "what do you see?", "classes: cup, table, floor" (for a node
        `semantic`), and "help", which answers with examples. Use `find` and `segment` for what they do: they tell
        positions.
        A command that is rejected or fails is an error whose message says why and what was probably meant.
        """
        statuses = (await self._ask("command", text=text, timeout_s=timeout_s))["statuses"]
        last = statuses[-1]
        return Said(
            state=last["state"],
            message=last["message"],
            phrases=last["prompts"],
            found=last["found"],
            statuses=[{"state": each["state"], "message": each["message"]} for each in statuses],
        )

    async def look(
        self,
        picture: Annotated[
            Literal["camera", "overlay"],
            Field(
                description="`camera`, the default: the picture as it is; `overlay`: the things that `segment` named "
                "are outlined, named and scored in it"
            ),
        ] = "camera",
        camera: Camera = "",
        timeout_s: float = _seconds(10.0, "until a picture comes"),
    ) -> Annotated[CallToolResult, Looked]:
        """Returns the newest picture of the camera, a JPEG of at most 1024 pixels a side."""
        seen = await self._ask("look", overlay=picture == "overlay", camera=camera, timeout_s=timeout_s)
        shown = seen["picture"]
        sizes = {name: shown[name] for name in ("width_px", "height_px")}
        return _with_pictures(Looked(frame=seen["frame"], age_s=seen["age_s"], **sizes), [shown["jpeg"]])


def server_of(questioner: Questioner) -> MCPServer:
    """Returns the server with all tools."""
    server = MCPServer("clip_seg_ros", title="What a robot sees", instructions=INSTRUCTIONS, log_level="WARNING")
    tools = NodeTools(questioner)
    seeing = (tools.find, tools.describe, tools.recall, tools.look)
    for tool in (tools.find, tools.segment, tools.describe, tools.recall, tools.look, tools.command):
        _add(server, tool, is_reading=tool in seeing)
    return server


def _add(server: MCPServer, tool: Callable[..., Awaitable[Any]], is_reading: bool) -> None:
    hints = ToolAnnotations(
        read_only_hint=is_reading, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    server.add_tool(tool, description=inspect.getdoc(tool), annotations=hints)


def _thing(item: dict[str, Any]) -> Thing:
    return Thing(phrase=item["prompt"], **{name: item[name] for name in Thing.model_fields if name != "phrase"})


def _with_pictures(answer: BaseModel, jpegs: list[str]) -> CallToolResult:
    """Returns an answer as data and as text, with pictures as JPEG in base64."""
    images = [ImageContent(type="image", data=jpeg, mime_type="image/jpeg") for jpeg in jpegs]
    text = TextContent(type="text", text=answer.model_dump_json(indent=2))
    return CallToolResult(content=[text, *images], structured_content=answer.model_dump(mode="json"))
