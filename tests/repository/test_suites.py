"""Tests on another Debian: nothing of them reaches this machine, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.ci_skips import Require
from polling import poll_until

SUITES = Path(__file__).parents[2] / "contrib" / "suites"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture
def debian(require: Require) -> Iterator[Path]:
    """A directory whose Debian is this machine's own, on whose file system it is itself."""
    require(os.geteuid() == 0, "name spaces and mounts need root")
    with tempfile.TemporaryDirectory(prefix="debian-", dir="/var/tmp") as name:
        (Path(name) / "root").symlink_to("/")
        yield Path(name)


def run_in(debian: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUITES / "run-in-root", debian, "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_what_is_done_there_stays_there(debian: Path) -> None:
    name = f"canary-{os.getpid()}"
    done = run_in(debian, f"touch /dev/{name} /etc/{name} /tmp/{name} {debian}/kept; exit 3")

    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert [top for top in ("/dev", "/etc", "/tmp") if Path(top, name).exists()] == []
    assert mounts(debian) == []


@pytest.mark.slow
def test_it_sees_no_process_of_this_machine(debian: Path) -> None:
    done = run_in(debian, "ls -d /proc/[0-9]*")

    assert 2 <= len(done.stdout.split()) <= 4
    assert f"/proc/{os.getpid()}\n" not in done.stdout


@pytest.fixture
def started(debian: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has put a process into a session of its own, and waits for both."""
    process = subprocess.Popen(
        [SUITES / "run-in-root", debian, "sh", "-c", f"setsid sleep {marked(debian)} & sleep 600"],
        text=True,
        start_new_session=True,
    )
    poll_until(lambda: processes(debian))
    yield process
    process.kill()
    process.wait()


def marked(debian: Path) -> str:
    """How long to sleep, unlike any other test's process."""
    return f"600.{abs(hash(str(debian)))}"


def processes(debian: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        if words[:2] == [b"sleep", marked(debian).encode()]:
            found.append(int(entry.name))
    return found


def mounts(debian: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(debian) in line]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_command_however_that_ends(
    debian: Path, started: subprocess.Popen[str], number: signal.Signals
) -> None:
    started.send_signal(number)

    assert started.wait(60) != 0
    poll_until(lambda: not processes(debian))
    assert mounts(debian) == []


@pytest.mark.parametrize(
    ("environ", "status", "said"),
    [({}, 0, "SKIPPED: "), ({"CI": "true"}, 1, "in CI nothing may be missing: ")],
)
@pytest.mark.slow
def test_a_debian_out_of_reach_is_a_failure_in_ci_alone(
    tmp_path: Path, require: Require, environ: dict[str, str], status: int, said: str
) -> None:
    require(os.geteuid() == 0, "debootstrap needs root")
    done = subprocess.run(
        [SUITES / "test", tmp_path, "trixie", "--version"],
        env={"PATH": os.environ["PATH"], "http_proxy": UNREACHABLE, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == status, lines
    assert f"{said}tests on Debian trixie: debootstrap " in "\n".join(lines)
