"""Faults of a whole node: its disk, its clock, its CPU, its Slurm, and a reboot."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.evidence import Downtime
from canhazgpu_soak.faults import plan
from canhazgpu_soak.faults.injection import Maker
from canhazgpu_soak.faults.plan import Fault
from canhazgpu_soak.lost_launches import CONTROLLER
from canhazgpu_soak.stores.port import Struck, nothing_to_undo
from demo_cluster import StartError

FILLER = ".filler"
BOOT_S = 15.0
"""A boot takes longer than slurmctld waits for a batch script (BatchStartTimeout): a job that began
right before the reboot is missed then."""
PIECE = b"\0" * 65536
STEPS_S = (-86400, -3600, -60, -5, 5, 60, 3600, 86400)


class NodeFaults:
    """`hogs` processes take the CPU. Agents that a reboot ends join `agents_killed`."""

    def __init__(self, cluster: SoakCluster, hogs: int, agents_killed: set[int]) -> None:
        self.restarts: list[tuple[str, float]] = []
        """Of slurmctld, or of which node's slurmd, and when each began."""
        self.reboots: list[tuple[str, float]] = []
        """Of which node, and when none of its processes lived any more."""
        self.downtimes: list[Downtime] = []
        self.store_steps: list[tuple[float, float]] = []
        """When the store's clock was set forward, and by how much."""
        self._cluster = cluster
        self._hogs = hogs
        self._agents_killed = agents_killed

    def makers(self) -> dict[str, Maker]:
        """Return what makes each kind of fault at once."""
        return {
            plan.DISK_FULL: partial(self._fill, _fill_blocks),
            plan.INODES_GONE: partial(self._fill, _fill_inodes),
            plan.AGENT_CLOCK: self._step_agents_clock,
            plan.HOGS: self._starve,
            plan.TAMPERED: self._tamper,
        }

    def slow_makers(self) -> dict[str, Maker]:
        """Return what makes each kind that takes seconds."""
        return {
            plan.STORE_CLOCK: self._step_stores_clock,
            plan.CONTROLLER: self._restart_controller,
            plan.SLURMD: self._restart_slurmd,
            plan.REBOOTED: self._reboot,
        }

    def _fill(self, fill: Callable[[Path], bool], fault: Fault) -> Struck:
        """Take all room below the node's state directory."""
        directory = self._cluster.state_dir(fault.node) / FILLER
        undo = partial(_remove_files, directory)
        if directory.exists():
            return None
        try:
            directory.mkdir(0o700)
        except OSError:
            return None
        if fill(directory):
            return undo
        undo()
        return None

    def _step_agents_clock(self, fault: Fault) -> Struck:
        """Let the agent's and its children's time of day jump, and jump back later."""
        clock = self._cluster.agent_clocks[fault.node]
        pid = self._cluster.agent_pid(fault.node)
        if not pid or str(self._cluster.clock_library) not in Path(f"/proc/{pid}/maps").read_text():
            return None
        clock.set(_step_s(fault))
        return lambda: clock.set(0)

    def _step_stores_clock(self, fault: Fault) -> Struck:
        store, step_s = self._cluster.store, _step_s(fault)
        self.store_steps.append((now(), step_s))
        if store.set_clock(step_s):
            return lambda: self._set_clock_back(-step_s)
        store.set_clock(0)
        return None

    def _set_clock_back(self, step_s: float) -> None:
        self.store_steps.append((now(), step_s))
        self._cluster.store.set_clock(0)

    def _starve(self, fault: Fault) -> Struck:
        busy = ["/usr/bin/timeout", f"{fault.lasts_s:.1f}", "/bin/sh", "-c", "while :; do :; done"]
        hogs = [subprocess.Popen(busy, start_new_session=True) for _ in range(self._hogs)]
        return partial(_end, hogs) if hogs else None

    def _tamper(self, fault: Fault) -> Struck:
        """Remove all reservations of the node from its book and from the store."""
        path = self._cluster.state_dir(fault.node) / "book.json"
        if not path.exists() or not self._cluster.store.forget_reservations(fault.node):
            return None
        book = json.loads(path.read_text())
        new = path.with_name("book.tampered")
        new.write_text(json.dumps({**book, "held": {}, "own": [], "own_people": []}))
        new.chmod(0o600)
        new.rename(path)
        return nothing_to_undo

    def _restart_controller(self, _fault: Fault) -> Struck:
        self.restarts.append((CONTROLLER, now()))
        self._cluster.slurm.restart_slurmctld()
        return nothing_to_undo

    def _restart_slurmd(self, fault: Fault) -> Struck:
        self.restarts.append((fault.node, now()))
        self._cluster.slurm.restart_slurmd(fault.node)
        return nothing_to_undo

    def _reboot(self, fault: Fault) -> Struck:
        """End all that runs on the node, empty its /run, and boot it with another boot id."""
        cluster, node = self._cluster, fault.node
        with cluster.supervision[node]:
            began = now()
            cluster.slurm.kill_slurmd(node)
            self._agents_killed.add(cluster.agent_pid(node))
            cluster.slurm.kill_agent(node)
            while pids := cluster.processes_of(node):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
                time.sleep(0.05)
            self.reboots.append((node, now()))
            cluster.begin_boot(node)
            time.sleep(BOOT_S)
            if cluster.has_hooks:
                # Another fault may keep it from starting; the supervisor starts it later then.
                with contextlib.suppress(StartError):
                    cluster.slurm.start_agents(node)
            self.downtimes.append(Downtime(node, began, now()))
            cluster.slurm.restart_slurmd(node, rebooted=True)
        return nothing_to_undo


def _step_s(fault: Fault) -> int:
    return STEPS_S[int(fault.draw * len(STEPS_S))]


def _fill_blocks(directory: Path) -> bool:
    """Return whether a further byte finds no room."""
    try:
        with (directory / "blocks").open("wb", buffering=0) as file:
            while True:
                file.write(PIECE)
    except OSError as exc:
        return exc.errno == errno.ENOSPC


def _fill_inodes(directory: Path) -> bool:
    """Return whether a further file finds no room."""
    try:
        for number in range(100_000):
            (directory / str(number)).touch()
    except OSError as exc:
        return exc.errno == errno.ENOSPC
    return False


def _remove_files(directory: Path) -> None:
    # A node that reboots meanwhile empties it, too, and each may miss what the other leaves.
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def _end(hogs: list[subprocess.Popen[bytes]]) -> None:
    for one in hogs:
        one.terminate()
    for one in hogs:
        one.wait()
