"""A host that people share: simulated GPUs, a private Redis, and the command, for several users."""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forking_python import ForkedCommand, ForkingPython, kept_to_the_end
from polling import poll_until
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver
from terminal import Terminal

import fake_nvml
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import NodeView

NODE = "host1"
TIMEOUT_S = 120.0
Started = subprocess.Popen[str] | ForkedCommand
COMMAND = ("-c", "from canhazgpu.cli.entry import main; main()")


@functools.cache
def _interpreter(program: Path) -> ForkingPython:
    return kept_to_the_end(ForkingPython(program.with_name("python")))


class SharedHost:
    """The host; `program` is the installed command, which every user may execute."""

    def __init__(self, program: Path, gpus: int = 2, *, persist: bool = False) -> None:
        self.program = program
        self.root = Path(tempfile.mkdtemp(prefix="chg-host-"))
        self.root.chmod(0o755)
        self.redis = PrivateRedis(persist=persist)
        install_driver(self.root / "nvml")
        state = fake_nvml.FakeState(self.root / "nvml" / "state")
        self.node = state.add_node(NODE, gpus)
        state.set_default_node(NODE)
        self.outputs = self.root / "outputs"
        self.outputs.mkdir()
        self.outputs.chmod(0o1777)
        self._started: list[Started] = []
        self.configure()

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the configuration, with these sections' keys added."""
        content: dict[str, dict[str, Any]] = {
            "store": {"url": self.redis.url, "timeout_s": 2.0},
            "validation": {"nvml_library": str(self.root / "nvml" / "libnvidia-ml.so.1")},
            "node": {
                "name": NODE,
                "state_dir": str(self.root / "run"),
                "marker_dir": str(self.root / "lib"),
            },
        }
        for section, values in sections.items():
            content.setdefault(section, {}).update(values)
        lines = []
        for section, values in content.items():
            lines.append(f"[{section}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        draft = self.root / ".config.toml.new"
        draft.write_text("\n".join(lines) + "\n")
        draft.chmod(0o644)
        draft.replace(self.root / "config.toml")

    def environ(self, user: str = "root", **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
        return {
            **kept,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/",
            "USER": user,
            "CANHAZGPU_CONFIG": str(self.root / "config.toml"),
            **more,
        }

    def start(
        self,
        *arguments: str,
        user: str = "root",
        environ: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Started:
        """Start the command as a user; unless `how` says more, by forking. Output is collected."""
        if how:
            return self.start_program(*arguments, user=user, environ=environ, **how)
        given = self.environ(user, **(environ or {}))
        words = (*COMMAND, *arguments)
        forked = _interpreter(self.program).start_command(words, given, user, Path("/"))
        self._started.append(forked)
        return forked

    def start_program(
        self,
        *arguments: str,
        user: str = "root",
        environ: Mapping[str, str] | None = None,
        **how: Any,
    ) -> subprocess.Popen[str]:
        """Start the program itself; its output is collected unless `how` says otherwise."""
        account = pwd.getpwnam(user)
        as_user = {"user": user, "group": account.pw_gid, "extra_groups": []}
        process = subprocess.Popen(
            [str(self.program), *arguments],
            env=self.environ(user, **(environ or {})),
            text=True,
            **{
                "cwd": "/",
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **({} if user == "root" else as_user),
                **how,
            },
        )
        self._started.append(process)
        return process

    def call(
        self,
        *arguments: str,
        user: str = "root",
        environ: Mapping[str, str] | None = None,
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; unless `how` says more, by forking.

        The GPUs of a `run` are released by then.
        """
        if not how:
            given = self.environ(user, **(environ or {}))
            words = (*COMMAND, *arguments)
            done = _interpreter(self.program).run(words, given, TIMEOUT_S, user, Path("/"))
            if arguments[:1] == ("run",):
                poll_until(lambda: not self._is_holder(done.pid), "the run's GPUs to be released")
            return done
        process = self.start(*arguments, user=user, environ=environ, **how)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def on_terminal(self, *arguments: str, **how: Any) -> Terminal:
        """Start the command on a terminal of its own, as root; `how` is the terminal's."""
        return Terminal([str(self.program), *arguments], self.environ(), **how)

    def ledger(self) -> RedisLedger:
        return RedisLedger(StoreConfig(url=self.redis.url), Role.WRITE)

    def view(self) -> NodeView:
        (view,) = self.ledger().read_nodes([NODE])
        return view

    def holders(self) -> dict[str, str]:
        """Return the reserved GPUs and who holds each."""
        return {uuid: one.claim.user for uuid, one in self.view().reservations.items()}

    def _is_holder(self, pid: int) -> bool:
        """Tell whether a command has GPUs, as far as the store says: it sees an end a bit later."""
        try:
            reservations = self.view().reservations.values()
        except StoreError:
            return False
        return any(pid == one.pid for held in reservations for one in held.claim.processes)

    def uuids(self) -> list[str]:
        return [gpu.uuid for gpu in self.node.gpus]

    @property
    def gpu_process(self) -> str:
        """The program that behaves as a CUDA program does."""
        return str(self.root / "nvml" / "gpu-process")

    def stop(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        end_processes_below(self.root)
        self.redis.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def end_processes_below(root: Path) -> None:
    """End what a test's commands left running: whatever has this host's configuration."""
    mark = f"CANHAZGPU_CONFIG={root / 'config.toml'}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


@contextmanager
def shared_host(program: Path, gpus: int = 2, *, persist: bool = False) -> Iterator[SharedHost]:
    host = SharedHost(program, gpus, persist=persist)
    try:
        yield host
    finally:
        host.stop()
