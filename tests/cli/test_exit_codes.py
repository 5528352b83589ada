"""The exit codes that the help of each command names, and those that commands really end with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_tree import all_commands
from hosts.cli_node import CliNode, make_cli_node
from servers.private_redis import free_port

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.main import cli
from canhazgpu.errors import CanhazgpuError, SchedulerError, UnavailableError
from canhazgpu.node.identity import boot_id

ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("admin", "forget"): ("n1",),
    ("admin", "quarantine"): ("0", "--reason", "x"),
    ("admin", "release"): ("--user", "x", "--reason", "x"),
    ("admin", "unquarantine"): ("0",),
    ("agent", "install"): ("--root", "{tmp}", "--dry-run"),
    ("agent", "uninstall"): ("--root", "{tmp}", "--dry-run"),
    ("admin", "index"): ("--check",),
    ("completion",): ("bash",),
    ("explain",): ("12",),
    ("extend",): ("--duration", "1h"),
    ("hooks", "check"): ("--slurm-dir", "/nonexistent"),
    ("hooks", "install"): ("--slurm-dir", "/nonexistent", "--root", "{tmp}", "--dry-run"),
    ("hooks", "render"): ("--output", "{tmp}/hooks"),
    ("hooks", "uninstall"): ("--slurm-dir", "/nonexistent", "--root", "{tmp}"),
    ("reserve",): ("--nonblock",),
    ("run",): ("--nonblock", "--", "true"),
}
"""What a command needs to be called at all."""
SERVE = (("agent", "run"), ("web",))
"""They do not end by themselves."""
LEAVES = [path for path, one in all_commands().items() if not isinstance(one, click.Group)]
STORE_AWAY, NO_DRIVER, GARBAGE, NO_CONFIG, WRONG_OPTION = (
    *("store away", "no driver", "garbage published", "no configuration", "wrong option"),
)
VALIDATES = ("validate",)
CANNOT_TELL = 3


def listed(path: tuple[str, ...]) -> list[int]:
    """The codes at the end of the command's help."""
    shown = CliRunner().invoke(cli, [*path, "--help"]).stdout
    _, found, lines = shown.rpartition("  Exit codes:\n")
    assert found, f"the help of {' '.join(path)} does not end with exit codes: see exit_codes.py"
    codes = [re.fullmatch(r"    (\d+) +\S.*", line) for line in lines.rstrip("\n").split("\n")]
    assert all(codes), lines
    return [int(one[1]) for one in codes if one]


@pytest.mark.parametrize("path", list(all_commands()), ids=lambda one: " ".join(one) or "canhazgpu")
def test_every_help_ends_with_the_exit_codes(path: tuple[str, ...]) -> None:
    codes = listed(path)

    assert codes == sorted(set(codes))
    assert {0, 1, 2, 130} <= set(codes)


def test_a_group_lists_what_its_commands_end_with() -> None:
    everything = set(listed(()))
    for path, command in all_commands().items():
        own = set(listed(path))
        if path in (("run",), VALIDATES):
            continue  # the codes of its command; verdicts
        assert own <= everything
        if isinstance(command, click.Group) and path:
            for name in command.list_commands(click.Context(command)):
                assert set(listed((*path, name))) <= own


def test_an_error_without_a_meaning_cannot_be_listed() -> None:
    with pytest.raises(KeyError):
        exit_codes(SchedulerError)


def test_other_meanings_win_and_the_codes_are_in_order() -> None:
    told = exit_codes(UnavailableError, others={0: "reserved", 9: "nine"})

    assert [line.split()[0] for line in told.split("\n")[2:]] == ["0", "1", "2", "9", "75", "130"]
    assert "  0    reserved" in told


@pytest.fixture(scope="module")
def here() -> Iterator[CliNode]:
    with pytest.MonkeyPatch.context() as patch, make_cli_node() as made:
        patch.setenv("FAKE_NVML_NODE", "n1")
        yield made


def environ(here: CliNode, state: Path, fault: str) -> Mapping[str, str]:
    told = here.env(
        CANHAZGPU_NODE_STATE_DIR=str(state),
        CANHAZGPU_NODE_MARKER_DIR=str(state / "lib"),
        CANHAZGPU_STORE_TIMEOUT_S="1",
    )
    if fault == STORE_AWAY:
        told["CANHAZGPU_STORE_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    if fault == NO_DRIVER:
        told |= {"CANHAZGPU_VALIDATION_NVML_LIBRARY": "/nonexistent", "PATH": "/nonexistent"}
    if fault == GARBAGE:
        (state / "published.json").write_text(json.dumps({"node": "n1", "boot_id": boot_id()}))
    return told


def expected(path: tuple[str, ...], fault: str) -> int | None:
    """The code of this fault, None where it stops nothing."""
    if path == VALIDATES:
        return CANNOT_TELL
    if fault == WRONG_OPTION:
        return 2
    if path[0] in ("completion", "config", "hooks") or path[1:] in (("install",), ("uninstall",)):
        return None
    if path[0] == "agent":
        answers = path == ("agent", "release-driver")  # without an agent nothing is open
        return 2 if fault == NO_CONFIG else 0 if answers else 8
    if fault == GARBAGE:
        return 6 if path in (("run",), ("reserve",), ("status",)) else None
    return {STORE_AWAY: 4, NO_CONFIG: 2}.get(fault)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (path, fault)
        for path in LEAVES
        for fault in (STORE_AWAY, NO_DRIVER, GARBAGE, NO_CONFIG, WRONG_OPTION)
        if path not in SERVE or fault in (NO_CONFIG, WRONG_OPTION)
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_a_command_ends_with_a_code_that_it_lists(
    path: tuple[str, ...], fault: str, here: CliNode, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    arguments = [one.format(tmp=tmp_path) for one in ARGUMENTS.get(path, ())]
    before = ["--config", "/nonexistent"] if fault == NO_CONFIG else []
    after = ["--nonsense"] if fault == WRONG_OPTION else []
    app = App(environ=environ(here, state, fault))

    result = CliRunner().invoke(cli, [*before, *path, *after, *arguments], obj=app)

    assert result.exit_code in listed(path), result.output
    assert expected(path, fault) in (None, result.exit_code), result.output
    assert result.exception is None or isinstance(result.exception, (SystemExit, CanhazgpuError))
