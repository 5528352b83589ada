"""Installations as pip leaves them: another environment, half of one, none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hosts.changing_release import wait_for_execution
from hosts.running_agent import RunningAgent, run_hook
from polling import poll_until

from canhazgpu.agent.reexecution.installed_files import identity_of
from canhazgpu.agent.socket_files import HOOKS_SOCKET, agent_directory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]
HERE = Path(sysconfig.get_path("purelib"))
FASTER = """
import canhazgpu.agent.reexecution.upgrade as _upgrade
_upgrade.LOOK_S = _upgrade.SETTLING_LOOK_S = 0.2
_upgrade.STILL_S = _upgrade.GONE_S = 1.0
_upgrade.TELL_AFTER_S = 0.0
_upgrade.RETRY_S = 1.0
"""


class Environment:
    """An environment with an installation of its own, and this one's libraries."""

    def __init__(self, directory: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", "--symlinks", directory], check=True
        )
        self.python = directory / "bin" / "python"
        self.packages = directory / sysconfig.get_path("purelib", vars={"base": ""}).lstrip("/")
        self.description = Path(str(distribution("canhazgpu").locate_file(""))) / next(
            str(one.parent) for one in distribution("canhazgpu").files or () if one.name == "RECORD"
        )
        for one in HERE.iterdir():
            if not one.name.startswith("canhazgpu") and one.suffix != ".pth":
                (self.packages / one.name).symlink_to(one)
        self.install()

    @property
    def installed_description(self) -> Path:
        return self.packages / self.description.name

    def install(self) -> None:
        """Copy the files of this environment, and last of all their list."""
        shutil.copytree(HERE / "canhazgpu", self.packages / "canhazgpu", dirs_exist_ok=True)
        shutil.copytree(self.description, self.installed_description, dirs_exist_ok=True)
        record = self.installed_description / "RECORD"
        lines = record.read_text().splitlines()
        # Scripts and other files beside the packages are this environment's alone.
        record.write_text("\n".join(one for one in lines if not one.startswith("../")) + "\n")

    def uninstall(self) -> None:
        shutil.rmtree(self.packages / "canhazgpu")
        shutil.rmtree(self.installed_description)

    def check(self, agent: RunningAgent) -> subprocess.CompletedProcess[str]:
        return self.command(agent, "agent", "run", "--check")

    def command(self, agent: RunningAgent, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-I", "-m", "canhazgpu.cli.main", *words],
            env=agent.config_environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "agent") as made:
        yield made


def program(agent: RunningAgent) -> str:
    return Path(f"/proc/{agent.process.pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_reload_takes_the_agent_into_the_environment_of_the_command(
    agent: RunningAgent, environment: Environment
) -> None:
    done = environment.command(agent, "agent", "reload", "--timeout", "200")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"PID {agent.process.pid}" in done.stdout
    assert program(agent) == str(environment.python)
    assert agent.status()["faults"] == []
    assert run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"}).returncode == 2


def test_reload_says_why_the_agent_stays_what_it_is(
    agent: RunningAgent, environment: Environment
) -> None:
    # The command itself works without this.
    (environment.packages / "canhazgpu/agent/listener/spare_handler.py").write_text("1 +")

    done = environment.command(agent, "agent", "reload", "--timeout", "200")

    assert done.returncode == 8
    assert "the agent stays with release" in done.stderr
    assert program(agent) == sys.executable
    assert agent.status()["executions"] == 0


def test_half_an_installation_is_no_release(agent: RunningAgent, environment: Environment) -> None:
    assert environment.check(agent).returncode == 0
    # No module that the agent imports.
    template = environment.packages / "canhazgpu/templates/prolog.sh.j2"
    whole = template.read_bytes()

    template.write_bytes(whole[:-1])
    cut = environment.check(agent)
    template.unlink()
    missing = environment.check(agent)
    template.write_bytes(whole)
    (environment.installed_description / "RECORD").unlink()
    unlisted = environment.check(agent)

    assert "not as installed: canhazgpu/templates/prolog.sh.j2" in cut.stderr
    assert "not as installed: canhazgpu/templates/prolog.sh.j2" in missing.stderr
    assert "its list of files is missing" in unlisted.stderr
    assert {one.returncode for one in (cut, missing, unlisted)} == {6}


def test_an_agent_sees_that_its_environment_was_upgraded_in_place(
    tmp_path: Path, environment: Environment
) -> None:
    version = environment.packages / "canhazgpu/cli/version.py"
    with AgentOf(environment, tmp_path / "agent") as agent:
        assert program(agent) == str(environment.python)
        before = identity_of(version)
        environment.uninstall()
        poll_until(lambda: agent.status()["upgrade_fault"])
        # Without its files it answers all the same.
        assert run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"}).returncode == 2
        environment.install()
        with version.open("a") as stream:
            stream.write('VERSION = "0.2.0"\n')
        record = environment.installed_description / "RECORD"
        lines = record.read_text().splitlines()
        record.write_text("\n".join(one for one in lines if "cli/version.py" not in one) + "\n")
        assert identity_of(version) != before

        poll_until(lambda: agent.status()["release"] == "0.2.0")

        found = agent.status()
        assert found["pid"] == agent.process.pid
        assert found["upgrade_fault"] is None


class AgentOf(RunningAgent):
    """An agent that runs from this environment, and looks often."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment
        super().__init__(directory, changes=FASTER)

    @property
    def python(self) -> str:
        return str(self._environment.python)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """One whose sockets have addresses, however long the test's own is."""
    with tempfile.TemporaryDirectory(prefix="chg-") as made:
        yield Path(made)


def test_sockets_that_a_manager_opened_are_used_and_kept(short_directory: Path) -> None:
    directory = short_directory / "agent"
    sockets = agent_directory(directory / "agent-state")
    sockets.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(sockets / HOOKS_SOCKET))
        theirs.listen()
        with ActivatedAgent(theirs, directory) as agent:
            inode = agent.hooks_socket.stat().st_ino
            assert run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"}).returncode == 2
            agent.process.send_signal(signal.SIGHUP)
            wait_for_execution(agent)
            assert run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"}).returncode == 2
            agent.process.terminate()
            assert agent.process.wait(120) == 0
            # Who comes now waits for the next agent.
            assert agent.hooks_socket.stat().st_ino == inode
            assert not agent.people_socket.exists()


class ActivatedAgent(RunningAgent):
    """An agent that gets a listening socket as systemd passes one: as descriptor 3."""

    def __init__(self, listening: socket.socket, directory: Path) -> None:
        self._listening = listening
        super().__init__(directory)

    @property
    def passed(self) -> tuple[int, ...]:
        return (self._listening.fileno(),)

    @property
    def starter(self) -> list[str]:
        script = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&{self.passed[0]}'
        return ["/bin/bash", "-c", script]
