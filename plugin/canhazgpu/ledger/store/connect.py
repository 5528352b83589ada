"""Connect to the store; every connection is opened here.

Importing this module is cheap: redis-py is imported by the first `connect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING

from canhazgpu.ledger.store.login import address_with_login
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, masked_url
from canhazgpu.ledger.wait_budget import WaitBudget

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig

__all__ = ["Role", "connect", "import_client", "masked_url", "translate_errors"]


STARTS_PER_ANSWER = 4
"""A start of the embedded store may take so many times what its answers may take."""


class Role(Enum):
    """What the connection is for; the embedded store has an ACL user for each role."""

    READ = "read"
    WRITE = "write"


def connect(store: StoreConfig, role: Role, budget: WaitBudget | None = None) -> redis.Redis:
    """Return a client of the store; its answers are text.

    The embedded store is started if it does not run, and a cluster is asked for its nodes. Any
    other store is contacted by the first command. Raises `ConfigError` for a malformed URL and
    `StoreError` if the store cannot be used. Run commands inside `translate_errors`; a blocking
    command must block for less than ``store.timeout_s``. The budget limits all waits together.
    """
    budget = budget or WaitBudget()
    url = _embedded_url(store, role, budget) if store.url == EMBEDDED else address_with_login(store)
    with translate_errors(store):
        from canhazgpu.ledger.store.client import open_client  # noqa: PLC0415 - imports redis

        return open_client(url, store.timeout_s, budget)


def _embedded_url(store: StoreConfig, role: Role, budget: WaitBudget) -> StoreUrl:
    from canhazgpu.ledger.embedded.server import ensure_running  # noqa: PLC0415 - other stores need none of it

    login = ensure_running(
        store.embedded_dir,
        write=role is Role.WRITE,
        wait_s=min(store.timeout_s, budget.left_s),
        start_limit_s=STARTS_PER_ANSWER * budget.left_s,
    )
    return StoreUrl("unix", path=login.socket, username=login.username, password=login.password)


def import_client(store: StoreConfig) -> None:
    """Import what the first request to the store needs, before a clock runs or a signal may raise.

    An import may take seconds on a machine without a free CPU. What fails here fails again where it
    is needed, and is reported there.
    """
    needed = [
        "canhazgpu.ledger.store.client",
        "canhazgpu.ledger.store.messages.error_messages",
        "canhazgpu.ledger.store.ledger",
        "secrets",  # redis-py imports it with its first connection
    ]
    if store.url == EMBEDDED:
        needed.append("canhazgpu.ledger.embedded.server")
    with suppress(Exception):
        for name in needed:
            import_module(name)


@contextmanager
def translate_errors(store: StoreConfig) -> Iterator[None]:
    """Turn errors of redis-py and of sockets inside the block into `StoreError`.

    The block must contain only the call to the store: every `OSError` in it counts as the store's.
    """
    try:
        yield
    except Exception as exc:
        from canhazgpu.ledger.store.messages.error_messages import store_error  # noqa: PLC0415 - imports redis

        error = store_error(exc, store)
        if error is None:
            raise
        raise error from exc
