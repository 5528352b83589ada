"""A state directory, the built library, and interpreters that ask it through real pynvml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import install_driver

import fake_nvml

# pynvml loads "libnvidia-ml.so.1" by name: one that is loaded already is found by its SONAME.
INTERPRETER = """
import ctypes, json, sys
ctypes.CDLL(sys.argv[1])
import pynvml as p

def handle(index):
    return p.nvmlDeviceGetHandleByIndex(index)

def used_mb(h):
    return p.nvmlDeviceGetMemoryInfo(h, p.nvmlMemory_v2).used >> 20

def pids(h):
    return [info.pid for info in p.nvmlDeviceGetComputeRunningProcesses(h)]

for line in sys.stdin:
    try:
        answer = {"value": eval(line)}
    except p.NVMLError as error:
        answer = {"value": {"error": error.value}}
    except Exception as error:
        answer = {"failure": repr(error)}
    print(json.dumps(answer), flush=True)
"""


class Nvml:
    """An interpreter with pynvml over the library: call it with an expression."""

    def __init__(self, library: Path, env: dict[str, str]) -> None:
        clean = {key: value for key, value in os.environ.items() if key != "SLURMD_NODENAME"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", INTERPRETER, str(library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | env,
        )

    def send(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline() or '{"failure": "it died"}')
        assert "failure" not in answer, answer
        return answer["value"]

    def __call__(self, expression: str) -> Any:
        self.send(expression)
        return self.receive()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A directory that every Unix user can get into, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def library(reachable: Path) -> Path:
    return install_driver(reachable / "new")


@pytest.fixture(scope="session")
def old_library(reachable: Path) -> Path:
    return install_driver(reachable / "old", old=True)


@pytest.fixture
def state(reachable: Path) -> fake_nvml.FakeState:
    return fake_nvml.FakeState(tempfile.mkdtemp(dir=reachable, prefix="state-"))


@pytest.fixture
def node(state: fake_nvml.FakeState) -> fake_nvml.FakeNode:
    return state.add_node("n1", 2)


@pytest.fixture
def interpreter() -> Iterator[Callable[[Path, dict[str, str]], Nvml]]:
    """Starts interpreters, and ends them with the test."""
    started: list[Nvml] = []

    def start(library: Path, env: dict[str, str]) -> Nvml:
        started.append(Nvml(library, env))
        return started[-1]

    yield start
    for nvml in started:
        nvml.close()


@pytest.fixture
def nvml(
    interpreter: Callable[[Path, dict[str, str]], Nvml],
    library: Path,
    state: fake_nvml.FakeState,
    node: fake_nvml.FakeNode,
) -> Nvml:
    """An interpreter on node n1, initialised."""
    asked = interpreter(library, state.env(node.name))
    asked("p.nvmlInit()")
    return asked


@pytest.fixture
def run_program(
    library: Path, state: fake_nvml.FakeState
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs an installed program on node n1, with further variables as keywords."""

    def run(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [library.parent / name, *arguments],
            check=False,
            env={"PATH": "/usr/bin:/bin", **state.env("n1"), **env},
            capture_output=True,
            text=True,
            timeout=10,
        )

    return run
