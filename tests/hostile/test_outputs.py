"""Whatever names people choose: no output commands a terminal, forges a row, or fills the screen.

`OUTPUTS` is the list of what prints something that others have chosen. A new command is in it, or
in `NOTHING_OF_OTHERS` with the reason.
"""

from __future__ import annotations

import csv
import json
import os

import click
import pytest
from command_tree import all_commands
from hosts.hostile_node import EVIL, LONG, hostile_node, unsafe_parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the node's commands are root's"),
]

OUTPUTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("status",): (
        "",
        "--json",
        "--summary",
        "--me",
        "--user evil",
        "--node n1",
        "--node n1 --json",
    ),
    ("queue",): ("", "--json", "--node n1"),
    ("events",): ("", "--json", "--since 1h"),
    ("report",): ("", "--json", "--csv", "--days 1", "--wasted", "--wasted --csv"),
    ("explain",): (
        "12",
        "14",
        "12 --json",
        "12 --cluster c1",
        "12 --cluster c1 --json",
        "manual:1",
    ),
    ("validate",): ("", "--json", "--publish", "--expected-gpus 9"),
    ("admin", "nodes"): ("", "--json"),
    ("admin", "index"): ("--check", "--check --json", "--repair", "--trim"),
    ("run",): (
        "--nonblock --gpus 5 -- true",
        "--nonblock --gpu-ids 0 -- true",
        "--nonblock --gpu-ids 4 --force -- true",
    ),
    ("reserve",): ("--nonblock --gpus 5", "--nonblock --gpu-ids 3,4", "--nonblock --gpu-ids 9"),
    ("extend",): ("--duration 1h --gpu-ids 0", "--duration 1h --gpu-ids 1", "--duration 1h"),
    ("admin", "quarantine"): ("3 --reason again", "4 --reason mine"),
    ("admin", "unquarantine"): ("3", "4", "0"),
    ("release",): ("--gpu-ids 0", "--gpu-ids 1 --json", "--gpu-ids 4", ""),
    ("admin", "release"): (
        "--gpu-ids 2 --reason mine",
        "--user nobody --reason mine",
        "--json --gpu-ids 0 --reason x",
    ),
    ("admin", "forget"): ("n1", "n2"),
}
"""In this order; words of each call."""

NOTHING_OF_OTHERS: dict[tuple[str, ...], str] = {
    ("agent", "install"): "root's files",
    ("agent", "release-driver"): "the agent's answer: numbers",
    ("agent", "reload"): "the agent's own state",
    ("agent", "run"): "what it logs are lines of `log_line`",
    ("agent", "status"): "the agent's own state",
    ("agent", "uninstall"): "root's files",
    ("completion",): "click's own text",
    ("config", "show"): "root's configuration",
    ("hooks", "check"): "Slurm's files and root's own",
    ("hooks", "install"): "root's files",
    ("hooks", "render"): "root's files",
    ("hooks", "uninstall"): "root's files",
    ("web",): "its address; its pages are tried in tests/hostile/test_pages.py",
    ("store", "acl"): "names of nodes, which Slurm's files and the ledger's rules bound",
}
LONGEST_LINE = 4000
LONGEST_JSON = 100_000


def test_every_command_is_in_one_of_the_lists() -> None:
    leaves = {
        path for path, command in all_commands().items() if not isinstance(command, click.Group)
    }
    assert leaves == OUTPUTS.keys() | NOTHING_OF_OTHERS.keys()
    assert not OUTPUTS.keys() & NOTHING_OF_OTHERS.keys()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", [EVIL, LONG], ids=["evil", "long"])
def test_what_people_choose_stays_what_it_is_in_every_output(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    wrong, shown = [], 0
    with hostile_node(text) as here:
        for path, calls in OUTPUTS.items():
            for call in calls:
                words = [*path, *call.split()]
                done = here.run(*words)
                wrong += [f"{words}: {fault}" for fault in faults(words, done.stdout, done.stderr)]
                shown += "evil" in done.stdout or "xxxx" in done.stdout
    assert wrong == []
    # Otherwise nothing was tried.
    assert shown > 12


def faults(words: list[str], output: str, errors: str) -> list[str]:
    """What is wrong in an output."""
    found = [*unsafe_parts(output), *unsafe_parts(errors)]
    if "Traceback" in errors or "internal error" in errors:
        found.append(errors[-300:])
    if "--json" in words:
        texts = output.splitlines() if words[0] == "events" else [output] if output else []
        for one in texts:
            json.loads(one)
        found += [] if output.isascii() else ["JSON beyond ASCII"]
        found += [f"{len(one)} bytes" for one in texts if len(one) > LONGEST_JSON]
        return found
    if "--csv" in words:
        cells = [cell for row in csv.reader(output.splitlines()) for cell in row]
        found += [cell[:20] for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    lines = [*output.splitlines(), *errors.splitlines()]
    return found + [f"a line of {len(one)}" for one in lines if len(one) > LONGEST_LINE]
