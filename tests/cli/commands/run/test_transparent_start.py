"""A run's command is started as it would be without `run`, whatever the caller is like."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hosts.shared_host import SharedHost
from polling import poll_until

pytestmark = pytest.mark.slow


def by_shell(
    host: SharedHost, script: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Have bash run a script, in which $RUN is `canhazgpu run`."""
    done = subprocess.run(
        ["bash", "-c", script],
        env={**(environ or host.environ()), "RUN": f"{host.program} run --"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    poll_until(lambda: not host.holders(), "the GPU to be free")
    return done


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_closed_for_the_command_too(host: SharedHost, closed: str) -> None:
    # In the order of their numbers: which of 0, 1 and 2 the command has
    script = "for n in 0 1 2; do [ ! -e /proc/$$/fd/$n ] || printf $n; done >$OUT; exit 7"
    out = host.outputs / "open"
    expected = "".join(
        number
        for number, sign in (("0", "<&-"), ("1", " >&-"), ("2", "2>&-"))
        if sign not in f" {closed}"
    )
    done = by_shell(host, f"OUT={out} $RUN sh -c '{script}' {closed}")
    assert (done.returncode, done.stderr) == (7, "")
    # The redirection to the file opens the lowest number that is free.
    assert out.read_text() == "".join(sorted({*expected, "1"}))


def test_a_caller_that_ignores_its_children_gets_its_command(host: SharedHost) -> None:
    done = by_shell(host, "trap '' CHLD; $RUN echo there")
    assert (done.stdout, done.stderr, done.returncode) == ("there\n", "", 0)


def test_a_script_without_a_first_line_is_the_shells(host: SharedHost, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$# $1"\n')
    script.chmod(0o755)
    done = by_shell(host, f"$RUN {script} 'a b' c")
    assert (done.stdout, done.stderr, done.returncode) == ("2 a b\n", "", 0)


@pytest.mark.parametrize("locale", [{}, {"LANG": "C"}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}])
def test_the_environment_is_the_callers(host: SharedHost, locale: dict[str, str]) -> None:
    names = ("PATH", "CANHAZGPU_CONFIG")
    environ = {name: value for name, value in host.environ().items() if name in names} | locale
    shown = by_shell(host, "$RUN env", environ).stdout.splitlines()
    added = {"CUDA_VISIBLE_DEVICES", "CANHAZGPU_OWNER"}
    found = dict(one.split("=", 1) for one in shown)
    assert {name: value for name, value in found.items() if name.startswith(("L", "PY"))} == locale
    assert added <= set(found)


def test_ctrl_c_while_waiting_ends_the_script_too(host: SharedHost) -> None:
    # A shell goes on after a command that ends of itself, whatever its status.
    busy = host.start("run", "--gpus", "2", "--", "sleep", "60")
    poll_until(lambda: len(host.holders()) == 2)
    script = f"for i in 1 2; do {host.program} run -- echo got; done; echo went on"
    waiting = subprocess.Popen(
        ["bash", "-c", script],
        env=host.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    poll_until(lambda: len(host.view().queue) == 1)
    time.sleep(0.1)
    subprocess.run(["kill", "-INT", "--", f"-{waiting.pid}"], check=True)
    out, _ = waiting.communicate(timeout=20)
    assert (out, waiting.returncode) == ("", -2)
    assert host.view().queue == ()
    assert busy.poll() is None


def test_a_users_own_modules_take_the_place_of_none_of_ours(
    host: SharedHost, tmp_path: Path
) -> None:
    for name in ("redis", "click", "queue", "signal", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user's own')\n")
    tmp_path.chmod(0o755)
    script = 'echo "$PYTHONPATH"'
    done = host.call("run", "--", "sh", "-c", script, environ={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}\n", "")
