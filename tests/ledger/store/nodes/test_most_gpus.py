"""How many GPUs a node had: the store remembers them when a scan lacks one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_samples import Observe, Store, job, observation, uuid, view

from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger

FOUR = {uuid(index): index for index in range(4)}


def of(node: str, *readings: GpuReading, fault: str | None = None) -> Observation:
    return replace(observation(node, 0), scan=Scan(node, 0.0, 0.0, readings, fault))


@pytest.mark.parametrize("how", ["publish", "grant"])
def test_a_scan_that_lacks_a_gpu_does_not_make_it_forgotten(
    ledger: RedisLedger, observe: Observe, node: str, how: str
) -> None:
    ledger.publish_scan(observe(4))
    for round_ in range(3):
        if how == "publish":
            ledger.publish_scan(observe(3))
        else:
            ledger.reserve_count(job(round_), 1, observe(3))

    found = view(ledger, node)
    assert found.known_gpus == FOUR
    assert found.scan is not None
    assert len(found.scan.gpus) == 3


def test_a_scan_with_as_many_replaces_them(ledger: RedisLedger, node: str) -> None:
    def reading(index: int, name: str) -> GpuReading:
        return GpuReading(index, name, index, "H100", 0, 80000)

    ledger.publish_scan(of(node, reading(0, "GPU-a"), reading(1, "GPU-b")))
    ledger.publish_scan(of(node, reading(0, "GPU-a"), reading(1, "GPU-c")))
    assert view(ledger, node).known_gpus == {"GPU-a": 0, "GPU-c": 1}


def test_a_scan_that_failed_or_cannot_name_one_changes_nothing(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(4))
    ledger.publish_scan(of(node, fault="no driver"))
    nameless = replace(observe(4).scan.gpus[3], uuid="", fault="GPU is lost")
    ledger.publish_scan(of(node, *observe(3).scan.gpus, nameless))
    assert view(ledger, node).known_gpus == FOUR


def test_mig_instances_are_counted_as_their_gpu(ledger: RedisLedger, node: str) -> None:
    instances = [
        GpuReading(0, f"MIG-{index}", None, "H100", 0, 1, mig_index=index, parent_uuid="GPU-0")
        for index in range(7)
    ]
    ledger.publish_scan(of(node, *instances, GpuReading(1, "GPU-1", 1, "H100", 0, 1)))
    ledger.publish_scan(of(node, GpuReading(0, "GPU-0", 0, "H100", 0, 1)))
    assert view(ledger, node).known_gpus == {"GPU-0": 0, "GPU-1": 1}


def test_an_administrator_says_that_there_are_no_others(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(4))
    ledger.publish_scan(replace(observe(3), is_complete=True))
    assert view(ledger, node).known_gpus == {uuid(index): index for index in range(3)}


@pytest.mark.parametrize("record", ["", "[]", "7", '{"GPU-0": "x"}', "\xff"])
def test_a_damaged_record_counts_as_none(
    ledger: RedisLedger, store: Store, observe: Observe, node: str, record: str
) -> None:
    ledger.publish_scan(observe(2))
    store.raw_client.hset(node_keys(node).scan, "most", record)
    assert view(ledger, node).known_gpus == {uuid(0): 0, uuid(1): 1}
    ledger.publish_scan(observe(1))
    assert view(ledger, node).known_gpus == {uuid(0): 0}
