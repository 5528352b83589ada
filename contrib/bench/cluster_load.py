"""The load of a large cluster on one store: what its nodes and people send, at a steady rate.

Each kind of request comes at its rate, spread evenly. What comes late is sent as soon as may be: a
generator that cannot keep up shows in its share of the CPU and in the requests that it lacks.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster_node import NodeLife
from cluster_store import Server, node_name
from counting_proxy import CHUNK

JOBS_PER_S = 100.0
STATUS_PER_S = 100 / 60
CHECK_EVERY_S = 60.0
NODES_WITH_JOBS = 200
"""Nodes on which the jobs of the load start and end, one after the other."""


@dataclass(frozen=True)
class LoadResult:
    """What was sent in `took_s`; CPU times in seconds; latencies in microseconds by command."""

    took_s: float
    sent: dict[str, int]
    server_cpu_s: float
    generator_cpu_s: float
    latencies: dict[str, dict[str, float]]

    @property
    def server_share(self) -> float:
        """The server's part of one core."""
        return self.server_cpu_s / self.took_s


class Question:
    """What one command asked the store, byte for byte, to be asked again."""

    def __init__(self, server: Server, asked: bytes) -> None:
        self._asked = asked
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(server.socket))

    def ask(self) -> None:
        """Send it, and read what had come of the one before: nobody waits for it."""
        self._drain()
        self._socket.setblocking(True)
        self._socket.sendall(self._asked)

    def _drain(self) -> None:
        self._socket.setblocking(False)
        try:
            while self._socket.recv(CHUNK):
                pass
        except BlockingIOError:
            pass


def run_load(server: Server, nodes: int, seconds: float, status: bytes) -> LoadResult:
    """Send the load of so many nodes for so long; `status` is what one `status` asks."""
    lives = [NodeLife(f"load{number:03}", server.store) for number in range(NODES_WITH_JOBS)]
    turns = itertools.cycle(lives)
    running = [(node, node.start(1, 2)) for node in lives]
    checked = itertools.cycle(range(1, nodes + 1))
    checkers = {}

    def check() -> None:
        name = node_name(next(checked))
        if name not in checkers:
            # One ledger for all of them: each node has its connection, but a generator is no node.
            checkers[name] = NodeLife(name, server.store, shared_ledger=lives[0].ledger)
        checkers[name].check()
        checkers[name].keep_indexes()

    def start() -> None:
        node = next(turns)
        running.append((node, node.start(2, 1)))

    def end() -> None:
        node, job = running.pop(0)
        if job is not None:
            node.end(job)

    question = Question(server, status)
    rates: dict[str, tuple[float, Callable[[], None]]] = {
        "health checks": (nodes / CHECK_EVERY_S, check),
        "job starts": (JOBS_PER_S, start),
        "job ends": (JOBS_PER_S, end),
        "status": (STATUS_PER_S, question.ask),
    }
    server.client.config_resetstat()
    own_before, server_before, began = time.process_time(), server.cpu_s(), time.monotonic()
    sent = _sent(rates, began, seconds)
    took_s = time.monotonic() - began
    return LoadResult(
        took_s,
        sent,
        server.cpu_s() - server_before,
        time.process_time() - own_before,
        _latencies(server),
    )


def _sent(
    rates: dict[str, tuple[float, Callable[[], None]]], began: float, seconds: float
) -> dict[str, int]:
    sent = dict.fromkeys(rates, 0)
    while (elapsed := time.monotonic() - began) < seconds:
        due = min(rates, key=lambda name: (sent[name] + 1) / rates[name][0])
        wait_s = (sent[due] + 1) / rates[due][0] - elapsed
        if wait_s > 0:
            time.sleep(wait_s)
        rates[due][1]()
        sent[due] += 1
    return sent


def _latencies(server: Server) -> dict[str, dict[str, float]]:
    """Return the percentiles of each command that took part, as the server measured them."""
    found = server.client.info("latencystats")
    return {
        name.removeprefix("latency_percentiles_usec_"): {
            key: float(value) for key, value in values.items()
        }
        for name, values in found.items()
    }
