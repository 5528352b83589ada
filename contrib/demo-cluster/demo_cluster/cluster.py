"""A private Slurm that lives in one directory of this host."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from demo_cluster import cgroups
from demo_cluster.accounting import STORAGE_DAEMON, start_accounting, start_slurmdbd
from demo_cluster.client import POLL_S, SlurmClient
from demo_cluster.config_files import Endpoints, cgroup_conf, gres_conf, slurm_conf
from demo_cluster.daemons import (
    Daemons,
    make_munge_key,
    munged_command,
    slurmctld_command,
    slurmd_command,
    wait_for_munge,
    with_mounts,
)
from demo_cluster.devices import make_devices
from demo_cluster.errors import DemoClusterError, StartError, WaitTimeout
from demo_cluster.host.ports import ClaimedPorts
from demo_cluster.host.processes import Process, wait_until
from demo_cluster.layout import Layout, agent_name
from demo_cluster.leftovers import end_leftovers
from demo_cluster.node_agent import StartingAgent
from demo_cluster.spec import ClusterSpec

START_TIMEOUT_S = 120.0
CANCEL_TIMEOUT_S = 5.0


class PrivateSlurm(SlurmClient):
    """munged, slurmctld and one slurmd per node, with everything they own under `directory`.

    Needs root. Runs beside any other Slurm of the host. May be started again after a stop; every
    start is a new cluster: new key, new ports, no jobs.
    """

    def __init__(self, directory: Path, spec: ClusterSpec | None = None) -> None:
        super().__init__(Layout(directory.absolute()), spec or ClusterSpec())
        self._daemons = Daemons(self.layout, self.env())
        self._ports = ClaimedPorts(0)
        self._accounting_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Boot and return when all nodes are idle; on failure stop again and raise StartError."""
        if self._daemons.names():
            raise StartError(f"the cluster in {self.layout.root} is running already")
        try:
            self._boot(timeout_s)
        except (DemoClusterError, OSError, subprocess.SubprocessError) as exc:
            diagnosis = self.diagnosis()
            self.stop()
            raise StartError(f"{exc}\n{diagnosis}") from exc
        except BaseException:
            self.stop()
            raise

    def stop(self, *, delete: bool = False) -> None:
        """End every process of the cluster and remove its cgroups; `delete` removes the directory.

        Does nothing a second time. Processes that were started with `env()` are ended too.
        """
        self._cancel_jobs()
        for name in reversed(self._daemons.names()):
            self._daemons.stop(name)
        end_leftovers(self.layout)
        cgroups.remove(self.layout)
        self._ports.release()
        if delete:
            self.layout.delete()

    def kill_slurmd(self, node: str) -> None:
        """End a node's slurmd as a crash would; its jobs' slurmstepds live on."""
        self._daemons.kill(node)

    def restart_slurmd(self, node: str, *, rebooted: bool = False) -> None:
        """Stop a node's slurmd, running or not, and start it again; its jobs live on.

        With `rebooted` it tells the controller that the node has booted since.
        """
        self._daemons.stop(node)
        self._start_slurmd(node, rebooted=rebooted)

    def kill_agent(self, node: str) -> None:
        """End a node's agent as a crash would."""
        self._daemons.kill(agent_name(node))

    def agent_process(self, node: str) -> Process | None:
        """Return the main process of a node's agent, None where none runs."""
        return self._daemons.process(agent_name(node))

    def start_agents(self, *nodes: str) -> None:
        """Start the agents of these nodes, and return when they serve."""
        with ExitStack() as starting:
            agents = [
                starting.enter_context(
                    StartingAgent(
                        self._daemons,
                        self.layout,
                        node,
                        with_mounts(self.spec.node_agent, self._mounts(node)),
                    )
                )
                for node in nodes
            ]
            for agent in agents:
                agent.wait_until_ready(START_TIMEOUT_S)

    def restart_slurmctld(self) -> None:
        """Stop and start the controller, which keeps its jobs."""
        self._daemons.stop("slurmctld")
        self._daemons.start("slurmctld", slurmctld_command(self.layout, forget=False))
        self._wait_for_controller(START_TIMEOUT_S)

    def stop_accounting(self) -> None:
        """Stop slurmdbd; the controller keeps what it is to be told."""
        self._daemons.stop(STORAGE_DAEMON)

    def restart_accounting(self) -> None:
        """Start slurmdbd again."""
        start_slurmdbd(self._daemons, self.layout, self._accounting_port, START_TIMEOUT_S)

    def reconfigure(self) -> None:
        """Have the daemons read their files again."""
        self.run(["scontrol", "reconfigure"], check=True)

    def _boot(self, timeout_s: float) -> None:
        self.layout.create()
        self._write_files()
        make_devices(self.spec, self.layout)
        self._daemons.start("munged", munged_command(self.layout))
        wait_for_munge(self._daemons, self.layout, timeout_s)
        if self.spec.accounting:
            start_accounting(self._daemons, self.layout, self._accounting_port, timeout_s)
        self._daemons.start("slurmctld", slurmctld_command(self.layout, forget=True))
        if self.spec.node_agent:
            self.start_agents(*self.spec.node_names())
        for node in self.spec.node_names():
            self._start_slurmd(node)
        self._wait_for_controller(timeout_s)
        self._wait_for_nodes(timeout_s)

    def _write_files(self) -> None:
        names = self.spec.node_names()
        self._ports = ClaimedPorts(2 + len(names))
        controller_port, accounting_port, *node_ports = self._ports.numbers
        self._accounting_port = accounting_port if self.spec.accounting else 0
        endpoints = Endpoints(
            socket.gethostname(), controller_port, tuple(node_ports), self._accounting_port
        )
        self.layout.slurm_conf.write_text(slurm_conf(self.spec, self.layout, endpoints))
        etc = self.layout.etc
        (etc / "gres.conf").write_text(gres_conf(self.spec, self.layout))
        cgroup_text = cgroup_conf(self.spec, self.layout, cgroups.plugin())
        (etc / "cgroup.conf").write_text(cgroup_text)
        make_munge_key(self.layout)
        if self.spec.constrain_devices:
            cgroups.prepare(self.layout, host_cgroups=self.spec.host_cgroups)

    def _start_slurmd(self, node: str, *, rebooted: bool = False) -> None:
        self.layout.spool(node).mkdir(mode=0o755, exist_ok=True)
        command = slurmd_command(self.layout, node, self.spec.slurmd_library_path)
        command += ["-b"] if rebooted else []
        self._daemons.start(node, with_mounts(command, self._mounts(node)))

    def _mounts(self, node: str) -> dict[str, Path]:
        """What slurmd, its hooks and the node's agent see instead of this machine's own."""
        mounts = {
            seen_at: Path(source.replace("%n", node)) for seen_at, source in self.spec.node_mounts
        }
        if self.spec.shows_driver_proc:
            mounts["/proc/driver"] = self.layout.driver_proc
        if self.spec.shows_devices:
            mounts["/dev"] = self.layout.devices(node)
        return mounts

    def _wait_for_controller(self, timeout_s: float) -> None:
        def answers() -> bool:
            self._daemons.require_running("slurmctld")
            return self.run(["scontrol", "ping"]).returncode == 0

        if not wait_until(answers, timeout_s):
            raise WaitTimeout("slurmctld does not answer")

    def _wait_for_nodes(self, timeout_s: float) -> None:
        def idle() -> bool:
            for node in self.spec.node_names():
                self._daemons.require_running(node)
            return set(self.node_states().values()) == {"idle"}

        if not wait_until(idle, timeout_s):
            raise WaitTimeout(f"nodes are {self.node_states()}, not all idle")

    def _cancel_jobs(self) -> None:
        """Ask the controller to end all jobs, so that slurmstepds end in the normal way."""
        has_slurmds = any(map(self._daemons.is_running, self.spec.node_names()))
        if not (has_slurmds and self._daemons.is_running("slurmctld")):
            return
        try:
            self.run(["scancel", "--full", "--partition=main"], timeout_s=CANCEL_TIMEOUT_S)
            wait_until(lambda: not self._has_jobs(), CANCEL_TIMEOUT_S, POLL_S)
        except subprocess.TimeoutExpired:
            return  # whatever the jobs have left is ended by pid

    def _has_jobs(self) -> bool:
        return bool(self.run(["squeue", "-h"], timeout_s=CANCEL_TIMEOUT_S).stdout.strip())
