"""What a job made of its GPUs, in the history."""

from __future__ import annotations

import time
from typing import Any

import pytest

from canhazgpu.ledger.usage import DAY_S
from canhazgpu.report.held_time import TimeSpan
from canhazgpu.report.node_rows import used_on_node

pytestmark = pytest.mark.slow

NODE = "n1"


def note(node: Any, kind: str) -> dict[str, Any]:
    found = [one for one in node.ledger.history(NODE, 0.0) if one.kind == kind]
    return dict(found[-1].facts)


def end_job_with_use(node: Any) -> tuple[str, str]:
    """Run a job of two GPUs; return the indices of the one that it used, and of the other."""
    node.configure(validation={"accounting": "auto"})
    for gpu in node.state.node(NODE).gpus:
        gpu.set("accounting_mode", 1)
    node.run("prolog")
    held = node.owners_by_gpu()
    used, unused = (gpu for gpu in node.state.node(NODE).gpus if gpu.uuid in held)
    now = time.time()
    used.account(77, busy_percent=100, peak_mb=71_000, started_at=now, ran_s=3600.0)
    node.run("epilog")
    return str(used.index), str(unused.index)


def test_the_epilogs_note_says_what_was_used(node: Any) -> None:
    used, unused = end_job_with_use(node)
    use = note(node, "epilog")["use"]
    rows = {row[0]: row[1:] for row in use["driver"]}
    assert rows[used][:2] == [71_000, 81559]
    assert rows[used][2] > 0
    assert rows[unused] == [None, 81559, None]
    assert "scans" not in use
    assert 0 <= use["held_ms"] < 600_000
    assert use["idle_ms"] >= 0


def test_a_plain_report_has_it_from_the_nodes_counts(node: Any) -> None:
    end_job_with_use(node)
    usage = node.ledger.read_usage(1, [NODE])
    (counted,) = usage.counted
    found = used_on_node(counted, TimeSpan(usage.first_day * DAY_S, usage.read_at))
    assert found is not None
    ((key, known, busy, idle, memory_known, memory),) = found.uses
    assert key.endswith("\tslurm")
    assert found.held_ms == pytest.approx(known, abs=5000)
    assert busy == pytest.approx(known / 2, abs=2)
    assert memory == pytest.approx(memory_known / 2 * 71_000 / 81559, abs=2)
    assert 0 <= idle <= known


def test_where_the_driver_has_not_kept_all_the_scans_tell(node: Any) -> None:
    node.configure(validation={"accounting": "auto"})
    node.run("prolog")
    node.run("epilog")
    use = note(node, "epilog")["use"]
    assert [row[1] for row in use["scans"]] == [0, 0]
    assert "driver" not in use


def test_without_the_key_nothing_is_read_or_told(node: Any) -> None:
    for gpu in node.state.node(NODE).gpus:
        gpu.set("accounting_mode", 1)
    node.run("prolog")
    node.run("epilog")
    assert "use" not in note(node, "epilog")


def test_the_health_check_switches_accounting_on(node: Any) -> None:
    node.slurm(squeue="")
    node.configure(validation={"accounting": "auto"})
    assert node.python("-m", "canhazgpu.epilog.health_check").returncode == 0
    modes = [gpu.text("accounting_mode", 0) for gpu in node.state.node(NODE).gpus]
    assert modes == ["1"] * 4
