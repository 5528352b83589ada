"""Whatever another program wrote into a node's history, it is shown, and hides nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fakes.memory_ledger import view
from hypothesis import example, given, settings
from hypothesis import strategies as st

from canhazgpu.cli.terminal.explanation import answer_lines, answer_to_dict
from canhazgpu.cli.terminal.text import printable
from canhazgpu.ledger.store.history.entries import KINDS as LETTERS
from canhazgpu.ledger.store.history.entries import ShortNames, event_from_fields, events_from_entry
from canhazgpu.ledger.values import Event
from canhazgpu.people.revocations import revocation_text, revocations_from
from canhazgpu.report.held_time import TimeSpan, held_times
from canhazgpu.report.totals import build_report
from canhazgpu.service.history import ExplainAnswer, JobOnNode
from canhazgpu.status.event_format import MAX_LINE, NodeEvent, event_line, event_to_dict
from canhazgpu.status.history.owner_events import events_of_owner
from canhazgpu.status.history.owner_history import history_lines

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.integers(10**300, 10**320),
    st.sampled_from([1e18, -1e18, 10**400, -(10**400), 2**63, 0]),
)
TEXTS = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=())),
    st.sampled_from(["", "\ud800", "\x1b[31m", "job:c:1:2"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def records(**likely: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """Texts of objects in whose fields there is the likely value, any other, or none."""
    known = {name: st.one_of(one, VALUES) for name, one in likely.items()}
    return st.fixed_dictionaries({}, optional=known).map(json.dumps)


SHARES = st.fixed_dictionaries({"kind": TEXTS, "amount": NUMBERS, "total": NUMBERS})
CLAIMS = records(
    owner=TEXTS,
    type=TEXTS,
    user=TEXTS,
    job_id=TEXTS,
    uid=st.just(1000),
    granted_ms=NUMBERS,
    idle_ms=NUMBERS,
    share=SHARES,
)
SEEN = st.lists(st.dictionaries(st.sampled_from(["gpu", "place", "state", "who"]), VALUES))
NAMES = st.sampled_from(["what", "why", "cause", "requeue", "max_requeues", "requeues"])
ACTIONS = st.lists(st.dictionaries(NAMES, VALUES))
JOBS = st.lists(st.fixed_dictionaries({"job_id": st.just("1") | VALUES}, optional={"what": VALUES}))
FACTS = records(
    outcome=TEXTS,
    took_s=NUMBERS,
    gpus=st.lists(TEXTS),
    seen=SEEN,
    without_store=TEXTS,
    actions=ACTIONS,
    jobs=JOBS,
    attempt=TEXTS,
)
# The client gives text without surrogates.
FIELD_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KINDS = ("grant", "release", "prolog", "epilog", "health", "quarantine", "unquarantine", "odd")
ENTRIES = st.fixed_dictionaries(
    {"event": st.sampled_from(KINDS) | FIELD_TEXTS.filter(bool)},
    optional={
        "at": st.one_of(NUMBERS.map(str), FIELD_TEXTS),
        "gpu": FIELD_TEXTS,
        "reason": FIELD_TEXTS,
        "by": FIELD_TEXTS,
        "claim": st.one_of(CLAIMS, FIELD_TEXTS),
        "facts": st.one_of(FACTS, FIELD_TEXTS),
    },
)
IDS = st.integers(0, 2**64 - 1).map(lambda milliseconds: f"{milliseconds}-0")

NESTED = "[" * 900 + "]" * 900
CLAIM = '{"owner":"job:c:1:0","type":"slurm","user":"u","job_id":"1","granted_ms":1,"uid":1000'


@settings(deadline=None)
@given(IDS, ENTRIES)
@example("1-0", {"event": "prolog", "facts": '{"actions": [{"what": ["x"], "requeue": {}}, 5]}'})
@example("1-0", {"event": "health", "facts": '{"jobs": [{"job_id": "1", "what": 1e400}]}'})
@example("1-0", {"event": "grant", "claim": CLAIM.replace('"u"', '"%s"' % ("u " * 10**5)) + "}"})
@example("1-0", {"event": "a kind of a newer release", "reason": "x" * 10**6})
@example("1-0", {"event": "grant", "claim": CLAIM.replace("c:1:0", "c:1:" + "9" * 5000) + "}"})
@example("1-0", {"event": "grant", "claim": CLAIM.replace("c:1:0", "c:1:\u0663") + "}"})
@example("1-0", {"event": "grant", "at": "1e30"})
@example(f"{2**64 - 1}-0", {"event": "grant"})
@example("1-0", {"event": "prolog", "facts": '{"took_s": 1%s}' % ("0" * 400)})
@example("1-0", {"event": "prolog", "facts": '{"took_s": NaN, "seen": [{"used_mb": 1e999}]}'})
@example("1-0", {"event": "prolog", "facts": f'{{"seen": {NESTED}}}'})
@example(
    "1-0", {"event": "prolog", "facts": '{"gpus": ["\\ud800"], "without_store": {"\\udc00": 1}}'}
)
@example(
    "1-0",
    {
        "event": "release",
        "at": "1e300",
        "by": "root",
        "claim": CLAIM + ',"share":{"kind":"shard","amount":1%s,"total":1}}' % ("0" * 400),
    },
)
def test_any_entry_of_the_last_release_is_shown(entry_id: str, fields: dict[str, str]) -> None:
    (event,) = events_from_entry(entry_id, fields)
    assert_is_shown(event, fields["event"])


def assert_is_shown(event: Event, kind: str) -> None:
    later = replace(event, id="2-0", at=event.at + 1)
    shown_events = tuple(NodeEvent("n1", one) for one in (event, later))
    assert list(history_lines("n1", [event, later]))
    lines = [event_line(shown_events[0])]
    for answer in (
        ExplainAnswer("1", JobOnNode("n1", None, ()), events=shown_events),
        ExplainAnswer("", JobOnNode("n1", None, ()), "run:a", events=shown_events),
    ):
        assert event in [*events_of_owner([event], answer.job_id, answer.owner), event]
        lines += answer_lines(answer)
        json.dumps(answer_to_dict(answer), allow_nan=False)
    assert all(printable(line).encode() for line in lines)
    assert all(len(line) <= MAX_LINE + len(" ...") for line in lines)
    shown = json.dumps(event_to_dict(NodeEvent("n1", event)), indent=2, allow_nan=False)
    assert json.loads(shown)["kind"] == kind
    span = TimeSpan(0.0, 2e9)
    build_report(held_times(view(), [event], span), span)
    for one in revocations_from(1000, "n1", [event]):
        revocation_text(one, {}, 2e9)


WORDS = st.sampled_from(["0", "1", "7@x", "GPU-a", "", "1@", "@"]) | FIELD_TEXTS
COMPACT_ENTRIES = st.fixed_dictionaries(
    {"2": st.sampled_from(sorted(LETTERS)) | FIELD_TEXTS.filter(bool)},
    optional={
        "g": st.lists(WORDS, max_size=3).map(",".join),
        "o": st.sampled_from(["7", "7:1", "=7", "job:c:1:0", "run:a", "unreadable", "job::::", ":"])
        | FIELD_TEXTS,
        "u": st.sampled_from(["0", "1", "2", "1000 bob"]) | FIELD_TEXTS,
        "a": NUMBERS.map(str) | FIELD_TEXTS,
        "d": NUMBERS.map(str) | FIELD_TEXTS,
        "r": FIELD_TEXTS,
        "m": FIELD_TEXTS
        | records(
            by=TEXTS,
            idle=NUMBERS,
            share=st.tuples(TEXTS, NUMBERS, NUMBERS),
            type=TEXTS,
            job=TEXTS,
            facts=FACTS.map(json.loads),
        ),
    },
)
SHORT_NAMES = ShortNames({"0": ("GPU-a", "3"), "1": ("GPU-b", "")}, {"0": "7 ann", "1": " "}, "c")


@settings(deadline=None)
@given(IDS, COMPACT_ENTRIES)
@example("1-0", {"2": "r", "o": "job:c:" + "9" * 5000 + ":0", "d": "1e999", "g": "0," * 5000})
@example("0-0", {"2": "g", "a": "8.98846567431158e+307", "d": "8.988465674311579e+307"})
def test_any_entry_is_shown(entry_id: str, fields: dict[str, str]) -> None:
    events = events_from_entry(entry_id, fields, SHORT_NAMES)
    assert events
    for event in events[:3]:
        assert_is_shown(event, LETTERS.get(fields["2"], fields["2"]))


@pytest.mark.parametrize("at", [1e300, -1e300, 1e20])
def test_a_number_that_is_no_date_is_said_to_be_none(at: float) -> None:
    event = event_from_fields("1-0", {"event": "grant", "at": str(at), "gpu": "GPU-a"})
    assert event is not None
    assert event_line(NodeEvent("n1", event)) == "at an unknown time n1 grant GPU-a"


def test_what_a_hook_writes_is_kept_as_it_is() -> None:
    facts = {"outcome": "granted", "took_s": 0.5, "seen": [{"gpu": "GPU-a", "used_mb": 4}]}
    event = event_from_fields("1-0", {"event": "prolog", "facts": json.dumps(facts)})
    assert event is not None
    assert event.facts == facts
