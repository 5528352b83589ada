"""Clients wait, run and end while their watcher is killed again and again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass, field

import pytest
from hosts.waiting_node import Client, WaitingNode
from hosts.watched_runs import NOBODY
from polling import poll_until

from canhazgpu.agent.handler.watcher_handover import WatcherUnavailableError
from canhazgpu.ledger.owner import RUN

pytestmark = pytest.mark.slow
CLIENTS = 24


@dataclass
class Use:
    """Who uses which GPUs, as the clients themselves see it."""

    users: dict[int, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    served: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, client: Client, gpus: list[int]) -> None:
        with self.lock:
            self.served += 1
            for gpu in gpus:
                if gpu in self.users:
                    self.faults.append(f"GPU {gpu}: {self.users[gpu]} and {client.owner}")
                self.users[gpu] = client.owner

    def end(self, gpus: list[int]) -> None:
        with self.lock:
            for gpu in gpus:
                del self.users[gpu]


def granted(node: WaitingNode, client: Client) -> tuple[Client, list[int]]:
    """Wait for the GPUs, and ask again whenever the connection ends."""
    while True:
        with contextlib.suppress(ConnectionError):
            while told := client.next():
                if "granted" in told:
                    return client, told["granted"]
        client = handed_over(node, client)


def handed_over(node: WaitingNode, client: Client) -> Client:
    while True:
        with contextlib.suppress(WatcherUnavailableError):
            return node.wait_for(again=client)


def test_whoever_waits_is_served_once_whatever_becomes_of_watchers(node: WaitingNode) -> None:
    use = Use()
    first = [
        node.wait_for(1 + number % 3, uid=NOBODY * (number % 2), type_=RUN)
        for number in range(CLIENTS)
    ]

    def live(client: Client) -> None:
        client, gpus = granted(node, client)
        use.begin(client, gpus)
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(node.watchers()[-1], signal.SIGKILL)
        use.end(gpus)
        client.process.kill()

    threads = [threading.Thread(target=live, args=(one,)) for one in first]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert use.faults == []
    assert use.served == CLIENTS
    poll_until(lambda: node.holders() == {})
    assert node.queue() == []
    poll_until(lambda: node.watchers() == [])
    assert node.files.owners() == set()
