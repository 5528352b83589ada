"""What a node itself knows while the store does not serve: what its hooks publish."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.local.book.published_book import PublishedBook, read_published
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id, state_dir
from canhazgpu.status.node_status import HooksOutage

if TYPE_CHECKING:
    from canhazgpu.config import Config


def view_without_store(node: str, config: Config) -> NodeView:
    """Return the node's view with the reservations that its hooks last published, if any.

    Times are of the node's clock. The view lacks whatever the hooks did not know.
    """
    published = _read_published(node, config)
    reservations = published.book.reservations if published else {}
    return NodeView(node, time.time(), None, None, reservations)


def hooks_outage(node: str, config: Config) -> HooksOutage | None:
    """Return since when the node's hooks find the store away, None if they reach it."""
    published = _read_published(node, config)
    if published is None or published.store_away_since is None:
        return None
    since = time.time() - uptime_s() + published.store_away_since
    return HooksOutage(since, published.store_away_reason or "it did not serve")


def _read_published(node: str, config: Config) -> PublishedBook | None:
    """Return what the node published; None too where that was lost or cannot be read."""
    try:
        return read_published(state_dir(config.node, node), node, boot_id())
    except NodeStateError:
        return None
