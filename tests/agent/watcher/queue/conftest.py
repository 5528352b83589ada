"""A node whose watcher looks after clients that wait."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hosts.waiting_node import WaitingNode
from servers.private_redis import PrivateRedis, any_binary


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WaitingNode]:
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    directory = tmp_path_factory.mktemp("node")
    directory.chmod(0o755)
    with (
        PrivateRedis(binary=any_binary()) as server,
        WaitingNode(directory, server).ending() as it,
        it.hosting(),
    ):
        yield it
