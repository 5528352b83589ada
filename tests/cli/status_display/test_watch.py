"""`canhazgpu status --watch`: on a real terminal, in a pipe, and over a store that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app
from hosts.cli_node import PROGRAM, CliNode, make_cli_node
from terminal import Terminal

import fake_nvml
from canhazgpu.cli.main import cli
from canhazgpu.cli.status_display.screen import CLEAR_BELOW, CURSOR_HOME
from canhazgpu.cli.status_display.terminal_mode import (
    ENTER_ALTERNATE_SCREEN,
    LEAVE_ALTERNATE_SCREEN,
)
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.values import Claim, NodeView, Reservation

pytestmark = pytest.mark.slow

GPU = GpuReading(0, "GPU-0", 0, "H100", 45, 80000)
FREE = NodeView("n1", NOW, None, None)
HELD = replace(
    FREE, reservations={"GPU-0": Reservation("GPU-0", Claim("o", "manual", "alice"), NOW - 5)}
)
WATCH = (*PROGRAM, "status", "--watch", "0.1")


class Script:
    """Does one thing for each time the command sleeps, and then presses Ctrl-C."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self._steps:
            raise KeyboardInterrupt
        self._steps.pop(0)()


def nothing() -> None:
    pass


def test_a_pipe_gets_a_block_for_every_change() -> None:
    # Given that nothing changes, then time passes, then a GPU is reserved, then time passes
    ledger = FakeLedger(FREE)
    script = Script(
        nothing,
        lambda: ledger.show(replace(FREE, read_at=NOW + 2)),
        lambda: ledger.show(replace(HELD, read_at=NOW + 4)),
        lambda: ledger.show(replace(HELD, read_at=NOW + 6)),
    )

    result = CliRunner().invoke(
        cli, ["status", "--watch", "--node", "n1"], obj=app(ledger, FakeProbe((GPU,)), sleep=script)
    )

    # I expect two blocks, each under its time
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = result.stdout.split("\n\n")
    assert first.startswith("2023-11-14T22:13:20Z\nGPU STATUS")
    assert "available" in first
    assert second.startswith("2023-11-14T22:13:24Z\nGPU STATUS")
    assert "alice" in second
    assert script.slept == [2.0] * 5


def test_a_store_that_goes_away_is_said_and_comes_back() -> None:
    ledger = FakeLedger(HELD)

    def goes() -> None:
        ledger.error = StoreError("cannot reach the store at redis://h: Connection refused")

    def comes() -> None:
        ledger.error = None

    probe = FakeProbe((GPU,))
    script = Script(goes, nothing, comes)

    result = CliRunner().invoke(
        cli, ["status", "--watch", "1"], obj=app(ledger, probe, sleep=script)
    )

    first, error, table, second = result.stdout.split("\n\n")
    assert result.exit_code == 0
    assert "alice" in first
    assert "alice" not in error
    assert error.splitlines()[1].startswith("Error: cannot reach the store at redis://h")
    assert table.startswith("n1 (not all reservations are known)")
    assert second.split("\n", 1)[1] == first.split("\n", 1)[1] + "\n"
    # The scans begun while the store was away were waited for, and none is left.
    assert probe.events.count("start") == probe.events.count("observe") == 4
    assert probe.events.count("ledger") == 3


def test_json_is_one_document_a_line_each_time() -> None:
    ledger = FakeLedger(FREE)

    def goes() -> None:
        ledger.error = StoreError("away")

    result = CliRunner().invoke(
        cli,
        ["status", "--watch", "--json"],
        obj=app(ledger, FakeProbe((GPU,)), sleep=Script(nothing, goes)),
    )

    same, again, error = map(json.loads, result.stdout.splitlines())
    assert same == again
    assert same["nodes"][0]["gpus"][0]["state"] == "available"
    assert set(error) == set(same)
    assert error["error"].startswith("away")
    assert error["nodes"][0]["gpus"][0]["state"] == "unknown"


def test_a_node_that_cannot_be_read_is_watched_on() -> None:
    published = replace(HELD, reservations={})
    probe = FakeProbe(fault="driver gone")

    result = CliRunner().invoke(
        cli,
        ["status", "--watch", "--node", "n1"],
        obj=app(FakeLedger(published), probe, sleep=Script()),
    )

    assert result.exit_code == 0
    assert "n1 (driver gone)" in result.stdout


def test_what_nobody_knows_is_not_waited_for() -> None:
    result = CliRunner().invoke(
        cli, ["status", "--watch", "--node", "nX"], obj=app(FakeLedger(), FakeProbe())
    )

    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("given", ["0", "-1", "x", "nan", "1e9"])
def test_times_that_are_none(given: str) -> None:
    result = CliRunner().invoke(
        cli, ["status", f"--watch={given}"], obj=app(FakeLedger(FREE), FakeProbe((GPU,)))
    )

    assert (result.exit_code, result.stdout) == (2, "")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[CliNode]:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    with make_cli_node() as made:
        yield made


def test_a_terminal_is_redrawn_in_place_and_given_back(here: CliNode) -> None:
    with Terminal(WATCH, here.env()) as screen:
        settings = screen.settings()
        # Given a screen that is drawn again and again
        assert screen.wait_for(CURSOR_HOME).startswith(ENTER_ALTERNATE_SCREEN)
        screen.wait_for("available")
        screen.wait_for(CURSOR_HOME)
        # If a GPU comes into use, and the store goes and comes back
        with fake_nvml.start_gpu_process(here.node.gpu(1), 2000, name="intruder"):
            screen.wait_for("WITHOUT RESERVATION")
            here.redis.kill()
            screen.wait_for("Error: cannot reach the store")
            here.redis.start()
            screen.wait_for("WITHOUT RESERVATION")
        # I expect Ctrl-C to end it, with the terminal as it was
        screen.type("\x03")
        assert screen.wait_end() == 0
        assert screen.output.endswith(LEAVE_ALTERNATE_SCREEN)
        assert "Traceback" not in screen.output
        assert screen.output.count(LEAVE_ALTERNATE_SCREEN) == 1
        assert settings == screen.settings()


def test_a_stopped_program_has_given_the_terminal_back(here: CliNode) -> None:
    with Terminal(WATCH, here.env()) as screen:
        screen.wait_for("available")
        screen.type("\x1a")
        screen.wait_stopped()
        # What it wrote before it stopped may come later.
        screen.wait_for(LEAVE_ALTERNATE_SCREEN)
        assert screen.output in ("", "^Z")
        os.kill(screen.pid, signal.SIGCONT)
        screen.wait_for(ENTER_ALTERNATE_SCREEN)
        screen.wait_for("available")
        os.kill(screen.pid, signal.SIGTERM)
        assert screen.wait_end() == -signal.SIGTERM
        assert screen.output.endswith(LEAVE_ALTERNATE_SCREEN)


def test_what_is_higher_than_the_terminal_is_cut(here: CliNode) -> None:
    with Terminal(WATCH, here.env(), rows=5) as screen:
        screen.wait_for(CURSOR_HOME)
        drawn = screen.wait_for(CLEAR_BELOW)
        assert drawn.count("\n") == 4
        assert "(3 more lines)" in drawn
        screen.type("\x03")
        assert screen.wait_end() == 0


@pytest.mark.parametrize(
    ("env", "option", "coloured"),
    [
        ({}, (), True),
        ({"NO_COLOR": ""}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"TERM": "dumb"}, (), False),
        ({}, ("--color", "never"), False),
        ({"NO_COLOR": "1"}, ("--color", "always"), True),
    ],
)
def test_colour_on_a_terminal(
    here: CliNode, env: dict[str, str], option: tuple[str, ...], coloured: bool
) -> None:
    with Terminal((*PROGRAM, "status", *option), here.env(**env)) as screen:
        assert screen.wait_end() == 0

    assert "available" in screen.output
    assert ("\x1b[" in screen.output) is coloured


def test_a_dumb_terminal_gets_blocks(here: CliNode) -> None:
    with Terminal(WATCH, here.env(TERM="dumb")) as screen:
        screen.wait_for("available")
        screen.type("\x03")
        assert screen.wait_end() == 0
        assert "\x1b" not in screen.output


def test_a_reader_that_goes_ends_it_silently(here: CliNode) -> None:
    with subprocess.Popen(
        [*WATCH, "--json"], env=here.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert json.loads(program.stdout.readline())["nodes"]
        program.stdout.close()
        assert program.wait(30) == 1
        assert program.stderr.read() == b""
