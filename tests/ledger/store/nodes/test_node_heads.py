"""A node's head tells the same as its other keys, or is not used."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import (
    Observe,
    Store,
    job,
    manual,
    new_node_name,
    observation,
    patch_record,
    run,
    share,
    uuid,
    wait_for_next_ms,
    waiter,
)
from servers.private_redis import shared_server

from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import NodeKeys, node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import NodeCounts, NodeHead, NodeView
from canhazgpu.node.process_id import ProcessId
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.heads.chosen_counts import ChosenCounts
from canhazgpu.status.heads.counts import counted_by_counts, counted_node, shown_by_counts
from canhazgpu.status.heads.free_gpus import free_node
from canhazgpu.status.heads.json_text import PlainNodesJson
from canhazgpu.status.heads.node_table import PlainNodesTable
from canhazgpu.status.json_format import node_to_dict
from canhazgpu.status.node_status import node_status
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.summary import summarize, summary_to_dict
from canhazgpu.status.table_cells import cells


def brief_view(ledger: RedisLedger, node: str) -> NodeView:
    ((found,),) = ledger.read_node_pages([node], brief_above=0)
    return found


def told(view: NodeView, policy: UsagePolicy) -> list[Any]:
    """What the summary, and the tables of GPUs that nobody holds, say of a view."""
    status = node_status(view, policy)
    free = [cells(gpu, view.read_at) for gpu in status.gpus if gpu.reservation is None]
    queue = [(one.owner, one.user, one.count, one.since) for one in status.queue]
    states = [(gpu.index, gpu.uuid, gpu.state, gpu.usage, gpu.intruders) for gpu in status.gpus]
    return [summary_to_dict(view.read_at, [(status, summarize(status))]), free, queue, states]


def both(ledger: RedisLedger, node: str, policy: UsagePolicy) -> tuple[list[Any], list[Any], bool]:
    """What the brief and the full view say at one time, and whether a head was used."""
    brief, (full,) = brief_view(ledger, node), ledger.read_nodes([node])
    full = replace(full, read_at=brief.read_at)
    return told(brief, policy), told(full, policy), brief.is_brief


def counted(ledger: RedisLedger, node: str, policy: UsagePolicy) -> tuple[list[Any], list[Any]]:
    """What the counts by the head say, if they say anything, and the summary of the full view."""
    (head,) = ledger.read_node_heads([node])
    (full,) = ledger.read_nodes([node])
    status = node_status(replace(full, read_at=head.read_at), policy)
    one = counted_node(head, policy)
    told = [(one, one.counts)] if one else []
    return (
        [one and one.counts, summary_to_dict(head.read_at, told)["nodes"]],
        [summarize(status), summary_to_dict(head.read_at, [(status, summarize(status))])["nodes"]],
    )


def filtered(ledger: RedisLedger, node: str, policy: UsagePolicy) -> tuple[list[Any], list[Any]]:
    """What filters show of the node by its head's counts, if it has some, and by judgement."""
    (head,) = ledger.read_node_heads([node])
    (full,) = ledger.read_nodes([node])
    one = counted_node(head, policy)
    status = node_status(replace(full, read_at=head.read_at), policy)
    by_counts, judged = [], []
    for states in [(), *((one,) for one in GpuState), (GpuState.AVAILABLE, GpuState.RESERVED)]:
        for partitions in ((), ("gpu",)):
            chosen = StatusFilter(frozenset(states), partitions=frozenset(partitions))
            by_counts.append(
                [found.counts for found in shown_by_counts([one] if one else [], chosen)]
            )
            judged.append([summarize(found) for found in chosen.apply([status])] if one else [])
    for chosen in FILTERS:
        found = ChosenCounts(policy, chosen).counted(head)
        if found is not None:
            shown = shown_by_counts([found], StatusFilter(chosen.states))
            has_some = found.counts.available or found.counts.reserved.count
            by_counts.append([one.counts for one in shown if has_some])
            judged.append([summarize(one) for one in chosen.apply([status])])
    return by_counts, judged


def passed_over_wrongly(ledger: RedisLedger, node: str, policy: UsagePolicy) -> list[str]:
    """The models of which a GPU is shown, though the counts say that the node has none."""
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    one = counted_by_counts(found, policy) if isinstance(found, NodeCounts) else None
    (view,) = ledger.read_nodes([node])
    status = node_status(replace(view, read_at=found.read_at), policy)
    filters = [StatusFilter(models=(text,)) for text in ("llama", "h100", "none such")]
    passed_over = [chosen for chosen in filters if one and not shown_by_counts([one], chosen)]
    return [str(chosen.models) for chosen in passed_over if chosen.apply([status])]


FILTERS = [
    StatusFilter(),
    *(StatusFilter(frozenset({one})) for one in GpuState),
    *(StatusFilter(models=(one,)) for one in ("llama", "h100", "none such")),
    StatusFilter(frozenset({GpuState.RESERVED}), models=("lla", "none such")),
]


def texts_by_heads(
    ledger: RedisLedger, node: str, policy: UsagePolicy
) -> tuple[list[object], list[object]]:
    """JSON and tables, of what any filter chooses, by the head and by judgement.

    Both lack what the head does not tell.
    """
    (head,) = ledger.read_node_heads([node])
    (full,) = ledger.read_nodes([node])
    status = node_status(replace(full, read_at=head.read_at), policy)
    told: list[object] = []
    judged: list[object] = []
    for chosen in FILTERS:
        shown = chosen.apply([status])
        text = PlainNodesJson(policy, chosen).text(head)
        if text is not None:
            told.append((text.json, text.partitions))
            texts = [json.dumps(node_to_dict(one), separators=(",", ":")) for one in shown]
            judged.append(("".join(texts), status.partitions))
        for wide in (False, True):
            table = PlainNodesTable(policy, chosen, wide=wide).table(head)
            if table is not None:
                renderer = StatusRenderer(wide=wide, filter=chosen, filter_text="x")
                tables = () if table.shows_nothing else (table,)
                told.append(_lines(renderer, tables=tables))
                judged.append(_lines(renderer, nodes=tuple(shown)))
    return told, judged


def _lines(renderer: StatusRenderer, nodes: Any = (), tables: Any = ()) -> list[str]:
    return renderer.lines(StatusAnswer(nodes, tables=tables), None) if nodes or tables else []


def free_tables(
    ledger: RedisLedger, node: str, policy: UsagePolicy
) -> tuple[list[str] | None, Any]:
    """The table of free GPUs by the counts, None where they list none, and by judgement."""
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    one = counted_by_counts(found, policy) if isinstance(found, NodeCounts) else None
    if one is None or not one.counts.available:
        return None, None
    assert isinstance(found, NodeCounts)
    (view,) = ledger.read_nodes([node])
    listed = free_node(one, found.content)
    if listed is None:
        assert any(waiter.gpus for waiter in view.queue)
        return None, None
    status = node_status(replace(view, read_at=found.read_at), policy)
    answers = [StatusAnswer((status,)), StatusAnswer((), tables=(listed,))]
    free = StatusRenderer(filter=StatusFilter(frozenset({GpuState.AVAILABLE})))
    judged, counted = (free.lines(answer, None) for answer in answers)
    return counted, judged


def by_counts_alone(ledger: RedisLedger, node: str, policy: UsagePolicy) -> list[Any] | None:
    """What the node's counts say, None where they say nothing."""
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    if isinstance(found, NodeHead):
        return None
    one = counted_by_counts(found, policy)
    return one and [one.counts, summary_to_dict(found.read_at, [(one, one.counts)])["nodes"]]


PIDS = st.integers(0, 4)
USERS = st.sampled_from(["ann", "bob", None])
PROCESSES = st.builds(
    GpuProcess,
    pid=PIDS,
    uid=st.sampled_from([None, 0, 1000, 1001]),
    user=USERS,
    name=st.sampled_from([None, "Xorg", 'py"\\ü', "\udcff"]),
    memory_mb=st.sampled_from([None, 0, 600, 5000]),
    model=st.sampled_from([None, "llama"]),
    job=st.sampled_from([None, "job:1", "job:2", "slurm:?"]),
    ancestors=st.lists(PIDS, max_size=2).map(tuple),
    is_mps_server=st.booleans(),
)
READINGS = st.builds(
    GpuReading,
    index=st.integers(0, 3),
    uuid=st.integers(0, 3).map(uuid),
    device_number=st.none(),
    name=st.sampled_from(["H100", "H100 MIG 1g.10gb"]),
    memory_used_mb=st.sampled_from([None, 0, 500, 9000, -1]),
    memory_total_mb=st.sampled_from([None, 8000]),
    processes=st.lists(PROCESSES, max_size=2).map(tuple),
    fault=st.sampled_from([None, None, "lost"]),
    mig_index=st.sampled_from([None, None, 1]),
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            ["job", "share", "manual", "run", "release", "quarantine", "wait", "leave", "extend"]
        ),
        st.integers(0, 3),
        st.integers(1, 2),
    ),
    max_size=5,
)


def change(ledger: RedisLedger, node: str, what: str, gpu: int, number: int) -> None:
    claims = {"job": job, "share": share, "manual": manual, "run": run}
    if what in claims:
        ledger.reserve_given(claims[what](number), [uuid(gpu)], observation(node))
    elif what == "release":
        ledger.release(node, job(number).owner, "done", [uuid(gpu)])
    elif what == "quarantine":
        ledger.quarantine(node, uuid(gpu), 'hot "', "root")
    elif what == "wait":
        gpus = (uuid(gpu), uuid(0)) if number == 2 else ()
        named = waiter(run(number), gpu)
        ledger.join_queue(node, replace(named, gpus=gpus, profile="1g.10gb" if gpu == 3 else ""))
    elif what == "leave":
        ledger.leave_queue(node, [run(number).owner], "left")
    else:
        ledger.extend(node, manual(number).owner, 60.0)


@pytest.mark.slow
@given(
    before=CHANGES,
    readings=st.lists(READINGS, max_size=4),
    after=CHANGES,
    threshold=st.sampled_from([0, 1024]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_summary_by_heads_is_that_of_the_full_views(
    before: Any, readings: list[GpuReading], after: Any, threshold: int
) -> None:
    ledger = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
    node = new_node_name()
    for one in before:
        change(ledger, node, *one)
    seen = observation(node)
    seen = replace(seen, scan=replace(seen.scan, gpus=tuple(readings)))
    ledger.publish_scan(replace(seen, partitions=("gpu", "all") if threshold else None))
    for one in after:
        change(ledger, node, *one)
    policy = UsagePolicy(threshold, frozenset({"Xorg"}))
    by_head, in_full, is_brief = both(ledger, node, policy)
    assert by_head == in_full
    assert is_brief
    by_counts, by_judgement = counted(ledger, node, policy)
    assert by_counts in ([None, []], by_judgement)
    by_head_texts, judged_texts = texts_by_heads(ledger, node, policy)
    assert by_head_texts == judged_texts
    by_counts_shown, shown = filtered(ledger, node, policy)
    assert by_counts_shown == shown
    table, judged_table = free_tables(ledger, node, policy)
    assert table == judged_table
    assert passed_over_wrongly(ledger, node, policy) == []
    # Whoever reads the counts reads no head: they say as much.
    assert by_counts_alone(ledger, node, policy) == (by_counts if by_counts[0] else None)


PLAIN_PROCESSES = st.builds(
    GpuProcess,
    pid=st.integers(1, 4),
    uid=st.sampled_from([1000, 1001, None]),
    user=USERS,
    name=st.sampled_from(["python3", "Xorg", 'py"\\ü']),
    memory_mb=st.sampled_from([600, 5000]),
    model=st.sampled_from([None, "llama"]),
    job=st.sampled_from([None, "job:1", "job:2", "job:?n"]),
)
PLAIN_READINGS = st.lists(
    st.tuples(st.sampled_from([0, 500, 9000]), st.lists(PLAIN_PROCESSES, max_size=1)), max_size=4
).map(
    lambda rows: [
        GpuReading(
            *(place, uuid(place), None, "H100", used, 80000, tuple(processes)),
            health=GpuHealth("none", ecc_uncorrected=place % 2) if place else None,
            utilization_percent=[None, 7][place % 2],
        )
        for place, (used, processes) in enumerate(rows)
    ]
)


@pytest.mark.slow
@given(before=CHANGES, readings=PLAIN_READINGS, after=CHANGES, threshold=st.sampled_from([0, 1024]))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_counts_by_heads_are_those_of_the_full_views(
    before: Any, readings: list[GpuReading], after: Any, threshold: int
) -> None:
    test_the_summary_by_heads_is_that_of_the_full_views.hypothesis.inner_test(  # type: ignore[attr-defined]
        before, readings, after, threshold
    )


def test_plain_nodes_are_counted(ledger: RedisLedger, node: str) -> None:
    """Otherwise the comparison would prove nothing, and large clusters would be slow."""
    seen = observation(node)
    process = GpuProcess(7, 1000, "ann", "python3", 5000, job="job:1")
    by_user = replace(process, job=None)
    readings = [
        GpuReading(place, uuid(place), None, "H100", 9000 if used else 45, 80000, used)
        for place, used in enumerate([(process,), (by_user,), (), ()])
    ]
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=tuple(readings))))
    ledger.reserve_given(job(1), [uuid(0), uuid(2)], seen)
    ledger.reserve_given(manual(2), [uuid(1)], seen)
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=tuple(readings))))
    by_counts, by_judgement = counted(ledger, node, UsagePolicy(1024))
    assert by_counts == by_judgement
    assert by_counts[0].available == 1
    by_head_texts, judged_texts = texts_by_heads(ledger, node, UsagePolicy(1024))
    assert by_head_texts == judged_texts
    assert len(by_head_texts) == 3 * len(FILTERS)
    ledger.release(node, job(1).owner, "done", [uuid(2)])
    ledger.join_queue(node, waiter(run(1)))
    table, judged_table = free_tables(ledger, node, UsagePolicy(1024))
    assert table == judged_table
    assert [line.split()[:2] for line in (table or [])[3:5]] == [
        ["2", "available"],
        ["3", "available"],
    ]
    assert "free for 0s" in (table or [])[3]
    assert "1 waiting" in (table or [])[5]
    assert counted(ledger, node, UsagePolicy(1024))[0][0].waiting == 1
    assert by_counts[0].reserved.count == 3


def test_what_was_scanned_before_a_grant_is_not_told_of_it(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    """Nor does a filter find the models that ran then."""
    seen = observation(node)
    process = GpuProcess(7, 1000, "ann", "python3", 5000, model="llama", job="job:1")
    free = GpuReading(0, uuid(0), None, "H100", 45, 80000)
    used = replace(free, memory_used_mb=5000, processes=(process,), utilization_percent=7)
    free_scan, used_scan = (replace(seen.scan, gpus=(one,)) for one in (free, used))
    ledger.reserve_given(job(1), [uuid(0)], replace(seen, scan=free_scan))
    wait_for_next_ms()
    for is_newer, shown in ((False, 5), (True, 3)):
        if is_newer:
            later = int(time.time() * 1000) + 3_600_000
            patch_record(store.raw_client, node_hashes.reservations, uuid(0), granted_ms=later)
        ledger.publish_scan(replace(seen, scan=used_scan))
        by_head_texts, judged_texts = texts_by_heads(ledger, node, UsagePolicy(1024))
        assert by_head_texts == judged_texts
        assert len(by_head_texts) == 3 * len(FILTERS)
        # Nor does it find those of ignored processes.
        for ignored in (frozenset[str](), frozenset({"python3"})):
            by_counts_shown, counts_shown = filtered(ledger, node, UsagePolicy(1024, ignored))
            assert by_counts_shown == counts_shown
        # Of all, held ones, H100, and only without a newer grant those with the model.
        assert len([one for one in judged_texts[::3] if one[0]]) == shown  # type: ignore[index]


def test_a_readers_threshold_and_clock_decide_about_counts(ledger: RedisLedger, node: str) -> None:
    seen = observation(node)
    readings = [GpuReading(place, uuid(place), None, "H100", 45, 80000) for place in range(4)]
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=tuple(readings))))
    ledger.reserve_given(manual(1), [uuid(0)], seen)
    ledger.join_queue(node, waiter(run(2)))
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=tuple(readings))))
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    assert isinstance(found, NodeCounts)
    content = found.content
    policy = UsagePolicy(45)
    assert counted_by_counts(found, policy)
    assert not counted_by_counts(found, UsagePolicy(44))
    for name in ("ends", "until"):
        later = content[name] / 1000
        assert counted_by_counts(replace(found, read_at=later - 0.01), policy) or name == "ends"
        assert not counted_by_counts(replace(found, read_at=later), policy)
    assert not counted_by_counts(replace(found, content={**content, "users": None}), policy)


@pytest.mark.parametrize("notes", [1, 2])
def test_a_note_leaves_a_nodes_counts(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys, notes: int
) -> None:
    ledger.publish_scan(observation(node))
    kept = json.loads(store.raw_client.get(node_hashes.counts) or "")
    entries = [
        NumberedEntry(number, JournalEntry("health", 1.0, "", facts={"n": number}))
        for number in range(notes)
    ]
    ledger.record_entries(node, "", entries)
    (last, _), *_ = store.raw_client.xrevrange(node_hashes.history, count=1)
    counts = json.loads(store.raw_client.get(node_hashes.counts) or "")
    assert counts == {**kept, "last": last}
    assert by_counts_alone(ledger, node, UsagePolicy(1024))


def test_counts_are_not_used_after_a_former_release(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    """It writes the history, the scan and the head, and leaves the counts."""
    policy = UsagePolicy(1024)
    ledger.publish_scan(observation(node, age_s=3600.0))
    assert by_counts_alone(ledger, node, policy)
    store.raw_client.xadd(node_hashes.history, {"event": "grant", "gpu": uuid(1)})
    assert not by_counts_alone(ledger, node, policy)
    # A note after that does not make them look new.
    ledger.record_entries(node, "", [NumberedEntry(1, JournalEntry("health", 1.0, ""))])
    assert by_counts_alone(ledger, node, policy)
    store.raw_client.hset(node_hashes.scan, "at", "1")
    assert not by_counts_alone(ledger, node, policy)
    ledger.quarantine(node, uuid(0), "hot", "root")
    assert not store.raw_client.get(node_hashes.counts)


def test_a_scan_that_a_former_release_published_is_not_counted(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    """It leaves the field that the counts are made of."""
    ledger.publish_scan(observation(node))
    at = store.raw_client.hget(node_hashes.scan, "at")
    later = str(int(at or "") + 1)
    store.raw_client.hset(node_hashes.scan, mapping={"at": later, "brief_at": later})
    ledger.reserve_given(job(1), [uuid(0)], observation(node, age_s=60.0))
    assert brief_view(ledger, node).is_brief
    assert not by_counts_alone(ledger, node, UsagePolicy(1024))


def test_damaged_counts_end_nobodys_reading(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.publish_scan(observation(node))
    counts = json.loads(store.raw_client.get(node_hashes.counts) or "")
    values = (7, "x", "9" * 40 + "-0", [[]], {})
    damaged = [json.dumps({**counts, part: value}) for part in counts for value in values]
    for text in [*GARBAGE, *damaged]:
        store.raw_client.set(node_hashes.counts, text)
        by_counts_alone(ledger, node, UsagePolicy(1024))


@pytest.mark.parametrize(
    "what", ["quarantine", "expired", "stranger", "unreserved", "fault", "missing"]
)
def test_what_is_not_plain_is_not_counted(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys, what: str
) -> None:
    seen = observation(node)
    stranger = (GpuProcess(7, 4000, "eve", "python3", 5000),) if what == "stranger" else ()
    readings = [
        GpuReading(0, uuid(0), None, "H100", 9000, 80000, stranger),
        GpuReading(1, uuid(1), None, "H100", 9000 if what == "unreserved" else 45, 80000),
        GpuReading(2, uuid(2), None, "H100", 45, 80000, (), "lost" if what == "fault" else None),
    ]
    claim = manual(1)
    ledger.reserve_given(claim, [uuid(3 if what == "missing" else 0)], seen)
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=tuple(readings))))
    if what == "quarantine":
        ledger.quarantine(node, uuid(1), "hot", "root")
    elif what == "expired":
        head = json.loads(store.raw_client.get(node_hashes.head) or "")
        head["records"][0]["expires_ms"] = 1000
        store.raw_client.set(node_hashes.head, json.dumps(head))
    assert counted(ledger, node, UsagePolicy(1024))[0] == [None, []]


GARBAGE = [
    "",
    "no json",
    "{",
    "[]",
    "null",
    '{"form":1}',
    '{"form":2}',
    '{"form":2,"texts":{"last":"","at":""},"brief":{},"records":[],"held":{},"most":null,'
    '"partitions":null,"released":{},"quarantined":{},"waiting":0}',
    "[" * 100_000,
]


def test_a_head_that_is_none_is_not_used(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), [uuid(0)], observation(node))
    for text in GARBAGE:
        store.raw_client.set(node_hashes.head, text)
        by_head, in_full, is_brief = both(ledger, node, UsagePolicy(1024))
        assert by_head == in_full
        assert not is_brief


PARTS = [
    "texts",
    "brief",
    "most",
    "partitions",
    "records",
    "held",
    "released",
    "quarantined",
    "waiting",
]


def test_a_damaged_head_ends_nobodys_reading(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), [uuid(0)], observation(node))
    head = json.loads(store.raw_client.get(node_hashes.head) or "")
    texts = [{**head["texts"], "last": last} for last in ("x", "1-x", "9" * 40 + "-0")]
    for value in texts:
        store.raw_client.set(node_hashes.head, json.dumps({**head, "texts": value}))
        assert not brief_view(ledger, node).is_brief
    for part in PARTS:
        for value in (None, 7, "x", [7], {"a": 7}, [[]], {"GPU-0": 99}):
            store.raw_client.set(node_hashes.head, json.dumps({**head, part: value}))
            told(brief_view(ledger, node), UsagePolicy(1024))
            counted(ledger, node, UsagePolicy(1024))


def test_a_record_that_is_no_json_leaves_no_head(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    places = [(node_hashes.reservations, uuid(0)), (node_hashes.quarantine, uuid(0))]
    for key, field in [*places, (node_hashes.scan, "partitions")]:
        ledger.publish_scan(observation(node))
        store.raw_client.hset(key, field, "no json")
        ledger.publish_scan(observation(node))
        by_head, in_full, is_brief = both(ledger, node, UsagePolicy(1024))
        assert by_head == in_full
        assert not is_brief
        store.raw_client.delete(key)


def test_what_a_former_release_changes_is_seen(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    """Its scripts write no head; each change is an entry of the history."""
    ledger.publish_scan(observation(node))
    assert brief_view(ledger, node).is_brief
    record = {"owner": "run:1", "type": "run", "user": "bob", "granted_ms": 1}
    store.raw_client.hset(node_hashes.reservations, uuid(1), json.dumps(record))
    store.raw_client.xadd(node_hashes.history, {"event": "grant", "gpu": uuid(1)})
    found = brief_view(ledger, node)
    assert not found.is_brief
    assert found.reservations[uuid(1)].claim.user == "bob"


def test_an_old_scan_that_a_former_release_has_replaced_is_not_shown(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.publish_scan(observation(node, age_s=3600.0))
    assert brief_view(ledger, node).is_brief
    (full,) = ledger.read_nodes([node])
    newer = str(int(full.read_at * 1000) - 1000)
    store.raw_client.hset(node_hashes.scan, "at", newer)
    found = brief_view(ledger, node)
    assert not found.is_brief
    assert found.scanned_at == int(newer) / 1000


def test_a_scan_of_a_former_release_makes_no_head_of_the_one_before(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.publish_scan(observation(node, age_s=3600.0))
    store.raw_client.hset(node_hashes.scan, "at", "1")
    ledger.quarantine(node, uuid(0), "hot", "root")
    assert not brief_view(ledger, node).is_brief


def test_a_reservation_that_has_expired_since_is_none(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(manual(1), [uuid(0)], observation(node))
    head = json.loads(store.raw_client.get(node_hashes.head) or "")
    head["records"][0]["expires_ms"] = 1000
    store.raw_client.set(node_hashes.head, json.dumps(head))
    patch_record(store.raw_client, node_hashes.reservations, uuid(0), expires_ms=1000)
    by_head, in_full, is_brief = both(ledger, node, UsagePolicy(1024))
    assert by_head == in_full
    assert is_brief


def test_the_processes_of_a_run_are_told_once_they_are_known(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    claim = replace(run(1), uid=None, processes=())
    ledger.reserve_given(claim, [uuid(0)], observe())
    ledger.renew(node, claim.owner, [ProcessId(77, 1)])
    (held,) = brief_view(ledger, node).reservations.values()
    assert held.claim.processes == (ProcessId(77, 1),)


def test_a_forgotten_node_has_no_head(
    store: Store, ledger: RedisLedger, node: str, node_hashes: NodeKeys
) -> None:
    ledger.publish_scan(observation(node))
    ledger.join_queue(node, waiter(run(1)))
    ledger.forget_node(node)
    assert not store.raw_client.exists(node_hashes.head, node_hashes.counts)
    assert not brief_view(ledger, node).is_known


def test_a_long_scan_has_no_head(ledger: RedisLedger, node: str) -> None:
    seen = observation(node)
    many = tuple(GpuProcess(one, 1, "ann", "python3" * 9, 1) for one in range(1, 200))
    gpus = tuple(replace(gpu, processes=many) for gpu in seen.scan.gpus)
    crowded: Observation = replace(seen, scan=replace(seen.scan, gpus=gpus))
    ledger.publish_scan(crowded)
    found = brief_view(ledger, node)
    assert not found.is_brief
    assert found.scan is not None
    assert len(found.scan.gpus[0].processes) == len(many)


def test_pages_have_all_nodes_in_order(store: Store, ledger: RedisLedger) -> None:
    names = sorted(new_node_name() for _ in range(3))
    for name in names:
        ledger.publish_scan(observation(name))
    store.raw_client.delete(node_keys(names[1]).head)
    pages = list(ledger.read_node_pages(names, brief_above=2))
    assert [view.node for page in pages for view in page] == names
    assert [view.is_brief for page in pages for view in page] == [True, False, True]
    (full,) = ledger.read_node_pages(names, brief_above=3)
    assert not any(view.is_brief for view in full)
