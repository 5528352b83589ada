"""Completion by real shells, and the live values that they are given."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app
from hosts.cli_node import CliNode, make_cli_node
from terminal import Terminal

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.cli.options import value_completion
from canhazgpu.cli.options.value_completion import (
    complete_gpu_ids,
    complete_nodes,
    complete_own_gpu_ids,
)
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.values import Claim, NodeView, Reservation

pytestmark = pytest.mark.slow

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
OPTION = click.Option(["--gpu-ids"])


def gpu(index: int, uuid: str = "", mig: int | None = None) -> GpuReading:
    return GpuReading(index, uuid or f"GPU-{index}a", index, "H100", 5, 9, mig_index=mig)


def held(uuid: str, uid: int | None, user: str = "x") -> Reservation:
    return Reservation(uuid, Claim("o", "manual", user, uid), NOW)


MINE, OTHERS = held("GPU-1a", os.getuid()), held("GPU-0a", os.getuid() + 1)
GONE = held("GPU-gone", os.getuid())
N1 = NodeView(
    "n1",
    NOW,
    Scan("n1", 0.0, 0.1, (gpu(0), gpu(1), gpu(10), gpu(2, "MIG-5", mig=0), gpu(3, uuid=""))),
    NOW,
    {one.gpu: one for one in (MINE, OTHERS, GONE)},
)


def values(complete: Complete, incomplete: str, make_cli_node: App) -> list[str]:
    context = click.Context(cli, obj=make_cli_node)
    return [item.value for item in complete(context, OPTION, incomplete)]


@pytest.mark.parametrize(
    ("complete", "incomplete", "expected"),
    [
        (complete_gpu_ids, "", ["0", "1", "10", "MIG-5", "3", "GPU-gone"]),
        (complete_gpu_ids, "1", ["1", "10"]),
        (complete_gpu_ids, "1,", ["1,0", "1,10", "1,MIG-5", "1,3", "1,GPU-gone"]),
        (complete_gpu_ids, "GPU-10a,1,", ["GPU-10a,1,0", "GPU-10a,1,MIG-5", "GPU-10a,1,3",
                                          "GPU-10a,1,GPU-gone"]),
        (complete_gpu_ids, "G", ["GPU-0a", "GPU-1a", "GPU-10a", "GPU-3a", "GPU-gone"]),
        (complete_gpu_ids, "0,MIG-", ["0,MIG-5"]),
        (complete_gpu_ids, "x", []),
        (complete_own_gpu_ids, "", ["1", "GPU-gone"]),
        (complete_own_gpu_ids, "GPU-", ["GPU-1a", "GPU-gone"]),
        (complete_own_gpu_ids, "1,", ["1,GPU-gone"]),
        (complete_nodes, "", ["n1", "n2"]),
        (complete_nodes, "n2", ["n2"]),
    ],
)  # fmt: skip
def test_values(complete: Complete, incomplete: str, expected: list[str]) -> None:
    ledger = FakeLedger(N1, replace(N1, node="n2"))

    assert values(complete, incomplete, app(ledger, FakeProbe())) == expected


def test_a_gpu_is_described() -> None:
    context = click.Context(cli, obj=app(FakeLedger(N1), FakeProbe()))

    assert complete_gpu_ids(context, OPTION, "")[0].help == "H100 GPU-0a"


@pytest.mark.parametrize("complete", [complete_gpu_ids, complete_own_gpu_ids, complete_nodes])
@pytest.mark.parametrize("error", [StoreError("away"), OSError(), KeyError("x"), ValueError()])
def test_it_is_silent_whatever_fails(
    complete: Complete, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    assert values(complete, "", app(FakeLedger(error=error), FakeProbe())) == []
    assert capfd.readouterr() == ("", "")


def test_a_configuration_that_cannot_be_read_completes_nothing() -> None:
    make_cli_node = app(FakeLedger(N1), FakeProbe(), environ={"CANHAZGPU_STORE_TIMEOUT_S": "x"})

    assert values(complete_nodes, "", replace(make_cli_node, config_file="/nonexistent")) == []


@pytest.mark.parametrize(
    "evil", ["$(reboot)", "`reboot`", "a b", "a\nb", "a;b", "*", "-rf", "a'b", "\x1b[2J"]
)
def test_what_the_shell_would_obey_is_not_offered(evil: str) -> None:
    # The UUID of a MIG instance is offered where that of another GPU is not
    view = replace(N1, scan=Scan("n1", 0.0, 0.1, (gpu(0, evil, mig=0), gpu(1))), reservations={})

    assert values(complete_gpu_ids, "", app(FakeLedger(view), FakeProbe())) == ["1"]


def test_what_is_said_of_a_gpu_is_harmless() -> None:
    named = replace(N1, scan=Scan("n1", 0.0, 0.1, (replace(gpu(0), name="\x1b[2Jx\ny"),)))
    context = click.Context(cli, obj=app(FakeLedger(named), FakeProbe()))

    assert complete_gpu_ids(context, OPTION, "")[0].help == "xy GPU-0a"


def test_a_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listener that accepts and says nothing, and a limit for the answer that is not the store's
    monkeypatch.setattr(value_completion, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environ = {"CANHAZGPU_STORE_URL": f"redis://127.0.0.1:{port}/0", "PATH": ""}
        assert values(complete_nodes, "", App(environ=environ)) == []


def test_the_scripts_ask_for_this_program() -> None:
    for shell in ("bash", "zsh", "fish"):
        result = CliRunner().invoke(cli, ["completion", shell])
        assert result.exit_code == 0
        assert f"_CANHAZGPU_COMPLETE={shell}_complete" in result.stdout
        assert CliRunner().invoke(cli, ["completion", "--help"]).stdout.count(shell) >= 2


def test_an_unknown_shell_is_refused() -> None:
    result = CliRunner().invoke(cli, ["completion", "tcsh"])

    assert (result.exit_code, result.stdout) == (2, "")


# On a busy machine a look at the store may take longer than a person would wait for it.
PROGRAM = """
from canhazgpu.cli.main import main
from canhazgpu.cli.options import value_completion

value_completion.TIMEOUT_S = 60.0
main()
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[CliNode]:
    """Nodes n1 and n2, and a program called canhazgpu in the path."""
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    with make_cli_node() as made:
        program = made.directory / "bin" / "canhazgpu"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\n{PROGRAM}")
        program.chmod(0o755)
        made.publish("n1")
        made.publish("n2")
        yield made


def shell_env(here: CliNode) -> dict[str, str]:
    path = f"{here.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return here.env(PATH=path, HOME=str(here.directory))


def in_shell(here: CliNode, command: Sequence[str]) -> list[str]:
    done = subprocess.run(
        command,
        env=shell_env(here),
        cwd=here.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


BASH = """
eval "$(canhazgpu completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_canhazgpu_completion canhazgpu
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("stat",), ["status"]),
        (("status", "--me"), ["--me", "--memory-threshold"]),
        (("status", "--node", ""), ["n1", "n2"]),
        (("status", "--node", "n2"), ["n2"]),
        (("--set", "store.url=unix:///nonexistent", "status", "--node", ""), []),
        (("--config", "/nonexistent", "status", "--node", ""), []),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_bash(here: CliNode, words: tuple[str, ...], expected: list[str]) -> None:
    assert in_shell(here, ["bash", "-c", BASH, "bash", "canhazgpu", *words]) == expected


def test_bash_at_a_prompt(here: CliNode) -> None:
    script = here.directory / "rc"
    script.write_text('eval "$(canhazgpu completion bash)"\nPS1="ready> "\n')

    with Terminal(("bash", "--rcfile", str(script), "-i"), shell_env(here)) as screen:
        screen.wait_for("ready> ")
        screen.type("canhazgpu completi\t")
        screen.wait_for("completion ")
        screen.type("f\t")
        screen.wait_for("fish")


def test_zsh(here: CliNode) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh on this machine")
    (here.directory / "functions").mkdir()
    script = Path(here.directory / "functions" / "_canhazgpu")
    script.write_text(CliRunner().invoke(cli, ["completion", "zsh"]).stdout)
    (here.directory / ".zshrc").write_text(
        "fpath+=(~/functions)\nautoload -U compinit\ncompinit -u\nPS1='ready> '\n"
    )

    with Terminal(("zsh", "-i"), shell_env(here)) as screen:
        screen.wait_for("ready> ")
        screen.type("canhazgpu stat\t")
        screen.wait_for("status")
        screen.type("--node n\t\t")
        screen.wait_for("n2")


def test_fish(here: CliNode) -> None:
    if shutil.which("fish") is None:
        pytest.skip("there is no fish on this machine")
    command = (
        "canhazgpu completion fish | source; complete --do-complete 'canhazgpu status --node '"
    )

    assert in_shell(here, ["fish", "--no-config", "-c", command]) == ["n1", "n2"]
