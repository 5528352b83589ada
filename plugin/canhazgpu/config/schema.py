"""The configuration keys: name, type, default, meaning, and what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from canhazgpu.conflict.chain import (
    Chain,
    chain_for,
    longest_s,
    parse_by_partition,
    parse_chain,
)
from canhazgpu.errors import ConfigError, InputError

DEFAULT_STORE_URL = "redis://127.0.0.1:6379/0"
DEFAULT_STORE_TIMEOUT_S = 2.0
DEFAULT_EMBEDDED_DIR = "/var/lib/canhazgpu/store"
DEFAULT_MEMORY_THRESHOLD_MB = 1024
DEFAULT_SCAN_TIMEOUT_S = 10.0
DEFAULT_STATE_DIR = "/run/canhazgpu"
DEFAULT_COMMAND_TIMEOUT_S = 10.0
DEFAULT_HOOK_DEADLINE_S = 45.0
DEFAULT_MAX_REQUEUES = 20
DEFAULT_KILL_GRACE_S = 5.0
DEFAULT_SETTLE_S = 10.0
HOOK_RESERVE_S = 15.0
"""What of a hook's deadline is kept from waiting: for scans, the store and the release."""
DEFAULT_HISTORY_DAYS = 90
DEFAULT_RETRY_AFTER_S = 15.0
DEFAULT_HEARTBEAT_S = 15.0
DEFAULT_LEASE_S = 60.0
MAX_HEARTBEAT_S = 20
"""A third of the time after which the silent are gone whose processes cannot be looked at."""
MAX_WAIT_S = 86400

HEALTH_CHECKS = ("recovery_action", "remap", "retirement", "ecc", "compute_mode")
"""The checks of a GPU's health that may quarantine it; see `canhazgpu.gpu.health`."""

Check = Callable[[Any], str | None]
"""Takes a value of the key's type; returns what is accepted when the value is not."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What the loader and the reference know of a key beside its type and default."""

    meaning: str
    check: Check | None = None
    secret: bool = False


def key(default: Any, meaning: str, *, check: Check | None = None, secret: bool = False) -> Any:
    """Declare a configuration key as a dataclass field."""
    return field(default=default, metadata={"info": KeyInfo(meaning, check, secret)})


def one_of(*accepted: str) -> Check:
    """Accept one of the given words."""

    def check(value: str) -> str | None:
        return None if value in accepted else " or ".join(f'"{word}"' for word in accepted)

    return check


def at_least(minimum: float) -> Check:
    """Accept a number from `minimum` up."""

    def check(value: float) -> str | None:
        return None if value >= minimum else f"a number from {minimum} up"

    return check


def above_zero(value: float) -> str | None:
    """Accept a positive number of seconds that the operating system's timers can wait."""
    return None if 0 < value <= MAX_WAIT_S else f"a number above 0, at most {MAX_WAIT_S}"


def heartbeat(value: float) -> str | None:
    """Accept a number of seconds that leaves room for two lost signs of life."""
    return None if 0 < value <= MAX_HEARTBEAT_S else f"a number above 0, at most {MAX_HEARTBEAT_S}"


def absolute_path(value: str) -> str | None:
    """Accept an absolute path."""
    return None if value.startswith("/") else "an absolute path"


def absolute_path_or_empty(value: str) -> str | None:
    """Accept an absolute path, or nothing."""
    return absolute_path(value) if value else None


def words(value: tuple[str, ...]) -> str | None:
    """Accept a list of words, none of them empty."""
    return None if all(one.strip() for one in value) else "a list of words, none of them empty"


def chain(value: str) -> str | None:
    """Accept a chain of conflict policies."""
    return _fault(lambda: parse_chain(value))


def chains_by_partition(value: tuple[str, ...]) -> str | None:
    """Accept a list of partitions, each with its chain."""
    return _fault(lambda: parse_by_partition(value))


def _fault(parse: Callable[[], object]) -> str | None:
    try:
        parse()
    except InputError as exc:
        return str(exc).rpartition("accepted: ")[2]
    return None


def some_of(*accepted: str) -> Check:
    """Accept a list of the given words."""

    def check(value: tuple[str, ...]) -> str | None:
        return None if set(value) <= set(accepted) else f"a list of {', '.join(accepted)}"

    return check


def store_url(value: str) -> str | None:
    """Accept the URL forms the store understands."""
    schemes = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")
    if value == "embedded" or value.startswith(schemes):
        return None
    return '"embedded" or a URL beginning with ' + ", ".join(schemes)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the ledger of reservations is."""

    url: str = key(
        DEFAULT_STORE_URL,
        'redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL, or "embedded"',
        check=store_url,
        secret=True,
    )
    timeout_s: float = key(
        DEFAULT_STORE_TIMEOUT_S, "longest wait for one connection or answer", check=above_zero
    )
    embedded_dir: str = key(
        DEFAULT_EMBEDDED_DIR,
        'where the server of store.url = "embedded" keeps its data and socket',
        check=absolute_path,
    )
    history_days: int = key(
        DEFAULT_HISTORY_DAYS, "days for which the history is kept", check=at_least(1)
    )
    on_failure: str = key(
        "local",
        "what Slurm's hooks do without the store: local (decide from the node's own records, and"
        " tell the store later) or fail (jobs do not start)",
        check=one_of("local", "fail"),
    )
    retry_after_s: float = key(
        DEFAULT_RETRY_AFTER_S,
        "for how long Slurm's hooks do not ask a store again that did not serve",
        check=above_zero,
    )


@dataclass(frozen=True, slots=True)
class ValidationConfig:
    """How the GPUs are read and judged."""

    memory_threshold_mb: int = key(
        DEFAULT_MEMORY_THRESHOLD_MB,
        "a GPU with more used memory than this is in use (MB as nvidia-smi counts them)",
        check=at_least(0),
    )
    ignore_processes: tuple[str, ...] = key(
        (),
        "names of processes that do not count as use, as Xorg, or root:Xorg for one user's alone",
        check=words,
    )
    ignore_users: tuple[str, ...] = key(
        (), "users whose processes do not count as use", check=words
    )
    probe: str = key(
        "auto",
        "what reads the GPUs: nvml, nvidia-smi, or auto (nvidia-smi where NVML cannot be used)",
        check=one_of("auto", "nvml", "nvidia-smi"),
    )
    nvidia_smi: str = key(
        "",
        "absolute path of nvidia-smi; empty: the usual places",
        check=absolute_path_or_empty,
    )
    expected_gpus: int = key(
        0,
        "GPUs that this node should have; 0: as many as its scheduler counts, if it does",
        check=at_least(0),
    )
    health_checks: tuple[str, ...] = key(
        HEALTH_CHECKS,
        "what quarantines a GPU: any of " + ", ".join(HEALTH_CHECKS),
        check=some_of(*HEALTH_CHECKS),
    )
    nvml_library: str = key(
        "",
        "absolute path of libnvidia-ml.so.1; empty: the dynamic loader finds it",
        check=absolute_path_or_empty,
    )
    scan_timeout_s: float = key(
        DEFAULT_SCAN_TIMEOUT_S, "longest time one scan may take", check=above_zero
    )


@dataclass(frozen=True, slots=True)
class SlurmConfig:
    """How Slurm's jobs get their GPUs."""

    assignment: str = key(
        "auto",
        "who picks the devices: slurm, canhazgpu, or auto (slurm where cgroups constrain devices)",
        check=one_of("auto", "slurm", "canhazgpu"),
    )
    on_conflict: str = key(
        "requeue",
        "what is tried, step by step, for a job whose GPUs cannot be granted: wait:<seconds>, swap,"
        " kill, requeue, drain, warn",
        check=chain,
    )
    on_conflict_by_partition: tuple[str, ...] = key(
        (),
        'other chains for jobs of some partitions, as in ["debug=warn", "gpu=wait:20,requeue"]',
        check=chains_by_partition,
    )
    max_requeues: int = key(
        DEFAULT_MAX_REQUEUES,
        "how often canhazgpu requeues one job before the next step of its chain, at the end before"
        " holding it",
        check=at_least(1),
    )
    protected_users: tuple[str, ...] = key(
        ("root",),
        "users whose processes are never ended, beside all below uid 1000",
        check=words,
    )
    kill_grace_s: float = key(
        DEFAULT_KILL_GRACE_S,
        "time between SIGTERM and SIGKILL for processes that are ended",
        check=above_zero,
    )
    export: str = key(
        "uuid",
        "what CUDA_VISIBLE_DEVICES holds: uuid (right everywhere) or index (unconstrained only)",
        check=one_of("uuid", "index"),
    )
    bin_dir: str = key(
        "",
        "directory of scontrol and scancel; empty: the usual places",
        check=absolute_path_or_empty,
    )
    command_timeout_s: float = key(
        DEFAULT_COMMAND_TIMEOUT_S,
        "longest time Slurm's commands may take in one hook, all together",
        check=above_zero,
    )
    hook_deadline_s: float = key(
        DEFAULT_HOOK_DEADLINE_S,
        "longest time a prolog or epilog may take; keep it below PrologEpilogTimeout",
        check=above_zero,
    )

    def __post_init__(self) -> None:
        """Refuse chains that wait longer than the hook may take. Raises `ConfigError`."""
        chains = (
            parse_chain(self.on_conflict),
            *parse_by_partition(self.on_conflict_by_partition).values(),
        )
        needed_s = longest_s(chains, self.kill_grace_s) + HOOK_RESERVE_S
        if longest_s(chains, self.kill_grace_s) and needed_s > self.hook_deadline_s:
            raise ConfigError(
                f"the waits of slurm.on_conflict and slurm.kill_grace_s need {needed_s:g} s with"
                f" the {HOOK_RESERVE_S:g} s of everything else, but slurm.hook_deadline_s is"
                f" {self.hook_deadline_s:g}: wait less, or raise it, and keep PrologEpilogTimeout"
                " above it"
            )

    def chain_of(self, partition: str) -> Chain:
        """Return the chain for jobs of a partition."""
        return chain_for(self.on_conflict, self.on_conflict_by_partition, partition)


@dataclass(frozen=True, slots=True)
class EpilogConfig:
    """What happens at a job's end to what it left on its GPUs."""

    leftovers: str = key(
        "kill",
        "the job's processes that are still on its GPUs: kill ends them, report only tells of them",
        check=one_of("kill", "report"),
    )
    settle_s: float = key(
        DEFAULT_SETTLE_S,
        "how long memory that is not free yet is waited for before its GPU is quarantined; never"
        " longer than slurm.hook_deadline_s allows",
        check=above_zero,
    )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The node itself."""

    name: str = key(
        "", "the node's name; empty: SLURMD_NODENAME where it is set, else the short hostname"
    )
    state_dir: str = key(
        DEFAULT_STATE_DIR,
        "the node's own records, gone after a reboot; %n stands for the node's name",
        check=absolute_path,
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How people get their GPUs."""

    choice: str = key(
        "lru",
        "which of the free GPUs: lru (least recently released) or affinity (the user's last ones)",
        check=one_of("lru", "affinity"),
    )
    export: str = key(
        "uuid",
        "what CUDA_VISIBLE_DEVICES holds: uuid, or index (never of MIG instances)",
        check=one_of("uuid", "index"),
    )
    via_slurm: str = key(
        "no",
        "yes: run and reserve get GPUs through srun and salloc, where Slurm has this host's",
        check=one_of("no", "yes"),
    )
    heartbeat_s: float = key(
        DEFAULT_HEARTBEAT_S,
        "time between two signs of life of a run or a waiter, in seconds, at most 20:"
        " after 60 without one a run in a container is taken for gone",
        check=heartbeat,
    )
    lease_s: float = key(
        DEFAULT_LEASE_S,
        "a waiter without a sign of life for so long has left; it gives three of them in that time",
        check=above_zero,
    )
    max_reserve_s: float = key(
        0.0,
        "longest time for which one may reserve, in seconds; 0: any",
        check=at_least(0),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; see each section."""

    store: StoreConfig = field(default_factory=StoreConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    epilog: EpilogConfig = field(default_factory=EpilogConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    run: RunConfig = field(default_factory=RunConfig)


SECTIONS: dict[str, type] = {
    "store": StoreConfig,
    "validation": ValidationConfig,
    "slurm": SlurmConfig,
    "epilog": EpilogConfig,
    "node": NodeConfig,
    "run": RunConfig,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration: ``section.name``."""

    section: str
    name: str
    type: type
    default: Any
    info: KeyInfo

    @property
    def path(self) -> str:
        """The key as users write it, ``store.url``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets the key, ``CANHAZGPU_STORE_URL``."""
        return f"CANHAZGPU_{self.section}_{self.name}".upper()


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "tuple[str, ...]": tuple}


def all_keys() -> dict[str, Key]:
    """Return every key by its path, in the order of the reference."""
    found = {}
    for section, kind in SECTIONS.items():
        for item in fields(kind):
            one = Key(
                section, item.name, _TYPES[str(item.type)], item.default, item.metadata["info"]
            )
            found[one.path] = one
    return found
