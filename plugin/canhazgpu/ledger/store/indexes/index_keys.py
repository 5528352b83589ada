"""The keys of all indexes in a store, and what each is the index of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.ledger.store import keys

if TYPE_CHECKING:
    from canhazgpu.ledger.store.session import StoreSession

KEYS_PER_READ = 1000


def read_index_keys(session: StoreSession, prefix: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the keys of all indexes with their types, some at a time."""
    with session.client() as client:
        found = client.scan_iter(keys.indexes_pattern(prefix), count=KEYS_PER_READ)
        some: list[str] = []
        for key in found:
            some.append(cast(str, key))
            if len(some) == KEYS_PER_READ:
                yield _with_types(client, some)
                some = []
        yield _with_types(client, some)


def _with_types(client: Any, some: Sequence[str]) -> list[tuple[str, str]]:
    pipeline = client.pipeline(transaction=False)
    for key in some:
        pipeline.type(key)
    kinds = pipeline.execute() if some else []
    return [pair for pair in zip(some, kinds, strict=True) if pair[1] != "none"]


def jobs_block(key: str, prefix: str) -> int | None:
    """Return the number in the key of an index of jobs; None for another key."""
    found = re.fullmatch(r"index:jobs:([0-9]{1,19})", key.removeprefix(f"{prefix}:"))
    return int(found[1]) if found else None


def user_day(key: str, prefix: str) -> int | None:
    """Return the day of the key of a user's index; None for another key."""
    found = re.fullmatch(r"index:user:-?[0-9]{1,10}:([0-9]{1,6})", key.removeprefix(f"{prefix}:"))
    return int(found[1]) if found else None
