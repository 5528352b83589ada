"""Each user on each node in a report, and the text of its JSON, whatever was held and counted."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.report import json_text
from canhazgpu.report.export import report_rows, report_to_dict
from canhazgpu.report.held_time import HeldTime, OwnerUse, TimeSpan
from canhazgpu.report.json_text import report_json_text
from canhazgpu.report.node_rows import UsedOnNode
from canhazgpu.report.totals import Report, build_report

SPAN = TimeSpan(1_699_900_000.0, 1_700_000_000.0)
USERS = st.sampled_from(
    ["ann", "bob", "", 'a"b\\', "\x1b[2J\n=\ud800", "李明", "None", "%s", "nan"]
)
TYPES = st.sampled_from(["slurm", "run", "manual", "a\tb", "None"])
MS = st.one_of(st.integers(0, 10**12), st.sampled_from([0, 3_600_000]), st.floats(-1e6, 1e12))
COUNTS = st.integers(-1, 1000)
SHARES = st.floats(0, 1)


@st.composite
def held_times(draw: st.DrawFn) -> HeldTime:
    held_s = draw(st.floats(0, 1e6))
    use = draw(st.none() | st.builds(OwnerUse, SHARES, st.none() | SHARES))
    # Their nodes have counted nothing.
    node, owner = draw(st.sampled_from(["h1", "h2"])), draw(st.sampled_from("xyz"))
    return HeldTime(node, owner, draw(TYPES), draw(USERS), held_s, held_s * draw(SHARES), use)


KEYS = st.builds("{}\t{}".format, USERS, TYPES)
ROWS = st.builds(lambda key, held, idle, n: (key, held, idle, n, n), KEYS, MS, MS, COUNTS)
USES = st.builds(
    lambda key, known, busy, peak: (key, known, busy * known, 0, known / 2, peak * known / 2),
    *(KEYS, st.integers(0, 10**12), SHARES, SHARES),
)


@st.composite
def counted_nodes(draw: st.DrawFn, name: str) -> UsedOnNode:
    rows, uses = draw(st.lists(ROWS, max_size=5)), draw(st.lists(USES, max_size=2))
    types: dict[str, int] = {}
    for row in rows:
        type_ = row[0].rpartition("\t")[2]
        types[type_] = types.get(type_, 0) + row[3]
    return UsedOnNode(
        name, rows, sum(one[1] for one in rows), sum(one[2] for one in rows), types, uses
    )


REPORTS = st.builds(
    lambda holds, nodes, users, wasted: build_report(holds, SPAN, users, nodes, wasted=wasted),
    st.lists(held_times(), max_size=5),
    st.tuples(*map(counted_nodes, ["n2", "n1", "n%s"])),
    st.sampled_from([(), ("ann", "bob")]),
    st.booleans(),
)


@given(REPORTS, st.integers(1, 4))
def test_the_text_is_that_of_the_standard_library(report: Report, rows_per_piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "ROWS_PER_PIECE", rows_per_piece)
        text = "".join(report_json_text(report))
    assert text == json.dumps(report_to_dict(report), indent=2)


def test_numbers_that_are_none_are_spelled_as_the_standard_library_does() -> None:
    rows = [(f"{user}\trun", held, 0.0, 1, 1) for user, held in (("ann", 1e308), ("bob", -1e308))]
    tiny = build_report([], SPAN, nodes=[UsedOnNode("n1", rows, 1e-300, 0.0, {"run": 2})])
    endless = build_report([HeldTime("n1", "x", "run", "ann", math.nan)], SPAN)
    for report, words in ((tiny, ("Infinity", "-Infinity")), (endless, ("NaN",))):
        text = "".join(report_json_text(report))
        assert text == json.dumps(report_to_dict(report), indent=2)
        assert all(f'"share": {word},' in text for word in words)


def used_by(report: Report, user: str, node: str) -> dict[str, Any]:
    """What the user had on the node, by a report on nothing else."""
    holds = [one for one in report._holds if (one.user, one.node) == (user, node)]
    nodes = [one for one in report._nodes if one.node == node]
    (found,) = report_to_dict(build_report(holds, SPAN, [user], nodes))["users"]
    del found["share"]
    return {"node": node, **found}


@given(REPORTS)
def test_each_user_on_each_node_has_what_a_report_on_both_tells(report: Report) -> None:
    found = report_to_dict(report)["users_on_nodes"]
    for one in found:
        expected = used_by(report, one["user"], one["node"])
        assert one["reservations_by_type"] == expected.pop("reservations_by_type")
        for key, value in expected.items():
            assert one[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-3))
    places = {(one.user, one.node) for one in report._holds}
    for node in report._nodes:
        keys = [row[0] for row in node.rows] + [use[0] for use in node.uses]
        places |= {(key.rpartition("\t")[0], node.node) for key in keys}
    assert sorted((one["user"], one["node"]) for one in found) == sorted(places)
    assert len([*report_rows(report)]) == 1 + len(places)


@given(REPORTS)
def test_the_most_come_first_and_names_decide_between_equals(report: Report) -> None:
    found = [
        (-one.wasted_hours if report.wasted else 0.0, -one.gpu_hours, names)
        for names, one in report.by_user_and_node()
    ]
    assert found == sorted(found)
