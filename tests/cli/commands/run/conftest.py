"""Hosts that people share, and people."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clusters.gpu_cluster import installed_venv
from hosts.shared_host import SharedHost, shared_host

from demo_cluster import ensure_users, remove_users

# Names of this run alone: two runs on one machine do not remove each other's users.
USERS = tuple(f"cg{name}{os.getpid()}" for name in ("ann", "bob", "cleo", "dan"))


@pytest.fixture(scope="session", autouse=True)
def _hang_ups_count() -> Iterator[None]:
    """Where the tests were started with nohup, what they start would ignore SIGHUP as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def program() -> Path:
    """The installed command, where every user may execute it."""
    return installed_venv() / "bin" / "canhazgpu"


@pytest.fixture(scope="session")
def people() -> Iterator[tuple[str, ...]]:
    if os.geteuid() != 0:
        pytest.skip("only root can make users")
    created = ensure_users(list(USERS))
    yield USERS
    remove_users(created)


@pytest.fixture
def make_host(program: Path) -> Iterator[Callable[..., SharedHost]]:
    with ExitStack() as stack:

        def make(gpus: int = 2, *, persist: bool = False) -> SharedHost:
            return stack.enter_context(shared_host(program, gpus, persist=persist))

        yield make


@pytest.fixture
def host(make_host: Callable[..., SharedHost]) -> SharedHost:
    return make_host()
