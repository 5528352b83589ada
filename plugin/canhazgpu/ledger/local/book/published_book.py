"""What a node publishes of its book: a file that everybody may read and only root may write.

Hooks grant and release GPUs without the store while it is away. A person's process asks the store
alone; it reads here what the store does not know yet. The file is replaced as a whole, after the
book.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from canhazgpu.errors import BookUnknownError, NodeStateError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import holder_of
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, NumberedEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.values import RECORD_ERRORS, Reservation
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import read_if_trusted, write_atomically

FORMAT = 1
PUBLISHED_FILE = "published.json"
"""The file's name in the node's state directory."""


@dataclass(frozen=True, slots=True)
class PublishedBook:
    """A node's book as everybody may read it: its reservations only.

    `released` has owners of whom the store may still show what the node has released, and the GPUs,
    none for all of theirs. `store_away_since` is the node's uptime in seconds when its hooks first
    found the store away, and `store_away_reason` says why; None and "" while it answers them.
    """

    node: str
    boot_id: str | None
    book: Book
    store_away_since: float | None = None
    store_away_reason: str = ""
    released: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def has_released(self, one: Reservation) -> bool:
        """Tell whether the node has released what the store shows of this one owner."""
        gpus = self.released.get(one.claim.owner)
        is_named = gpus is not None and (not gpus or one.gpu in gpus)
        held = self.book.reservations.get(one.gpu) if is_named else None
        return is_named and not holder_of(held, one.claim.owner)


def unheard_releases(book: Book, entries: Sequence[NumberedEntry]) -> Mapping[str, tuple[str, ...]]:
    """Return what to publish as `released`, by the entries that the store does not have yet.

    Of an owner whose grant it has not heard of either, it shows nothing.
    """
    granted = set()
    found: dict[str, tuple[str, ...]] = dict.fromkeys(book.ended, ())
    for entry in (one.entry for one in entries):
        if entry.kind == GRANT:
            granted.add(entry.owner)
        elif entry.kind == RELEASE and entry.owner not in granted:
            named = found.get(entry.owner)
            is_all = not entry.gpus or named == ()
            found[entry.owner] = () if is_all else (*(named or ()), *entry.gpus)
    return found


def write_published(state_dir: Path, published: PublishedBook) -> None:
    """Replace the file; raises `OSError`."""
    since, wall_s = published.store_away_since, time.time() - uptime_s()
    data = {
        "format": FORMAT,
        "node": published.node,
        "boot_id": published.boot_id,
        "store_away_since_uptime_s": since,
        "store_away_since": None if since is None else since + wall_s,
        "store_away_reason": published.store_away_reason,
        # People too: every release leaves to these owners what they hold.
        "jobs": sorted(published.book.own_owners),
        "released": {owner: list(gpus) for owner, gpus in published.released.items()},
        "gpus": {
            gpu: {
                "owners": [one.claim.owner for one in held.holders],
                "since": held.granted_at,
                "record": reservation_to_json(held),
            }
            for gpu, held in published.book.reservations.items()
        },
    }
    write_atomically(state_dir / PUBLISHED_FILE, json.dumps(data).encode(), 0o644)


def read_published(
    state_dir: Path, node: str, boot_id: str | None, served: ServedBoot | None = None
) -> PublishedBook | None:
    """Return what the node published in this boot, None if it did not.

    A file that another user than root or this one could have written counts as missing. Raises
    `NodeStateError` if it cannot be read, or was lost: then nobody knows what the node's jobs hold.
    """
    path = state_dir / PUBLISHED_FILE
    try:
        content = read_if_trusted(path)
        data = None if content is None else json.loads(content)
        if data is None or data["node"] != node or boot_id not in (None, data["boot_id"]):
            if served is not None and served.is_noted():
                raise BookUnknownError(
                    f"{path} is missing, and was there in this boot: it is not known which GPUs of"
                    f" {node} its jobs hold, and nobody is granted any"
                )
            return None
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r:.20}, not {FORMAT}")
        since = data["store_away_since_uptime_s"]
        return PublishedBook(
            node,
            boot_id,
            _book_from(data),
            None if since is None else float(since),
            # The former release told neither.
            str(data.get("store_away_reason", "")),
            {str(one): tuple(map(str, gpus)) for one, gpus in data.get("released", {}).items()},
        )
    except OSError as exc:
        raise NodeStateError(f"cannot read {path}: {exc.strerror}") from exc
    except (*RECORD_ERRORS, AttributeError) as exc:
        raise NodeStateError(
            f"{path} cannot be read ({exc}), so it is not known which GPUs the node's jobs hold",
            next_step="'canhazgpu-healthcheck', run by root, writes it anew",
        ) from exc


def _book_from(data: dict[str, Any]) -> Book:
    held = {
        str(gpu): reservation_from_json(str(gpu), one["record"])
        for gpu, one in data["gpus"].items()
    }
    return Book(held, own_owners=frozenset(map(str, data["jobs"])))
