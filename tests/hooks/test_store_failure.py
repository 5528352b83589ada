"""Hooks without their store, and with one that lost its memory: jobs start, no GPU has two owners."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import PrivateRedis

from canhazgpu.ledger.values import Claim, Event

LIMIT_S = 3.0


@pytest.fixture
def server(node: Any) -> Iterator[PrivateRedis]:
    """The node's store; whatever a test did to it, it can be stopped."""
    yield node.server
    if node.server.is_running():
        node.server.resume()


def job(number: int, gpus: str = "0,1", attempt: int = 0) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_GPUS": gpus,
        "SLURM_JOB_RESTART_COUNT": str(attempt),
    }


def book(node: Any) -> dict[str, str]:
    """The owners by GPU in the node's own book."""
    held = json.loads((node.files / "run" / "book.json").read_text())["held"]
    return {gpu: json.loads(text)["owner"] for gpu, text in held.items()}


def events(node: Any, *kinds: str) -> list[Event]:
    return [one for one in node.ledger.history("n1", 0.0) if one.kind in (kinds or (one.kind,))]


def gpus_of(node: Any, owner: str) -> set[str]:
    return {gpu for gpu, one in book(node).items() if one == owner}


def test_jobs_start_and_end_without_the_store(node: Any, server: PrivateRedis) -> None:
    server.kill()
    node.run("prolog", **job(1, "0,1"))
    node.run("prolog", **job(2, "2,3"))
    assert set(book(node).values()) == {"job:c1:1:0", "job:c1:2:0"}
    assert len(book(node)) == 4
    node.run("epilog", **job(1, "0,1"))
    assert set(book(node).values()) == {"job:c1:2:0"}

    server.start()
    node.forget_outage()
    node.run("prolog", **job(3, "0,1"))
    held = node.held()
    assert sorted(held.values()) == ["job:c1:2:0"] * 2 + ["job:c1:3:0"] * 2
    assert held == book(node)
    told = [(one.kind, one.claim.owner) for one in events(node, "grant", "release") if one.claim]
    assert told == [
        *[("grant", "job:c1:1:0")] * 2,
        *[("grant", "job:c1:2:0")] * 2,
        *[("release", "job:c1:1:0")] * 2,
        *[("grant", "job:c1:3:0")] * 2,
    ]
