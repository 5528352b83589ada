"""Answers that another process reads: nothing is lost, and nothing in them is taken for more."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu import errors
from canhazgpu.errors import CanhazgpuError, StoreError, UnknownNameError
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import GpuState, Usage
from canhazgpu.ledger.values import Claim, Event, Reservation
from canhazgpu.node.process_id import ProcessId
from canhazgpu.report.held_time import TimeSpan
from canhazgpu.report.node_rows import UsedOnNode
from canhazgpu.report.totals import build_report
from canhazgpu.service.answer_json import CLASSES, ENUMS, decoded, encoded
from canhazgpu.service.history import ExplainAnswer, JobOnNode, ReportAnswer
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.event_format import NodeEvent
from canhazgpu.status.node_status import GpuStatus, NodeStatus

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=12,
)
NOT_SENT = {"CountedNode", "FreeNode", "NodeText", "NodeView", "Revocation", "User"}
"""Parts of answers that no page asks for."""


def claim(user: str = "anna") -> Claim:
    return Claim("job:c1:41:0", "slurm", user, 1001, "41", processes=(ProcessId(4, 5),))


def status(user: str) -> StatusAnswer:
    process = GpuProcess(7, 1001, user, f"python {user}", 300, "llama", ancestors=(1, 2))
    reading = GpuReading(0, "GPU-1", 0, "NVIDIA H100", 100, None, (process,))
    held = Reservation("GPU-1", claim(user), 5.0, co_holders=(Reservation("GPU-1", claim(), 6.0),))
    gpu = GpuStatus(0, "GPU-1", GpuState.RESERVED, Usage.IN_USE, reading, held)
    return StatusAnswer(
        (NodeStatus("n1", 2.0, 1.0, False, None, (gpu,), partitions=(user,)),),
        store_fault=StoreError("away", next_step="wait"),
    )


@given(st.text())
def test_a_status_is_the_same_whatever_names_it_has(name: str) -> None:
    answer = status(name)
    found = decoded(encoded(answer))
    assert found.nodes == answer.nodes
    assert str(found.store_fault) == "away"
    assert found.store_fault.next_step == "wait"


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_facts_of_an_event_are_the_same_json(facts: dict[str, object]) -> None:
    event = NodeEvent("n1", Event("1-0", 1.0, "epilog", claim=claim(), facts=facts))
    answer = ExplainAnswer("41", JobOnNode("n1", None, None, "only root"), events=(event,))
    line = encoded(answer)
    assert "\n" not in line
    assert line.isascii()
    assert decoded(line) == answer
    assert json.dumps(decoded(line).events[0].event.facts) == json.dumps(facts)


def test_a_report_is_the_same_and_adds_up_the_same() -> None:
    rows = [("anna\tslurm", 3600_000.0, 1800_000.0, 2, 2), ("\tmanual", 1.0, 0.0, 1, 1)]
    used = UsedOnNode("n1", rows, 3600_001.0, 1800_000.0, {"slurm": 2, "manual": 1})
    answer = ReportAnswer(build_report([], TimeSpan(0.0, 9.0), nodes=[used]), 30)
    found = decoded(encoded(answer))
    assert found.report.by_user == answer.report.by_user
    assert list(found.report.by_user) == list(answer.report.by_user)
    assert [*found.report.by_user_and_node()] == [*answer.report.by_user_and_node()]


ERRORS = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, CanhazgpuError) and one.__name__ != "CommandError"
]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_the_same_error(kind: type[CanhazgpuError]) -> None:
    found = decoded(encoded(kind("why\nand more", next_step="do that")))
    assert type(found) is kind
    assert str(found) == "why\nand more"
    assert errors.error_text(found) == errors.error_text(kind("why and more", next_step="do that"))


def test_an_unknown_name_comes_with_what_there_is() -> None:
    found = decoded(encoded(UnknownNameError("no node 'x'", kind="node", known={"n2", "n1"})))
    assert (found.kind, found.known, found.next_step) == ("node", ("n1", "n2"), None)


def test_of_very_many_names_some_are_told() -> None:
    assert len(UnknownNameError("x", known=[str(one) for one in range(10_000)]).known) == 20


def test_a_later_release_may_tell_more() -> None:
    line = encoded(TimeSpan(1.0, 2.0)).replace('"until"', '"zone":"UTC","until"')
    assert '"zone"' in line
    assert decoded(line) == TimeSpan(1.0, 2.0)


@pytest.mark.parametrize(
    "line",
    ["", "{", "{}", '{"":"Popen"}', '{"":["list"]}', '{"":"TimeSpan"}', '{"":"error"}'],
)
def test_what_is_no_answer_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):
        decoded(line)


def is_value(one: object) -> bool:
    return isinstance(one, type) and (dataclasses.is_dataclass(one) or issubclass(one, Enum))


def test_every_part_of_an_answer_is_known() -> None:
    """A class that a field of an answer may have, and that is not listed, would be an error."""
    names = set()
    for package in ("allocation", "gpu", "ledger", "node", "people", "report", "service", "status"):
        for directory in importlib.import_module(f"canhazgpu.{package}").__path__:
            for path in Path(directory).rglob("*.py"):
                below = path.relative_to(directory).with_suffix("").parts
                module = importlib.import_module(".".join(("canhazgpu", package, *below)))
                names |= {name for name, one in vars(module).items() if is_value(one)}
    assert names >= {"GpuStatus", "Reservation", "GpuState"}
    known = {one.__name__ for one in (*CLASSES, *ENUMS)} | NOT_SENT
    for one in CLASSES:
        for field in dataclasses.fields(one):
            mentioned = set(re.findall(r"[A-Z]\w+", str(field.type))) & names
            assert mentioned <= known, f"{one.__name__}.{field.name}"
