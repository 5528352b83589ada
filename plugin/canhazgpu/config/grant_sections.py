"""The configuration of grants: sections ``slurm``, ``epilog`` and ``run``."""

from __future__ import annotations

from canhazgpu.config.conflict_chain import (
    Chain,
    chain_for_partition,
    longest_wait_s,
    parse_chain,
    parse_chains_by_partition,
)
from canhazgpu.config.key import (
    absolute_path_or_empty,
    at_least,
    heartbeat_interval,
    key,
    one_of,
    positive_seconds,
    subset_of,
    valid_chain,
    valid_chains_by_partition,
    word_list,
)
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass

DEFAULT_COMMAND_TIMEOUT_S = 10.0
DEFAULT_HOOK_DEADLINE_S = 45.0
DEFAULT_MAX_REQUEUES = 20
DEFAULT_KILL_GRACE_S = 5.0
DEFAULT_SETTLE_S = 10.0
DEFAULT_HEARTBEAT_S = 15.0
DEFAULT_LEASE_S = 60.0
NON_WAITING_S = 15.0
"""Part of a hook's deadline that is not for waiting: for scans, the store and the release."""

CONTAINER_VARIABLES = (
    "NVIDIA_VISIBLE_DEVICES",
    "APPTAINERENV_NVIDIA_VISIBLE_DEVICES",
    "SINGULARITYENV_NVIDIA_VISIBLE_DEVICES",
)
"""Variables by which container runtimes are told the GPUs; the task prolog knows them too."""


@dataclass(frozen=True, slots=True)
class SlurmConfig:
    """Section ``slurm``: how Slurm's jobs get their GPUs."""

    assignment: str = key(
        "auto",
        "who picks the devices: slurm, canhazgpu, or auto (slurm where cgroups constrain devices)",
        check=one_of("auto", "slurm", "canhazgpu"),
    )
    on_conflict: str = key(
        "requeue",
        "the steps that are tried, one after another, for a job whose GPUs cannot be granted:"
        " wait:<seconds>, swap, kill, requeue, drain, warn",
        check=valid_chain,
    )
    on_conflict_by_partition: tuple[str, ...] = key(
        (),
        "chains that replace slurm.on_conflict for jobs of single partitions, for instance"
        ' ["debug=warn", "gpu=wait:20,requeue"]',
        check=valid_chains_by_partition,
    )
    max_requeues: int = key(
        DEFAULT_MAX_REQUEUES,
        "how often canhazgpu requeues one job before it takes the next step of the chain; after the"
        " last step it holds the job",
        check=at_least(1),
    )
    protected_users: tuple[str, ...] = key(
        ("root",),
        "users whose processes are never ended, in addition to all users below uid 1000",
        check=word_list,
    )
    kill_grace_s: float = key(
        DEFAULT_KILL_GRACE_S,
        "time between SIGTERM and SIGKILL for processes that are ended",
        check=positive_seconds,
    )
    export: str = key(
        "auto",
        "what CUDA_VISIBLE_DEVICES holds in jobs: auto (where Slurm constrains devices, Slurm's own"
        " numbers in each step where they are right; UUIDs elsewhere), uuid, or index (numbers"
        " everywhere; a job is sent back where they are not certain)",
        check=one_of("auto", "uuid", "index"),
    )
    export_also: tuple[str, ...] = key(
        (),
        "variables that hold the UUIDs of a task's GPUs too, as CANHAZGPU_GPUS does in any case:"
        " any of " + ", ".join(CONTAINER_VARIABLES),
        check=subset_of(*CONTAINER_VARIABLES),
    )
    job_report: str = key(
        "off",
        "where Slurm is told what a job made of its GPUs: off, or admin_comment (one line in the"
        " job's AdminComment, by slurmdbd, where no other text is there)",
        check=one_of("off", "admin_comment"),
    )
    bin_dir: str = key(
        "",
        "directory of scontrol and scancel; empty: the usual places",
        check=absolute_path_or_empty,
    )
    command_timeout_s: float = key(
        DEFAULT_COMMAND_TIMEOUT_S,
        "longest time that all of Slurm's commands in one hook may take together",
        check=positive_seconds,
    )
    hook_deadline_s: float = key(
        DEFAULT_HOOK_DEADLINE_S,
        "longest time that a prolog or epilog may take; keep it below PrologEpilogTimeout",
        check=positive_seconds,
    )

    def __post_init__(self) -> None:
        """Raise `ConfigError` for chains that wait longer than a hook may take."""
        waits_s = longest_wait_s(self.chains(), self.kill_grace_s)
        needed_s = waits_s + NON_WAITING_S
        if waits_s and needed_s > self.hook_deadline_s:
            raise ConfigError(
                f"the waits of slurm.on_conflict and slurm.kill_grace_s need {needed_s:g} s with"
                f" the {NON_WAITING_S:g} s of everything else, but slurm.hook_deadline_s is"
                f" {self.hook_deadline_s:g}: wait less, or raise it, and keep PrologEpilogTimeout"
                " above it"
            )

    def chains(self) -> list[Chain]:
        """Return all configured chains."""
        by_partition = parse_chains_by_partition(self.on_conflict_by_partition)
        return [parse_chain(self.on_conflict), *by_partition.values()]

    def chain_of(self, partition: str) -> Chain:
        """Return the chain for jobs of a partition."""
        return chain_for_partition(self.on_conflict, self.on_conflict_by_partition, partition)


@dataclass(frozen=True, slots=True)
class EpilogConfig:
    """Section ``epilog``: what happens to processes and memory that a job leaves on its GPUs."""

    leftovers: str = key(
        "kill",
        "what the epilog does with the job's processes on its GPUs: kill (end them) or report (only"
        " log them)",
        check=one_of("kill", "report"),
    )
    settle_s: float = key(
        DEFAULT_SETTLE_S,
        "how long the epilog waits for used memory to become free before it quarantines the GPU;"
        " never longer than slurm.hook_deadline_s allows",
        check=positive_seconds,
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Section ``run``: how people get their GPUs."""

    choice: str = key(
        "lru",
        "which free GPUs are chosen: lru (least recently released) or affinity (those that the user"
        " had last)",
        check=one_of("lru", "affinity"),
    )
    export: str = key(
        "uuid",
        "what CUDA_VISIBLE_DEVICES holds in runs: uuid, or index (MIG instances: uuid in either"
        " case; refused where CUDA's index is not certain)",
        check=one_of("uuid", "index"),
    )
    via_slurm: str = key(
        "no",
        "yes: run and reserve get GPUs through srun and salloc, where Slurm has this host's GPUs",
        check=one_of("no", "yes"),
    )
    heartbeat_s: float = key(
        DEFAULT_HEARTBEAT_S,
        "time between two heartbeats of a run or a waiter, in seconds, at most 20: after 60 without"
        " a heartbeat, a run in a container counts as gone",
        check=heartbeat_interval,
    )
    lease_s: float = key(
        DEFAULT_LEASE_S,
        "a waiter without a heartbeat for this time has left the queue; it writes three heartbeats"
        " in this time",
        check=positive_seconds,
    )
    max_reserve_s: float = key(
        0.0,
        "longest time of a reservation with reserve, in seconds; 0: no limit",
        check=at_least(0),
    )
    max_gpus: int = key(
        0,
        "most GPUs and MIG instances of this node that one user holds by run and reserve and waits"
        " for, together; 0: no limit",
        check=at_least(0),
    )
    max_memory_threshold_mb: int = key(
        0,
        "highest --memory-threshold of run and reserve (MB); 0: no limit",
        check=at_least(0),
    )
