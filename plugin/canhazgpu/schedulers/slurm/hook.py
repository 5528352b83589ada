"""What Slurm's prolog and epilog have in common: their configuration, tools, and way to fail.

Whatever goes wrong in a hook, the node must not be drained for it: Slurm drains a node whose hook
exits non-zero. So every fault becomes a decision about the job and a line in the log.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from canhazgpu.allocator import GpuService
from canhazgpu.config.schema import Config
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import CanhazgpuError, ConfigError, InputError, advice_for, explain
from canhazgpu.ledger.fallback_ledger import FallbackLedger
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.alive import is_alive
from canhazgpu.node.drains import Drains
from canhazgpu.node.identity import boot_id, node_name, pid_namespace, state_dir
from canhazgpu.node.records import JobRecord, JobRecords
from canhazgpu.people.gone import Here
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.port import JobContext, claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.actions import log_to_system
from canhazgpu.schedulers.slurm.commands import SlurmCommands
from canhazgpu.schedulers.slurm.conf import SlurmFacts, read_facts, usual_conf
from canhazgpu.schedulers.slurm.context import job_context
from canhazgpu.schedulers.slurm.early import OPEN_DEADLINE_S, Begun, read_configuration
from canhazgpu.schedulers.slurm.node_ledger import node_ledger
from canhazgpu.schedulers.slurm.presence import JobPresence
from canhazgpu.schedulers.slurm.story import Story, ToldActions, ToldProbe, tell_story

MIN_TIME_S = 1.0
TELL_DEADLINE_S = 3.0
"""Longest time for telling what was done, above the patience with the store; what has come into the
journal is told later."""


@dataclass(frozen=True, slots=True)
class NodeSide:
    """The node that a hook runs on, and everything it works with."""

    node: str
    config: Config
    config_fault: ConfigError | None
    facts: SlurmFacts
    boot_id: str | None
    state_dir: Path
    records: JobRecords
    probe: GpuProbe
    actions: ToldActions
    commands: SlurmCommands
    presence: JobPresence
    story: Story
    again: bool

    def ledger(self) -> FallbackLedger:
        """Return the node's ledger; the store's client is imported when it is first asked."""
        self.story.ledger = node_ledger(self)
        return self.story.ledger

    def here(self) -> Here:
        """Return the node as this process sees it."""
        return Here(self.boot_id, pid_namespace(), is_alive)


@dataclass(frozen=True, slots=True)
class Hook(NodeSide):
    """One run of a hook, and its job."""

    job: JobContext

    @property
    def time_s(self) -> float:
        """How long the hook may take from now on; what it took to begin with counts."""
        left_s = self.config.slurm.hook_deadline_s - self.story.took_s()
        return max(round(left_s, 1), MIN_TIME_S)

    def service(self, ledger: Ledger) -> GpuService:
        """Return the service of this node."""
        return GpuService(self.node, self.here(), self.probe, ledger, self._is_gone)

    def _is_gone(self, reservation: Reservation) -> bool:
        """Tell whether the holder is another job of this cluster that Slurm has no more."""
        claim, own = reservation.claim, self.job.owner
        return (
            claim.job_id is not None
            and claim.job_id != own.job_id
            and claim.owner.startswith(f"job:{own.cluster}:{claim.job_id}:")
            and self.actions.is_gone(claim.job_id)
        )


def open_node(environ: Mapping[str, str], begun: Begun | None = None) -> NodeSide:
    """Return the node of this process, going on with what was begun.

    A configuration that cannot be read is kept as `config_fault`, with the defaults in its place:
    they suffice to send a job back.
    """
    begun = begun or read_configuration(environ)
    config, fault = begun.config, begun.fault
    story = Story(begun.began)
    node = node_name(config.node, environ)
    conf = Path(environ.get(names.CONF) or usual_conf())
    try:
        facts = read_facts(conf, node, socket.gethostname().split(".")[0])
    except ConfigError as exc:
        facts, fault = SlurmFacts(node, False, (), (), None), fault or exc
    commands = SlurmCommands(config.slurm.bin_dir, config.slurm.command_timeout_s, environ)
    place = state_dir(config.node, node)
    return NodeSide(
        node=node,
        config=config,
        config_fault=fault,
        facts=facts,
        boot_id=boot_id(),
        state_dir=place,
        records=JobRecords(place),
        probe=ToldProbe(begun.probe, story, begun.scan),
        actions=ToldActions(commands, facts.log_file, story, Drains(place)),
        commands=commands,
        presence=JobPresence(node, facts.spool_dir, commands),
        story=story,
        again=begun.again,
    )


def of_job(side: NodeSide, environ: Mapping[str, str]) -> Hook:
    """Return the hook of this process's job; raises `InputError` for variables without sense."""
    parts = {one.name: getattr(side, one.name) for one in fields(side)}
    return Hook(**parts, job=job_context(environ, side.node))


def run_hook(
    environ: Mapping[str, str],
    act: Callable[[Hook], None],
    kind: str,
    begun: Begun | Exception | None = None,
) -> int:
    """Open the hook, act, and tell of it as that kind; returns the exit status for slurmd.

    `begun` is what was begun before, or what stopped that.
    Non-zero only for variables that make no sense, and never to slurmd: a later Slurm that says
    things in another way would drain all of its nodes, which could run jobs.
    """
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            if isinstance(begun, Exception):
                raise begun
            side = open_node(environ, begun)
    except Exception as exc:
        # Without the job there is nothing to send back; it starts unchecked, and that is said.
        cry(fault_text(exc))
        return 0
    try:
        hook = of_job(side, environ)
    except InputError as exc:
        print(f"canhazgpu: {exc}", file=sys.stderr)  # noqa: T201 - for whoever runs it by hand
        if names.SCRIPT_CONTEXT not in environ:
            return advice_for(exc).exit_code
        side.actions.log(f"{exc}; no GPU is checked, reserved or released (please report this)")
        return 0
    try:
        act(hook)
        with hard_deadline(TELL_DEADLINE_S):
            tell_of(hook, kind)
    except Exception as exc:
        cry(fault_text(exc))
    return 0


def tell_of(hook: Hook, kind: str) -> None:
    """Tell what the hook did, unless there was nothing for it to do."""
    if hook.story.ledger is not None or hook.story.said:
        job = replace(hook.job, owner=hook.story.ended or hook.job.owner)
        claim = claim_of(job, names.TYPE, hook.boot_id)
        tell_story(hook.story, kind, hook.node, claim)


def cry(message: str) -> None:
    """Say what must not be lost, to whoever listens."""
    print(f"canhazgpu: {message}", file=sys.stderr)  # noqa: T201 - shown if Slurm shows anything
    log_to_system(message)


def settle(service: GpuService, records: JobRecords, ended: list[JobRecord]) -> None:
    """Release what ended attempts still hold, and forget their records. Raises `StoreError`."""
    for record in ended:
        service.release(record.owner.token, "job ended")
        records.forget(record.owner)


def fault_text(error: Exception) -> str:
    """Return a fault as one sentence with the next step; an unforeseen one with its place."""
    if isinstance(error, CanhazgpuError):
        return explain(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error} (please report this)"
