"""The world of a demonstration: users, simulated GPUs, canhazgpu installed, a running Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from canhazgpu_demo.console import DemoFailed, indented, say, wait_for
from canhazgpu_demo.paths import DemoPaths
from canhazgpu_demo.users import DemoUsers, create_user, delete_users
from demo_cluster import ClusterSpec, PrivateSlurm, find_leftovers, new_directory
from demo_cluster.host.user_commands import run_as
from fake_nvml import FakeState, install

REPOSITORY = Path(__file__).resolve().parents[3]
INSTALL_TIMEOUT_S = 600
COMMAND_TIMEOUT_S = 60
SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
GPUS_PER_NODE = 4
PICTURE_SIZE = "1100,700"
"""Width and height in pixels."""
STOP_STORE = "import sys; from canhazgpu.ledger.embedded.server import stop; stop(sys.argv[1])"


class DemoEnvironment:
    """Everything lies in one directory and is undone by `close`."""

    def __init__(self, root: Path | None = None) -> None:
        self.paths = DemoPaths(new_directory() if root is None else root)
        hooks = self.paths.hooks
        self.spec = ClusterSpec(
            nodes=2,
            gpus_per_node=GPUS_PER_NODE,
            prolog=f"{hooks}/prolog.d/*",
            epilog=f"{hooks}/epilog.d/*",
            task_prolog=hooks / "canhazgpu" / "task_prolog.sh",
        )
        self.slurm = PrivateSlurm(self.paths.root, self.spec)
        self.created_users: list[str] = self.paths.read_users()
        self.users = DemoUsers("alice", "bob", "carol")
        self._background: list[subprocess.Popen[str]] = []

    def install_and_boot(self) -> None:
        """Install and boot; says what it does, because parts of it take a while."""
        say(f"everything is in {self.paths.root}")
        self.users = DemoUsers(*(self._new_user(name) for name in self.users.names()))
        say("installing canhazgpu into a virtual environment")
        self._install_project()
        say("building the simulated GPUs")
        self._make_gpus()
        say("installing the hooks: canhazgpu hooks install")
        self._install_hooks()
        say("booting Slurm: a controller and two nodes with four GPUs each")
        self.slurm.start()
        for user in self.users.names():
            self.slurm.home(user)
        self.paths.write_shell(self._variables())
        say("starting the ledger, as its first user who is root does: canhazgpu status")
        self._run("root", "n1", "canhazgpu", "status")

    def run_shell_command(self, user: str, node: str, command: str) -> str:
        """Show a user's command and what it prints, and return that; a failure is one of ours."""
        say(f"{user}@{node}$ {command}")
        done = self._run(user, node, "/bin/sh", "-c", command)
        output = done.stdout + done.stderr
        say(indented(output))
        if done.returncode != 0:
            raise DemoFailed(f"'{command}' ended with {done.returncode}")
        return output

    def run_slurm_command(self, command: list[str]) -> None:
        """Show and run one of Slurm's commands as root."""
        say(f"root# {' '.join(command)}\n")
        self.slurm.run(command, check=True)

    def status(self, node: str) -> list[dict[str, Any]]:
        """Return the node's GPUs as ``canhazgpu status --json`` run there tells them."""
        command = ("canhazgpu", "status", "--node", node, "--json")
        done = self._run(self.users.alice, node, *command)
        if done.returncode != 0:
            raise DemoFailed(f"'{' '.join(command)}' ended with {done.returncode}: {done.stderr}")
        gpus: list[dict[str, Any]] = json.loads(done.stdout)["nodes"][0]["gpus"]
        return gpus

    def start(self, user: str, node: str, command: str) -> subprocess.Popen[str]:
        """Start a user's program in the background, as from a shell on the node."""
        say(f"{user}@{node}$ {command} &")
        process = self.slurm.popen([*self._node_command_prefix(node), *command.split()], user=user)
        self._background.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        process.terminate()
        process.communicate(timeout=COMMAND_TIMEOUT_S)
        self._background.remove(process)

    def start_page(self) -> str:
        """Start `canhazgpu web` as the first user, to stay, and return its address."""
        command = [str(self.paths.shell), self.users.alice, "n1", "canhazgpu", "web"]
        with self.paths.page_log.open("w", encoding="utf-8") as log:
            page = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.paths.page_pid.write_text(str(page.pid), "utf-8")

        def address() -> str | None:
            text = self.paths.page_log.read_text("utf-8")
            if page.poll() is not None:
                raise DemoFailed(f"'canhazgpu web' ended with {page.returncode}: {text}")
            return text.split()[-1] if text.endswith("/\n") else None

        return wait_for("the page", address)

    def take_picture(self, path: Path) -> None:
        """Keep what the page shows now as a PNG; Chromium takes it, as a browser shows it."""
        for node in self.spec.node_specs():
            # The jobs' programs began after their prologs' scans.
            self._run("root", node.name, "canhazgpu", "validate", "--publish")
        address = self.start_page()
        with tempfile.TemporaryDirectory() as profile:
            self._run_as_root(
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={PICTURE_SIZE}",
                f"--screenshot={path}", address,
            )  # fmt: skip
        self._stop_page()
        say(f"{path} shows it")

    def close(self) -> None:
        """End every process, remove the users and the directory; report what is left.

        Each part is undone whatever becomes of the others.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.slurm.layout.delete)
            undo.callback(delete_users, self.created_users)
            undo.callback(self._stop_store)
            undo.callback(self.slurm.stop)
            undo.callback(self._stop_page)
            for process in tuple(self._background):
                undo.callback(self.end, process)
        left = " ".join(str(process.pid) for process in find_leftovers(self.slurm.layout))
        if left or self.paths.root.exists():
            raise DemoFailed(f"left behind: processes {left or 'none'}, {self.paths.root}")

    def _stop_page(self) -> None:
        """End the page, in this demonstration or in one that `--keep` left running."""
        if not self.paths.page_pid.exists():
            return
        pid = int(self.paths.page_pid.read_text("utf-8"))
        # Another program may have the number by now.
        command = Path(f"/proc/{pid}/cmdline")
        with contextlib.suppress(OSError):
            if str(self.paths.venv) in command.read_text("utf-8"):
                os.kill(pid, signal.SIGTERM)
                wait_for("the page's end", lambda: None if _is_running(pid) else True)

    def _new_user(self, name: str) -> str:
        user = create_user(name)
        self.created_users.append(user)
        self.paths.write_users(self.created_users)
        return user

    def _install_project(self) -> None:
        # The system's Python, since ordinary users have to be able to execute it.
        self._run_as_root(sys.executable, "-m", "venv", str(self.paths.venv))
        self._run_as_root(
            str(self.paths.venv / "bin" / "python"), "-m", "pip", "install", "-qq",
            "--disable-pip-version-check", f"{REPOSITORY}[embedded,web]",
        )  # fmt: skip

    def _make_gpus(self) -> None:
        install(self.paths.fake)
        state = FakeState(self.paths.fake / "state")
        for node in self.spec.node_specs():
            state.add_node(node.name, GPUS_PER_NODE, minors=node.minors)

    def _install_hooks(self) -> None:
        self.paths.write_config("slurm")
        program = str(self.paths.venv / "bin" / "canhazgpu")
        self._run_as_root(
            program, "--config", str(self.paths.config),
            "hooks", "install", "--slurm-dir", str(self.paths.hooks),
        )  # fmt: skip

    def _stop_store(self) -> None:
        python = self.paths.venv / "bin" / "python"
        if python.exists() and self.paths.store.exists():
            self._run_as_root(str(python), "-I", "-c", STOP_STORE, str(self.paths.store))

    def _run_as_root(self, *command: str) -> None:
        done = run_as(
            "root", command, env=os.environ, cwd=self.paths.root, timeout_s=INSTALL_TIMEOUT_S
        )
        if done.returncode != 0:
            raise DemoFailed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")

    def _run(self, user: str, node: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.slurm.run(
            [*self._node_command_prefix(node), *command], user=user, timeout_s=COMMAND_TIMEOUT_S
        )

    def _node_command_prefix(self, node: str) -> list[str]:
        """What makes a command run "on a node", which is this host for all of them."""
        variables = {**self._variables(), "CANHAZGPU_NODE_NAME": node, "FAKE_NVML_NODE": node}
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]

    def _variables(self) -> dict[str, str]:
        path = f"{self.paths.venv}/bin:{self.paths.fake}:{SEARCH_PATH}"
        return {
            "PATH": path,
            "CANHAZGPU_CONFIG": str(self.paths.config),
            "SLURM_CONF": str(self.slurm.layout.slurm_conf),
        }


def _is_running(pid: int) -> bool:
    """Tell whether the process has not ended; one that nobody has waited for yet has."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
