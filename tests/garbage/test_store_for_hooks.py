"""Whatever stands in Redis under a node's keys: no hook ends non-zero, and a job keeps its GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from crashes.node_image import store_client
from garbage.judgement import Judged, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from .test_node_files import JOB, GarbageNode, here
from .test_store_contents import Store, changes

__all__ = ["here"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_any_content(here: GarbageNode, figures: Callable[[str], None]) -> None:
    judged = Judged("store contents, hooks")
    client = store_client(here.node.server.url)
    nothing = cast("Any", None)
    store = Store(nothing, client, {}, nothing)
    held = {gpu for gpu, owner in here.held.items() if owner == JOB}
    assert len(held) == 2

    def judge_grants(what: str) -> None:
        owners = here.in_book()
        taken = {gpu for gpu, owner in owners.items() if owner != JOB}
        judged.grants(f"{what}: {owners}", taken, held)

    @fuzzed
    @given(st.data())
    def holds(data: Any) -> None:
        here.put_back()
        for key, change in data.draw(changes(store)):
            store.put(key, change)
        judged.tried += 1
        here.hooks_of_two_jobs(judged, judge_grants, meanwhile=lambda: None)
        judged.assert_none_broke()

    try:
        holds()
    finally:
        here.put_back()
        client.close()
        figures(str(judged))
