"""Which of many keys exist, asked by few commands."""

from __future__ import annotations

import pytest
from ledger_samples import Store

from canhazgpu.ledger.store.connect import Role, connect
from canhazgpu.ledger.store.nodes.node_views import existing_keys
from canhazgpu.ledger.wait_budget import WaitBudget


@pytest.mark.parametrize("lacking", [set(), {7}, {7, 8, 299}, {*range(100, 300)}, {*range(300)}])
def test_those_are_found_that_exist(store: Store, lacking: set[int]) -> None:
    names = [f"canhazgpu:{{existing{number}}}:indexed" for number in range(300)]
    existing = {name for number, name in enumerate(names) if number not in lacking}
    for name in names:
        store.raw_client.delete(name)
    for name in existing:
        store.raw_client.set(name, "1")
    client = connect(store.config, Role.WRITE, WaitBudget())
    in_cluster = store.config.url.startswith("redis+cluster://")
    assert existing_keys(client, names, in_cluster=in_cluster) == existing
    assert existing_keys(client, [], in_cluster=in_cluster) == set()
    client.close()
