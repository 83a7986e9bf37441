# SPDX-License-Identifier: Apache-2.0
"""Questions of a page, their answers, and events, over a WebSocket.

Messages from the page are objects of JSON; ``"ask"`` says what for. A question has a ``request``, the number with which
its ``answer`` or refusal comes back. Messages to the page are events, as objects of JSON, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from clip_seg_ros.viewer.source import Event, Refused

_MOST_EVENTS = 300
"""Events that wait for one viewer; the oldest ones are dropped then."""
_MOST_QUESTIONS = 6
"""Questions of one viewer that wait for an answer."""
_ALIVE_S = 5.0
"""A viewer hears something at least as often, to know that its connection holds."""
_LOG = logging.getLogger(__name__)


class Conversation:
    """Serves one page until it leaves; ``_asked`` of a subclass answers. It is made on the server's loop.

    Args:
        socket: The connection, accepted already.
        askers: Runs what answers.
    """

    def __init__(self, socket: WebSocket, askers: Executor) -> None:
        self._socket, self._askers = socket, askers
        self._events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Runs until the page leaves or the connection breaks."""
        sender = asyncio.create_task(self._send())
        try:
            while True:
                self._take(json.loads(await self._socket.receive_text()))
        except (WebSocketDisconnect, RuntimeError):
            pass  # it has left
        except (ValueError, KeyError, TypeError) as error:
            await self._socket.close(1003, f"not understood: {type(error).__name__}: {error}"[:120])
        finally:
            for task in (sender, *self._tasks):
                task.cancel()

    def tell(self, event: Event) -> None:
        """Tells this page alone of an event; it may be called from any thread."""
        self._events.append(event)
        self._wake()

    def _wake(self, *_: object) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._news.set)

    def _take(self, message: dict[str, Any]) -> None:
        """Takes a message: a question, unless a subclass knows more. Raises what ends the conversation."""
        ask = message["ask"]
        if len(self._tasks) >= _MOST_QUESTIONS:
            why = "other questions still wait for an answer: try again"
            self._events.append({"event": "refused", "request": message.get("request"), "message": why})
        else:
            task = asyncio.create_task(self._answer(ask, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._news.set()

    def _runner(self, ask: str) -> Executor:
        """Returns what runs the answer to a question."""
        return self._askers

    def _asked(self, ask: str, message: dict[str, Any]) -> Any:
        """Answers a question with plain values, on a thread that may wait.

        Raises:
            Refused: Why there is no answer.
        """
        raise Refused(f"the page asked for {ask!r}, which this server does not know: load the page again")

    async def _after_events(self) -> None:
        """Is called after all events were sent."""

    async def _answer(self, ask: str, message: dict[str, Any]) -> None:
        request = message.get("request")
        try:
            answer: Any = await self._loop.run_in_executor(self._runner(ask), self._asked, ask, message)
            self._events.append({"event": "answer", "request": request, "answer": answer})
        except Refused as why:
            self._events.append({"event": "refused", "request": request, "message": str(why)})
        except (ValueError, KeyError, TypeError) as error:
            text = f"not understood: {type(error).__name__}: {error}"
            self._events.append({"event": "refused", "request": request, "message": text})
        except Exception as error:  # whatever it is, the viewer waits for an answer
            _LOG.exception("a question of a viewer failed")
            text = f"the question failed: {type(error).__name__}: {error}"
            self._events.append({"event": "refused", "request": request, "message": text})
        self._news.set()

    async def _send(self) -> None:
        try:
            while True:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _ALIVE_S)
                if not self._news.is_set():
                    self._events.append({"event": "alive"})
                self._news.clear()
                while self._events:
                    await self._socket.send_text(json.dumps(self._events.popleft(), allow_nan=False))
                await self._after_events()
        except WebSocketDisconnect:
            pass  # it has left, which the receiving side sees, too
        except Exception:
            if WebSocketState.DISCONNECTED in (self._socket.client_state, self._socket.application_state):
                return  # to send is an error then
            _LOG.exception("a viewer cannot be shown what there is")
            with suppress(RuntimeError):
                await self._socket.close(1011, "the server failed: its log says how")
