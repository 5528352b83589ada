"""The file of a node's metrics, as the health check and the agent write it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts.hook_node import NODE, HookNode
from hosts.running_agent import RunningAgent, run_hook
from polling import poll_until
from process_details import open_files
from prometheus_client.parser import text_string_to_metric_families

from canhazgpu.agent.metrics_writer import count_children
from canhazgpu.in_process.node_metrics import write_at_check
from canhazgpu.service.jobs import CheckRequest

pytestmark = pytest.mark.slow


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to the system's log."""
    lines: list[str] = []
    monkeypatch.setattr("canhazgpu.in_process.node_metrics.write_syslog", lines.append)
    return lines


CheckMetrics = Callable[[bytes], None]
CHECK = ("-m", "canhazgpu.epilog.health_check", "--exit-code")


def samples(path: Path) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of the file by name, without the prefix."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for one in family.samples:
            name = one.name.removeprefix("canhazgpu_")
            found.setdefault(name, []).append((one.labels, one.value))
    return found


def value(path: Path, name: str, **labels: str) -> float | None:
    """The value of the one sample with these labels, None for none."""
    for known, number in samples(path).get(name, []):
        if labels.items() <= known.items():
            return number
    return None


def check(node: HookNode) -> None:
    done = node.python(*CHECK)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_health_check_writes_what_node_exporter_may_read(
    node: HookNode, textfile: Path, check_metrics: CheckMetrics
) -> None:
    node.run("prolog")
    check(node)
    assert stat.S_IMODE(textfile.stat().st_mode) == 0o644
    assert [one.name for one in textfile.parent.iterdir()] == [textfile.name]
    check_metrics(textfile.read_bytes())
    assert value(textfile, "gpus", node=NODE, state="reserved") == 2
    held = [one for one, _ in samples(textfile)["gpu_info"] if one["job"] == "12"]
    assert {(one["user"], one["type"]) for one in held} == {("ann", "slurm")}
    assert len(held) == 2
    node.run("epilog")
    check(node)
    assert not [one for one, _ in samples(textfile)["gpu_info"] if one["job"]]


def test_what_happens_from_the_first_check_on_is_counted(node: HookNode, textfile: Path) -> None:
    check(node)
    assert value(textfile, "grants_total", type="job") == 0
    node.run("prolog")
    node.run("epilog")
    check(node)
    assert value(textfile, "grants_total", type="job") == 1
    assert value(textfile, "granted_gpus_total", type="job") == 2
    assert value(textfile, "released_gpus_total", type="job") == 2
    assert value(textfile, "hook_duration_seconds_count", hook="prolog") == 1
    assert value(textfile, "hook_duration_seconds_count", hook="epilog") == 1
    check(node)
    assert value(textfile, "grants_total", type="job") == 1


def test_a_refused_job_is_counted_by_cause_and_policy(node: HookNode, textfile: Path) -> None:
    check(node)
    node.reserve(0)
    node.slurm(requeue="")
    node.configure(slurm={"on_conflict": "requeue"})
    node.run("prolog")
    check(node)
    assert value(textfile, "refusals_total", cause="reserved") == 1
    assert value(textfile, "conflicts_total", cause="reserved", policy="requeue") == 1
    assert value(textfile, "requeues_total") == 1


def test_without_the_store_the_file_tells_so_and_shows_no_gpu_as_available(
    node: HookNode, textfile: Path
) -> None:
    node.run("prolog")
    check(node)
    node.server.stop()
    node.configure(store={"timeout_s": 0.5})
    node.run("epilog")
    done = node.python(*CHECK)
    assert done.returncode == 4
    assert value(textfile, "store_away_seconds", node=NODE) is not None
    assert value(textfile, "store_away_seconds", node=NODE) != 0
    assert value(textfile, "gpus", node=NODE, state="available") == 0


def test_a_file_that_cannot_be_written_fails_no_check(
    node: HookNode, tmp_path: Path, logged: list[str]
) -> None:
    node.configure(metrics={"textfile": str(tmp_path / "missing" / "canhazgpu.prom")})
    check(node)
    write_at_check(CheckRequest(node.environ()))
    assert "metrics-not-written" in logged[0]
    assert "No such file" in logged[0]


def test_damaged_counts_begin_anew(node: HookNode, textfile: Path, tmp_path: Path) -> None:
    check(node)
    counts = tmp_path / "run" / "metrics" / "counts.json"
    for content in ("", "[]", "{", '{"numbers": 7}', '{"through": "x", "numbers": [[1]]}'):
        counts.write_text(content)
        check(node)
        assert value(textfile, "grants_total", type="job") == 0
    node.run("prolog")
    check(node)
    assert value(textfile, "grants_total", type="job") == 1


def test_requests_of_people_that_were_refused_are_counted(node: HookNode, textfile: Path) -> None:
    check(node)
    assert value(textfile, "refused_requests_total", cause="never") == 0
    own = {name: one for name, one in node.environ().items() if not name.startswith("SLURM_JOB")}
    for _ in range(2):
        run = ("-m", "canhazgpu.cli.main", "run", "--gpus", "5", "--", "true")
        done = node.python(*run, environ=own)
        assert done.returncode != 0
        assert "has 4 GPUs; 5 were asked for" in done.stderr
    # What was noted is counted one writing later, and once.
    for expected in (0, 2, 2):
        check(node)
        assert value(textfile, "refused_requests_total", cause="never") == expected


def test_a_node_without_the_library_says_what_is_missing(
    node: HookNode, textfile: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.startswith("canhazgpu.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    write_at_check(CheckRequest(node.environ()))
    assert "canhazgpu[metrics]" in logged[0]
    assert not textfile.exists()


def test_without_the_key_nothing_imports_the_library(node: HookNode) -> None:
    program = (
        "import sys\n"
        "from canhazgpu.in_process.service import open_hook_service\n"
        "from canhazgpu.service.jobs import CheckRequest\n"
        "import os\n"
        "open_hook_service().check(CheckRequest(os.environ))\n"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], env=node.environ(), timeout=60, check=False
    )
    assert done.returncode == 0


@pytest.fixture
def agent(node: HookNode, textfile: Path, tmp_path: Path) -> RunningAgent:
    """An agent that writes the file; it ends with the test's `with`."""
    sections = {name: node.config[name] for name in ("store", "validation")}
    metrics = {"textfile": str(textfile)}
    made = RunningAgent(tmp_path / "of-agent", NODE, **sections, metrics=metrics)
    node.configure(
        node={"state_dir": str(made.state_dir), "marker_dir": str(tmp_path / "of-agent/agent-lib")}
    )
    return made


def test_the_agent_writes_after_each_change(
    node: HookNode, agent: RunningAgent, textfile: Path, check_metrics: CheckMetrics
) -> None:
    with agent:
        poll_until(textfile.exists)
        run_hook(agent, "health_check", node.environ())
        poll_until(lambda: value(textfile, "gpus", node=NODE, state="available") == 4)
        run_hook(agent, "prolog", node.environ())
        poll_until(lambda: value(textfile, "gpus", node=NODE, state="reserved") == 2)
        assert value(textfile, "grants_total", type="job") == 1
        assert (value(textfile, "agent_children", node=NODE) or 0) > 0
        check_metrics(textfile.read_bytes())
        agent.wait_until_idle()
        assert not [one for one in agent.status()["faults"] if "imported" in one["text"]]


def test_a_killed_writer_is_followed_by_another(agent: RunningAgent, textfile: Path) -> None:
    with agent:
        poll_until(textfile.exists)
        writer = poll_until(lambda: _writer(agent))
        textfile.unlink()
        os.kill(writer, signal.SIGKILL)
        poll_until(textfile.exists)
        assert _writer(agent) != writer


def _writer(agent: RunningAgent) -> int:
    """The child that has the library's modules, by the inotify descriptor that it alone has."""
    for pid in agent.all_children():
        links = open_files(pid)
        if any("inotify" in link for link in links) and not any("socket" in link for link in links):
            return pid
    return 0


def test_children_of_a_process_that_is_gone_are_not_known() -> None:
    assert count_children(2**22 + 1) is None


def test_a_gpu_with_a_hostile_name_does_not_break_the_file(
    node: HookNode, textfile: Path, check_metrics: CheckMetrics
) -> None:
    gpu = node.gpu(0)
    gpu.set_raw_name(b'\x1b[31mH100\xe2\x80\xae"' + b"x" * 60)
    node.run("prolog")
    check(node)
    check_metrics(textfile.read_bytes())
    assert all(line.isprintable() for line in textfile.read_text().splitlines())
