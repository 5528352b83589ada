"""What a run made of its GPUs, where no agent runs: its monitor tells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from hosts.shared_host import NODE, SharedHost
from polling import poll_until

from canhazgpu.ledger.journal_entries import USE
from canhazgpu.ledger.values import Event
from canhazgpu.probe.accounting.job_use import SINCE_FILE

pytestmark = pytest.mark.slow


def notes(host: SharedHost) -> list[Event]:
    return [one for one in host.ledger().history(NODE, 0.0) if one.kind == USE]


@pytest.fixture
def accounting(make_host: Callable[..., SharedHost]) -> SharedHost:
    host = make_host()
    host.configure(validation={"accounting": "auto"})
    for gpu in host.node.gpus:
        gpu.set("accounting_mode", 1)
    return host


def started(host: SharedHost, user: str) -> tuple[subprocess.Popen[str], str]:
    """Start a run of one GPU that stays; return it and its GPU."""
    mark = host.outputs / f"started-{time.monotonic_ns()}"
    script = f"touch {mark}; exec sleep 600"
    process = host.start("run", "--gpus", "1", "--", "sh", "-c", script, user=user)
    poll_until(mark.exists, "the command to start")
    return process, next(iter(host.holders()))


def ended(host: SharedHost, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    os.kill(process.pid, number)
    process.wait()
    poll_until(lambda: not host.holders(), "the GPU to be free")


def told_by_driver(host: SharedHost, user: str, number: int) -> Event | None:
    """End a run that used its GPU; None where the driver answered too late, as it may here."""
    before = len(notes(host))
    process, held = started(host, user)
    used = next(one for one in host.node.gpus if one.uuid == held)
    used.account(process.pid, busy_percent=50, peak_mb=40_000, started_at=time.time(), ran_s=None)
    ended(host, process, number)
    poll_until(lambda: len(notes(host)) > before, "the note")
    note = notes(host)[-1]
    return note if "driver" in note.facts["use"] else None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_users_run_is_told_of_by_the_driver(
    accounting: SharedHost, people: tuple[str, ...], number: int
) -> None:
    user, host = people[0], accounting
    note = poll_until(lambda: told_by_driver(host, user, number), "an answer of the driver")
    assert note is not None
    assert note.claim is not None
    assert note.claim.user == user
    ((_, peak_mb, _, busy),) = note.facts["use"]["driver"]
    assert (peak_mb, 0 < busy <= 100) == (40_000, True)

    told = host.call("explain", note.claim.owner)
    assert "GPU" in told.stdout
    assert "peak 39 of" in told.stdout, told.stdout + told.stderr
    found = host.call("report", "--json")
    (row,) = json.loads(found.stdout)["users"]
    assert row["user"] == user
    # Counted in whole milliseconds, of which a short run has few.
    share, least = 40_000 / 81_559, 1 / note.facts["use"]["held_ms"]
    assert share - least < row["peak_memory_share"] < share + 0.0001
    assert "MEAN USE" in host.call("report").stdout


def test_when_accounting_was_switched_on_late_or_nobody_may_know_the_scans_tell(
    accounting: SharedHost, people: tuple[str, ...]
) -> None:
    user, host = people[0], accounting
    directory = host.root / "run"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    for mode, content in ((0o600, {}), (0o644, {"*": time.time() + 600})):
        before = len(notes(host))
        (directory / SINCE_FILE).write_text(json.dumps(content))
        (directory / SINCE_FILE).chmod(mode)
        process, _ = started(host, user)
        ended(host, process)
        poll_until(lambda: len(notes(host)) > before, "the note")  # noqa: B023 - awaited here
        use = notes(host)[-1].facts["use"]
        assert (list(use), len(use["scans"])) == (["scans"], 1)


def test_without_the_key_nothing_is_told(host: SharedHost) -> None:
    process, _ = started(host, "root")
    ended(host, process)
    assert notes(host) == []
