"""Tell viewers by server-sent events that the cluster was read again.

An event has a number and a time, and no content: whoever gets one asks for his own page again. A
viewer who is slow misses events, and gets the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from canhazgpu.cli.web.rendering import json_text
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.cli.web.cluster_state import ClusterReader, ClusterState

SIGN_OF_LIFE_S = 20.0
"""Without an event, a comment is sent so often: a proxy ends a connection that is silent."""
RETRY_MS = 5000
"""After which a browser connects again."""


class LiveEvents:
    """The viewers that are kept up to date, at most `max_viewers`, and the one task that reads.

    Without a viewer nothing is read.
    """

    def __init__(self, reader: ClusterReader, max_viewers: int) -> None:
        self._reader = reader
        self._max_viewers = max_viewers
        self._viewers = 0
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def viewers(self) -> int:
        """How many viewers there are."""
        return self._viewers

    def response(self) -> Response:
        """Return the stream of events for one more viewer; 503 where there are enough."""
        if self._viewers >= self._max_viewers:
            return PlainTextResponse(
                "enough pages are kept up to date (web.max_viewers)\n", 503, {"retry-after": "60"}
            )
        return StreamingResponse(
            self._events(),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def close(self) -> None:
        """End all streams, so that the server can end."""
        self._ending = True
        async with self._changed:
            self._changed.notify_all()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _events(self) -> AsyncIterator[str]:
        if self._viewers >= self._max_viewers:
            return
        self._viewers += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._read_repeatedly())
            yield f"retry: {RETRY_MS}\n\n"
            told = -1
            while not self._ending:
                state = self._reader.last
                if state.number and state.number != told:
                    told = state.number
                    yield event_text(state)
                elif not await self._next(told):
                    yield ": here\n\n"
        finally:
            self._viewers -= 1

    async def _next(self, told: int) -> bool:
        """Wait for a newer state than the one with this number; False where none came in time."""
        async with self._changed:
            try:
                async with asyncio.timeout(SIGN_OF_LIFE_S):
                    await self._changed.wait_for(
                        lambda: self._ending or self._reader.last.number not in (0, told)
                    )
            except TimeoutError:
                return False
        return True

    async def _read_repeatedly(self) -> None:
        while self._viewers and not self._ending:
            await to_thread.run_sync(self._reader.current, abandon_on_cancel=True)
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(max(self._reader.seconds_until_due(), 0.05))


def event_text(state: ClusterState) -> str:
    """Return the event that tells of a state."""
    snapshot = state.snapshot
    told = {
        "number": state.number,
        "generated_at": iso_time(snapshot.generated_at) if snapshot else None,
        "fault": bool(state.fault),
    }
    return f"event: state\ndata: {json_text(told)}\n\n"
