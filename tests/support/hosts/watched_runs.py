"""Commands with GPUs on a node whose agent watches them, as a request would have started them."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hosts.running_agent import RunningAgent
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import Config, NodeConfig, RunConfig, StoreConfig, ValidationConfig
from canhazgpu.in_process.people_ledger import people_ledger
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import read_stat, this_process
from canhazgpu.node.run_marker import MARKER_VARIABLE, new_run_marker
from canhazgpu.probe.node_probe import NodeProbe

NODE = "n1"
NOBODY = 65534
SHELL = "/bin/sh"
ALL_GPUS = 8
_numbers = itertools.count(1)


@dataclass
class WatchedNode:
    """A node with an agent and a store of its own; `heartbeat_s` is that of its runs."""

    directory: Path
    server: PrivateRedis
    heartbeat_s: float = 1.0
    accounting: str = "off"
    waits_for_use: bool = True
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Give the node its GPUs."""
        self.library = str(install_driver(self.directory / "nvml"))
        state = fake_nvml.FakeState(self.directory / "nvml" / "state")
        state.add_node(NODE, ALL_GPUS)
        state.set_default_node(NODE)
        self.driver = state.node(NODE)
        self.gpus = self.driver.gpus
        self.seen = self.observe()
        self._indices = {gpu.uuid: gpu.index for gpu in self.seen.scan.gpus}

    def observe(self) -> Observation:
        """Scan the GPUs."""
        return NodeProbe(NODE, ValidationConfig(nvml_library=self.library)).start().observe()

    def uuids(self, *indices: int) -> tuple[str, ...]:
        return tuple(self.seen.scan.gpus[index].uuid for index in indices)

    @property
    def state_dir(self) -> Path:
        return self.directory / "agent-state"

    @property
    def config(self) -> Config:
        return Config(
            store=StoreConfig(url=self.server.url, timeout_s=2.0, retry_after_s=1.0),
            node=NodeConfig(
                state_dir=str(self.state_dir), marker_dir=str(self.directory / "agent-lib")
            ),
            run=RunConfig(heartbeat_s=self.heartbeat_s, lease_s=30.0),
            validation=ValidationConfig(
                nvml_library=self.library, probe="nvml", accounting=self.accounting
            ),
        )

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.state_dir)

    def agent(self) -> RunningAgent:
        store = {"url": self.server.url, "timeout_s": 2.0, "retry_after_s": 1.0}
        run = {"heartbeat_s": self.heartbeat_s}
        driver = {"nvml_library": self.library, "probe": "nvml", "accounting": self.accounting}
        # A machine with much to do may take longer.
        patient = "from canhazgpu.probe.accounting import job_use; job_use.LIMIT_S = 60.0"
        changes = patient if self.waits_for_use else ""
        return RunningAgent(self.directory, NODE, changes, store=store, run=run, validation=driver)

    def ledger(self) -> RedisLedger:
        return RedisLedger(StoreConfig(url=self.server.url), Role.WRITE)

    def own_ledger(self) -> FallbackLedger:
        """The ledger by which the node itself decides."""
        committer = Committer(this_process())
        return people_ledger(NODE, self.config, {"SLURMD_NODENAME": NODE}, print, committer)

    def holders(self) -> dict[int, str]:
        """The owners of GPUs, by index."""
        (view,) = self.ledger().read_nodes([NODE])
        held = view.reservations.items()
        return {self._indices[gpu]: one.claim.owner for gpu, one in held}

    def processes(self, index: int) -> tuple[ProcessId, ...]:
        """Those by which the reservation of the GPU lasts."""
        (view,) = self.ledger().read_nodes([NODE])
        (gpu,) = self.uuids(index)
        return view.reservations[gpu].claim.processes

    def releases(self) -> list[tuple[str, str]]:
        """Owners and reasons of all releases."""
        events = self.ledger().history(NODE, 0.0)
        return [(one.claim.owner, one.reason) for one in events if one.kind == "release"]

    def users_file(self, uid: int) -> Path:
        """An empty file of this user."""
        made = self.directory / f"file-{uid}"
        made.touch(mode=0o644)
        os.chown(made, uid, uid)
        return made

    def start(
        self,
        script: str,
        *indices: int,
        uid: int = 0,
        timeout_s: float | None = None,
        ends_when_lost: bool = False,
        stderr: Path | None = None,
    ) -> Run:
        """Start a shell's script with these GPUs: reserve, record, execute."""
        owner = f"run:{next(_numbers)}"
        marker = new_run_marker(owner)
        process = self._popen(script, marker, uid, stderr)
        # It may have ended already.
        stat = read_stat(process.pid)
        assert stat is not None
        command = ProcessId(process.pid, stat.started)
        claim = Claim(
            owner,
            RUN,
            "somebody",
            uid,
            boot_id=boot_id(),
            processes=(command,),
            pid_namespace=pid_namespace(),
        )
        gpus = self.uuids(*indices)
        granting = self.own_ledger()
        assert isinstance(granting.reserve_given(claim, gpus, self.seen), GrantedGpus)
        record = RunRecord(claim, marker, gpus, uid, (), uptime_s(), timeout_s, ends_when_lost)
        self.files.write(record)
        assert granting.commit(owner) is None
        return Run(process, record)

    def _popen(
        self, script: str, marker: str, uid: int, stderr: Path | None
    ) -> subprocess.Popen[bytes]:
        environ = {**os.environ, MARKER_VARIABLE: marker}
        given: dict[str, object] = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
        target = subprocess.DEVNULL
        if stderr is not None:
            target = os.open(stderr, os.O_RDWR | os.O_APPEND)
        process = subprocess.Popen(
            [SHELL, "-c", script], env=environ, stderr=target, start_new_session=True, **given
        )
        if stderr is not None:
            os.close(target)
        self.started.append(process)
        return process

    @contextmanager
    def ending(self) -> Iterator[WatchedNode]:
        """Kill in the end what was started, with what it started."""
        try:
            yield self
        finally:
            for one in self.started:
                with suppress(ProcessLookupError):
                    os.killpg(one.pid, 9)
                one.wait()


@dataclass
class Run:
    process: subprocess.Popen[bytes]
    record: RunRecord

    @property
    def owner(self) -> str:
        return self.record.owner
