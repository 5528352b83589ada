"""Whether an agent serves the node is told by its socket."""

from __future__ import annotations

import socket
from pathlib import Path

from canhazgpu.agent.agent_socket import PEOPLE_SOCKET
from canhazgpu.agent.socket_files import agent_directory, listen
from canhazgpu.in_process.orders.agent_presence import AGENT_SOCKET, agent_listens


def test_a_socket_at_which_somebody_listens_is_an_agents(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    for directory in (tmp_path, long):
        path = agent_directory(directory) / PEOPLE_SOCKET
        assert path == directory / AGENT_SOCKET
        assert not agent_listens(directory)
        path.parent.mkdir(parents=True)
        assert not agent_listens(directory)
        with listen(path, 0o666):
            assert agent_listens(directory)
        assert not agent_listens(directory)
        path.unlink()
        path.write_text("no socket")
        assert not agent_listens(directory)


def test_an_agent_that_accepts_nobody_is_one(tmp_path: Path) -> None:
    path = tmp_path / AGENT_SOCKET
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as full:
        full.bind(str(path))
        full.listen(0)

        assert all(agent_listens(tmp_path) for _ in range(5))
