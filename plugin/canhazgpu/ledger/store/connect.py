"""The one way to a connection with the store.

Importing this module costs nothing: redis-py is imported with the first `connect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, masked_url, parse_store_url

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig

__all__ = ["Role", "connect", "masked_url", "translate_errors"]


class Role(Enum):
    """What the connection is for; the embedded store gives each its own rights."""

    READ = "read"
    WRITE = "write"


def connect(store: StoreConfig, role: Role) -> redis.Redis:
    """Return a client of the store, whose answers are text.

    Only the embedded store (which starts on demand) and a cluster (which is asked for its nodes)
    are contacted here; any other store is with the first command. Raises `ConfigError` for a
    malformed URL and `StoreError` for a store that cannot be used. Put commands into
    `translate_errors`; a blocking one must ask for less than ``store.timeout_s``.
    """
    url = _embedded_url(store, role) if store.url == EMBEDDED else parse_store_url(store.url)
    with translate_errors(store):
        from canhazgpu.ledger.store.client import open_client  # noqa: PLC0415 - imports redis

        return open_client(url, store.timeout_s)


def _embedded_url(store: StoreConfig, role: Role) -> StoreUrl:
    from canhazgpu.ledger.embedded.server import ensure_running  # noqa: PLC0415 - other stores need none of it

    login = ensure_running(store.embedded_dir, write=role is Role.WRITE, wait_s=store.timeout_s)
    return StoreUrl("unix", path=login.socket, username=login.username, password=login.password)


@contextmanager
def translate_errors(store: StoreConfig) -> Iterator[None]:
    """Turn whatever redis-py or a socket raises inside the block into a `StoreError`.

    Keep the block around the call to the store alone: every `OSError` in it is taken as the
    store's.
    """
    try:
        yield
    except Exception as exc:
        from canhazgpu.ledger.store.error_messages import store_error_message  # noqa: PLC0415 - imports redis

        text = store_error_message(exc, store)
        if text is None:
            raise
        raise StoreError(text) from exc
