"""What hooks tell of themselves, as `canhazgpu explain` and `canhazgpu events` show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hook_jobs import free_observation, job_variables, node_events

from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.values import Claim

pytestmark = pytest.mark.slow

MAIN = "from canhazgpu.cli.main import main; main()"


def command(node: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    return node.python("-c", MAIN, *arguments, environ=environ)


def explained(node: Any, *arguments: str) -> dict[str, Any]:
    done = command(node, "explain", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_job_that_went_well(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    node.run("epilog", **job_variables(1))
    told = explained(node, "1")
    assert [one["kind"] for one in told["events"]] == [
        *["grant"] * 2,
        "prolog",
        *["release"] * 2,
        "epilog",
    ]
    prolog = told["events"][2]
    assert prolog["node"] == "n1" and prolog["user"] == "ann" and prolog["reason"] is None
    assert prolog["facts"]["outcome"] == "granted"
    assert len(prolog["facts"]["gpus"]) == 2
    assert [gpu["state"] for gpu in prolog["facts"]["seen"]] == ["free", "free"]
    assert 0 < prolog["facts"]["took_s"] < 60
    assert told["events"][-1]["facts"]["outcome"] == "released"
    assert told["here"] == {"node": "n1", "record": None, "pending": [], "pending_fault": None}

    text = command(node, "explain", "1").stdout
    assert text.startswith("job 1 of ann\nnode n1\n")
    assert "prolog of attempt 0: granted after " in text
    assert "saw" not in text
    # It all went as it should: slurmd's log is not for that.
    assert node.log() == ""


def test_a_job_that_met_somebody(node: Any) -> None:
    for fake in node.state.node("n1").gpus:
        fake.override_used(7000)
    node.slurm()
    node.run("prolog", **job_variables(1))
    (told,) = node_events(node, "prolog")
    assert told.facts["outcome"] == "refused"
    assert "WITHOUT RESERVATION" in told.reason
    assert {gpu["state"] for gpu in told.facts["seen"]} == {"in use"}
    text = command(node, "explain", "1").stdout
    assert "prolog of attempt 0: refused" in text
    assert ": in use, 7000MB used" in text
    assert "on record on n1: job:c1:1:0, no GPUs, not over" in text


def test_the_end_of_a_requeued_attempt_is_told_as_its(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    # As slurmd says it once the job waits for its next attempt.
    node.run("epilog", **job_variables(1, attempt=1))
    text = command(node, "explain", "1").stdout
    assert "epilog of attempt 0: released" in text and "of attempt 1" not in text


def test_a_job_of_a_node_without_its_store(node: Any) -> None:
    node.server.kill()
    node.run("prolog", **job_variables(1))
    done = command(node, "explain", "1", "--json")
    assert done.returncode == 4 and "cannot reach the store" in done.stderr
    told = json.loads(done.stdout)
    assert told["events"] == []
    assert told["here"]["record"]["owner"] == "job:c1:1:0"
    assert [one["kind"] for one in told["here"]["pending"]] == ["grant", "prolog"]
    text = command(node, "explain", "1").stdout
    assert "the store has not heard yet from n1: grant, prolog" in text

    node.server.start()
    node.forget_outage()
    node.run("epilog", **job_variables(1))
    told = explained(node, "1")
    (prolog,) = [one for one in told["events"] if one["kind"] == "prolog"]
    assert "cannot reach the store" in prolog["facts"]["without_store"]
    # Each at its own time, however late it was told.
    assert [one["at"] for one in told["events"]] == sorted(one["at"] for one in told["events"])
    assert "without the store: cannot reach" in command(node, "explain", "1").stdout


def test_a_job_that_nobody_knows(node: Any) -> None:
    done = command(node, "explain", "4711")
    assert done.returncode == 2
    assert "nothing is known of job 4711 in the last 7d" in done.stderr
    assert explained(node, "4711")["events"] == []
    for wrong in ("", "1;2", "\u0663", "12_", "_3", "12_3+1", "12_[1-3]", "--help_3"):
        assert "is not a job's number" in command(node, "explain", "--", wrong).stderr


def test_a_job_by_another_of_its_names(node: Any) -> None:
    node.slurm(squeue="echo '1 4711_3 COMPLETED'")
    node.run("prolog", **job_variables(1))
    assert command(node, "explain", "4711_3").stdout.startswith("job 1 of ann\n")
    assert explained(node, "4711_3")["job_id"] == "1"
    unknown = command(node, "explain", "4711+1")
    assert unknown.returncode == 2
    assert "'sacct -X -j 4711+1 -o JobIDRaw' shows it" in unknown.stderr


def test_a_hostile_name_reaches_no_terminal(node: Any) -> None:
    node.run("prolog", **job_variables(1), SLURM_JOB_USER="\x1b]0;owned\x07eve\x1b[31m")
    for arguments in (("explain", "1"), ("events",)):
        assert "\x1b" not in command(node, *arguments).stdout
        assert "eve" in command(node, *arguments).stdout


def test_events_of_a_time_and_a_node(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    shown = command(node, "events").stdout.splitlines()
    assert [line.split()[3] for line in shown] == ["grant", "grant", "prolog"]
    assert all(" n1 " in line and "ann (job 1)" in line for line in shown)
    lines = command(node, "events", "--json", "--node", "n1").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["grant", "grant", "prolog"]
    assert "knows no node 'n9'" in command(node, "events", "--node", "n9").stderr
    time.sleep(1.1)
    assert command(node, "events", "--since", "1s").stdout == ""
    assert "is not a duration" in command(node, "events", "--since", "ages").stderr


ODD_CLAIM = json.dumps({"owner": "job:c1:1:0", "type": "slurm", "user": "ann", "job_id": "1"})
NESTED = "[" * 900 + "]" * 900
ODD_ENTRIES = [
    {"event": "grant", "gpu": "GPU-a", "claim": ODD_CLAIM, "at": "1e30"},
    {"event": "release", "claim": ODD_CLAIM[:-1] + ', "granted_ms": -1e300}', "at": "1e300"},
    {"event": "prolog", "claim": ODD_CLAIM, "facts": '{"took_s": 1%s}' % ("0" * 400)},
    {"event": "prolog", "claim": ODD_CLAIM, "facts": '{"took_s": NaN, "seen": [1e999]}'},
    {"event": "prolog", "claim": ODD_CLAIM, "facts": f'{{"seen": {NESTED}}}'},
    {
        "event": "epilog",
        "claim": ODD_CLAIM,
        "reason": b"\xff\xfe",
        "facts": '{"seen": {"\\ud800": 1}}',
    },
]


def test_what_another_program_wrote_hides_nothing(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    with node.server.client() as client:
        for fields in ODD_ENTRIES:
            client.xadd(node_keys("n1").history, fields)

    known = ["grant", "prolog"] + [fields["event"] for fields in ODD_ENTRIES]
    for arguments in (("events",), ("explain", "1")):
        shown = command(node, *arguments)
        assert shown.returncode == 0, shown.stderr
        assert "at an unknown time" in shown.stdout
        assert all(shown.stdout.count(kind) >= known.count(kind) for kind in known)
    lines = command(node, "events", "--json").stdout.splitlines()
    assert sorted(json.loads(line, parse_constant=refuse)["kind"] for line in lines) == sorted(
        known
    )
    assert len(explained(node, "1")["events"]) == len(known)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_followed_events_come_as_they_happen_and_each_once(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    with node.server.client() as client:
        # Another program's entry, of the year 5138: what follows is told all the same.
        client.xadd(node_keys("n1").history, {"event": "odd"}, id="99999999999999-0")
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    following = subprocess.Popen(
        [sys.executable, "-I", "-u", "-c", MAIN, "events", "--follow", "--json"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    stop = threading.Timer(60, following.kill)
    stop.start()
    try:
        first = [json.loads(following.stdout.readline()) for _ in range(3)]
        assert [one["kind"] for one in first] == ["grant", "prolog", "odd"]
        node.run("epilog", **job_variables(1, "0"))
        manual = Claim("manual:aa", "manual", "eve", 1002, duration_s=60)
        gpu = node.all_uuids()[0]
        node.ledger.reserve_given(manual, [gpu], free_observation(gpu))
        more = [json.loads(following.stdout.readline()) for _ in range(3)]
        assert [one["kind"] for one in more] == ["release", "epilog", "grant"]
        assert more[-1]["user"] == "eve"
    finally:
        stop.cancel()
        following.kill()
        following.wait()
        following.stdout.close()


@pytest.mark.parametrize("kind", ["prolog", "epilog"])
def test_the_system_log_gets_one_line_for_each_decision(node: Any, kind: str) -> None:
    change = (
        "import sys\n"
        "from canhazgpu.schedulers.slurm.hook import log\n"
        "log.write_syslog = lambda line, priority: print(priority, line)\n"
        f"from canhazgpu.{kind}.main import main\n"
        "main()\n"
    )
    node.run("prolog", **job_variables(1))
    done = node.python("-c", change, environ=node.environ(**job_variables(1)))
    (line,) = done.stdout.splitlines()
    outcome = {"prolog": "granted", "epilog": "released"}[kind]
    assert line.startswith(
        f"30 event={kind} node=n1 job=1 owner=job:c1:1:0 user=ann outcome={outcome}"
    )
    assert " gpus=GPU-" in line and " took_s=" in line
    assert os.linesep not in line
