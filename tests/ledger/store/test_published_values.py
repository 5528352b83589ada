"""What a node publishes beside its scan, where former releases do not look."""

from __future__ import annotations

from dataclasses import replace

from ledger_samples import Observe, Store

from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.ledger import RedisLedger


def test_partitions_are_published_with_the_scan_and_stay(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.publish_scan(observe(2))
    (found,) = ledger.read_nodes([node])
    assert (found.partitions, found.partitions_at) == (None, None)
    ledger.publish_scan(replace(observe(2), partitions=("gpu", "debug")))
    # Whoever does not know them leaves them as they are.
    ledger.publish_scan(observe(2))
    (found,) = ledger.read_nodes([node])
    assert found.partitions == ("gpu", "debug")
    assert found.partitions_at is not None
    assert found.scanned_at is not None
    assert found.partitions_at <= found.scanned_at
    ledger.publish_scan(replace(observe(2), partitions=()))
    (found,) = ledger.read_nodes([node])
    assert found.partitions == ()
    for garbage in ("", "{}", "[5]", "x", "[" * 5000):
        store.raw_client.hset(keys.node_keys(node).scan, "partitions", garbage)
        (found,) = ledger.read_nodes([node])
        assert found.partitions is None
