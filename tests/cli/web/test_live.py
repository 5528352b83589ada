"""Events for viewers: one task reads for all, nobody is waited for, and their number is bounded."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from hosts.web_server import WebServer
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.shown_cluster import fill

from canhazgpu.cli.web.cluster_state import ClusterReader
from canhazgpu.cli.web.live import LiveEvents
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.node_status import NodeStatus

if TYPE_CHECKING:
    from starlette.responses import Response


class Cluster:
    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> StatusAnswer:
        self.reads += 1
        return StatusAnswer((NodeStatus("n1", float(self.reads), 0.0, False, None, ()),))

    def live(self, max_viewers: int = 50) -> LiveEvents:
        return LiveEvents(ClusterReader(self.read, 0.0), max_viewers)


def stream(response: Response) -> AsyncIterator[str]:
    return response.body_iterator  # type: ignore[attr-defined, no-any-return]


async def until_event(events: AsyncIterator[str]) -> int:
    """Return the number of the next state."""
    async for text in events:
        if text.startswith("event: state"):
            return int(text.split('"number":')[1].split(",")[0])
    raise AssertionError("the stream ended")


def test_one_task_reads_for_all_viewers_and_ends_with_the_last_one() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        live = cluster.live()
        streams = [stream(live.response()) for _ in range(20)]
        for _ in range(3):
            await asyncio.gather(*map(until_event, streams))
        # Twenty viewers who read for themselves would have read sixty times.
        assert 3 <= cluster.reads < 40
        assert live.viewers == 20
        for one in streams:
            await one.aclose()  # type: ignore[attr-defined]
        assert live.viewers == 0
        task = live._task
        assert task is not None
        await task
        before = cluster.reads
        assert task.done()
        assert cluster.reads == before

    asyncio.run(scenario())


def test_nothing_is_read_without_a_viewer() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.live()
        await asyncio.sleep(0)
        assert cluster.reads == 0

    asyncio.run(scenario())


def test_a_viewer_who_is_slow_gets_the_latest_state_and_holds_up_nobody() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        live = cluster.live()
        slow, quick = stream(live.response()), stream(live.response())
        first = await until_event(slow)
        seen = [await until_event(quick) for _ in range(6)]
        assert seen == sorted(set(seen))
        latest = live._reader.last.number
        assert await until_event(slow) >= latest > first + 1
        await live.close()

    asyncio.run(scenario())


def test_beyond_the_bound_a_viewer_is_told_to_come_later() -> None:
    async def scenario() -> None:
        live = Cluster().live(max_viewers=2)
        streams = [stream(live.response()) for _ in range(2)]
        for one in streams:
            await until_event(one)
        refused = live.response()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
        await streams[0].aclose()  # type: ignore[attr-defined]
        assert live.response().status_code == 200
        await live.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_viewer_who_is_gone_leaves_room_for_another() -> None:
    """As the server sees it: the connection is closed without a word."""
    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url, {"web.max_viewers": "2"}) as web:
            held = [_connect(web) for _ in range(2)]
            assert web.ask("/live").status == 503
            # Pages are there all the same.
            assert web.ask("/").status == 200
            held[0].close()
            again = poll_until(lambda: _try_to_connect(web), "room for a viewer")
            again.close()
            held[1].close()


def _connect(web: WebServer) -> http.client.HTTPConnection:
    connection = _try_to_connect(web)
    assert connection is not None
    return connection


def _try_to_connect(web: WebServer) -> http.client.HTTPConnection | None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    connection.request("GET", "/live")
    answer = connection.getresponse()
    if answer.status == 200 and answer.readline():
        # The response holds the socket, too.
        connection.answer = answer  # type: ignore[attr-defined]
        return connection
    connection.close()
    return None
