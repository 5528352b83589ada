"""`canhazgpu status --watch` of many nodes on a real terminal: scrolled, resized, ended."""

from __future__ import annotations

import os
import re
import signal
import termios
from collections.abc import Iterator

import pytest
from hosts.cli_node import PROGRAM, CliNode, make_cli_node
from terminal import Terminal

from canhazgpu.cli.status_display.screen import CLEAR_BELOW, CURSOR_HOME
from canhazgpu.cli.status_display.terminal_mode import (
    ENTER_ALTERNATE_SCREEN,
    LEAVE_ALTERNATE_SCREEN,
)
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim

pytestmark = pytest.mark.slow

NODES = 30
ONCE = (*PROGRAM, "status", "--watch", "3600")
"""Reads once: what is drawn later is drawn for a key or a new size."""
UP, DOWN, PAGE_UP, PAGE_DOWN, END = "\x1b[A", "\x1b[B", "\x1b[5~", "\x1b[6~", "\x1b[F"


@pytest.fixture(scope="module")
def here() -> Iterator[CliNode]:
    """30 nodes with two GPUs each, and n1; alice holds a GPU of gpu03."""
    with pytest.MonkeyPatch.context() as patch, make_cli_node(2) as made:
        patch.setenv("FAKE_NVML_NODE", "n1")
        ledger = made.ledger()
        for number in range(1, NODES + 1):
            gpus = tuple(
                GpuReading(index, f"GPU-{number}-{index}", index, "NVIDIA H100", 45, 81559)
                for index in range(2)
            )
            seen = Observation(Scan(f"gpu{number:02}", 1.0, 0.1, gpus), 0.1)
            ledger.publish_scan(seen)
            if number == 3:
                ledger.reserve_given(Claim("manual:1", "manual", "alice"), ["GPU-3-0"], seen)
        made.publish()
        yield made


def drawn(screen: Terminal) -> list[str]:
    """The lines of the next picture that the program draws."""
    screen.wait_for(CURSOR_HOME)
    text = screen.wait_for(CLEAR_BELOW).removesuffix(CLEAR_BELOW)
    return [plain(line) for line in text.split("\n")]


def plain(text: str) -> str:
    """The text without colours and commands."""
    return re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text).rstrip("\r")


def test_what_does_not_fit_is_the_summary_and_is_scrolled(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=10, columns=80) as screen:
        before = screen.settings()
        lines = drawn(screen)
        # Title, blank line, seven nodes, and how many there are more
        assert len(lines) == 10
        assert "every 3600 s, until q" in lines[0]
        assert re.fullmatch(r"gpu01  2 GPUs  2 free  \(scanned \d+s ago\)", lines[2])
        assert re.match(r"gpu03  2 GPUs  1 free  1 alice", lines[4])
        assert lines[-1].startswith("(24 more lines)")
        screen.type(DOWN)
        assert drawn(screen)[2].startswith("gpu02 ")
        screen.type(PAGE_DOWN)
        lines = drawn(screen)
        assert lines[2].startswith("gpu08 ")
        assert lines[-1].startswith("(7 lines above, 17 more lines)")
        screen.type(PAGE_UP)
        assert drawn(screen)[2].startswith("gpu02 ")
        screen.type(UP * 5)
        assert drawn(screen)[2].startswith("gpu01 ")
        screen.type(END)
        lines = drawn(screen)
        assert lines[-2].startswith("n1 ")
        assert lines[-1].startswith("(24 lines above)")
        screen.type("q")
        assert screen.wait_end() == 0
        assert screen.output.endswith(LEAVE_ALTERNATE_SCREEN)
        assert screen.settings() == before


def test_s_changes_between_summary_and_tables(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=12, columns=120) as screen:
        assert drawn(screen)[2].startswith("gpu01  2 GPUs")
        screen.type("s")
        lines = drawn(screen)
        assert lines[2].startswith("gpu01 (scanned")
        assert lines[3].startswith("GPU STATUS")
        screen.type(PAGE_DOWN)
        assert drawn(screen)[2] != lines[2]
        screen.type("s")
        assert drawn(screen)[2].startswith("gpu01  2 GPUs")
        screen.type("q")
        assert screen.wait_end() == 0


def test_a_new_size_is_drawn_at_once_and_keeps_the_place(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=10, columns=80) as screen:
        drawn(screen)
        screen.type(PAGE_DOWN + PAGE_DOWN)
        assert drawn(screen)[2].startswith("gpu13 ")
        screen.resize(6, 80)
        lines = drawn(screen)
        assert (len(lines), lines[2].split()[0]) == (6, "gpu13")
        # Where more fits than is left, the end stays at the bottom.
        screen.type(END)
        drawn(screen)
        screen.resize(20, 40)
        lines = drawn(screen)
        assert lines[-2].startswith("n1 ")
        assert max(map(len, lines[2:-1])) <= 40
        # The smallest terminals are no error.
        for rows in (3, 2, 1):
            screen.resize(rows, 10)
            drawn(screen)
        # All tables fit.
        screen.resize(31 * 6 + 2, 120)
        lines = drawn(screen)
        assert lines[3].startswith("GPU STATUS")
        assert "more lines" not in lines[-1]
        screen.type("q")
        assert screen.wait_end() == 0


def test_a_filter_stays_and_is_told(here: CliNode) -> None:
    watch = (*PROGRAM, "status", "--watch", "0.2", "--user", "alice")
    with Terminal(watch, here.env(), rows=12, columns=100) as screen:
        for _ in range(2):
            lines = drawn(screen)
            assert lines[0].endswith("--user alice")
            assert lines[2].startswith("gpu03 (scanned")
            assert "alice" in lines[5]
            assert len(lines) == 6
        screen.type("q")
        assert screen.wait_end() == 0


def test_a_value_that_nobody_knows_gives_the_terminal_back(here: CliNode) -> None:
    watch = (*ONCE, "--user", "alicf")
    with Terminal(watch, here.env(), rows=12, columns=100) as screen:
        before = screen.settings()
        assert screen.wait_end() == 2
        assert (
            "there is no user 'alicf' here or on the nodes shown; did you mean 'alice'?"
            in screen.output
        )
        assert LEAVE_ALTERNATE_SCREEN in screen.output
        assert screen.settings() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(here: CliNode, number: signal.Signals) -> None:
    with Terminal(ONCE, here.env(), rows=12) as screen:
        before = screen.settings()
        drawn(screen)
        assert screen.settings() != before
        os.kill(screen.pid, number)
        assert screen.wait_end() == (0 if number == signal.SIGINT else -number)
        assert screen.output.endswith(LEAVE_ALTERNATE_SCREEN)
        assert screen.settings() == before


def test_while_it_is_stopped_the_terminal_is_as_it_was(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=10) as screen:
        before = screen.settings()
        drawn(screen)
        screen.type("\x1a")
        screen.wait_stopped()
        assert screen.settings() == before
        os.kill(screen.pid, signal.SIGCONT)
        screen.wait_for(ENTER_ALTERNATE_SCREEN)
        # It is drawn anew, and keys are read as before.
        assert drawn(screen)[2].startswith("gpu01 ")
        screen.type(DOWN)
        assert drawn(screen)[2].startswith("gpu02 ")
        screen.type("q")
        assert screen.wait_end() == 0
        assert screen.settings() == before


def test_without_a_keyboard_it_is_redrawn_until_ctrl_c(here: CliNode) -> None:
    command = ("sh", "-c", 'exec "$@" </dev/null', "sh", *PROGRAM, "status", "--watch", "0.2")
    with Terminal(command, here.env(), rows=10) as screen:
        before = screen.settings()
        lines = drawn(screen)
        assert "until Ctrl-C" in lines[0]
        assert "keys" not in lines[-1]
        assert screen.settings() == before
        drawn(screen)
        os.kill(screen.pid, signal.SIGINT)
        assert screen.wait_end() == 0


def test_a_terminal_that_is_lost_ends_it(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=10) as screen:
        drawn(screen)
        screen.hang_up()
        # The kernel's SIGHUP ends it, or the first write that fails.
        assert screen.wait_end() in (0, -signal.SIGHUP)


def test_keys_are_not_echoed(here: CliNode) -> None:
    with Terminal(ONCE, here.env(), rows=10) as screen:
        drawn(screen)
        flags = screen.settings()[3]
        assert isinstance(flags, int)
        assert not flags & (termios.ECHO | termios.ICANON)
        assert flags & termios.ISIG
        screen.type("zzzq")
        assert screen.wait_end() == 0
        assert "z" not in screen.output


@pytest.mark.parametrize(
    "option", [(), ("--no-summary",), ("--wide",), ("--node", "gpu01", "--node", "gpu02")]
)
def test_once_on_a_terminal(here: CliNode, option: tuple[str, ...]) -> None:
    with Terminal((*PROGRAM, "status", *option), here.env(), rows=8, columns=100) as screen:
        assert screen.wait_end() == 0
    lines = list(map(plain, screen.output.split("\n")))
    if option:
        assert lines[0].startswith("gpu01 (scanned")
        return
    assert lines[0].startswith("gpu01  2 GPUs  2 free")
    assert len([line for line in lines if " GPUs " in line]) == NODES + 1
    assert lines[-2] == ("(the tables take 185 lines: --no-summary, --node or a pipe shows them)")


def test_once_where_all_fits_and_in_a_pipe_the_tables_are_shown(here: CliNode) -> None:
    with Terminal((*PROGRAM, "status"), here.env(), rows=31 * 6, columns=100) as screen:
        assert screen.wait_end() == 0
    assert screen.output.startswith("gpu01 (scanned")
    piped = here.run("status")
    assert piped.stdout.startswith("gpu01 (scanned")
    assert piped.stdout.count("GPU STATUS") == NODES + 1
    summary = here.run("status", "-s").stdout.splitlines()
    assert len(summary) == NODES + 1
