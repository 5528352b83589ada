"""A node whose watcher looks after clients that wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.waiting_node import WaitingNode
from servers.private_redis import PrivateRedis, any_binary


@pytest.fixture
def node(node_directory: Path) -> Iterator[WaitingNode]:
    with (
        PrivateRedis(binary=any_binary()) as server,
        WaitingNode(node_directory, server).ending() as it,
        it.hosting(),
    ):
        yield it
